"""Which set of contributions to vote for. Knows no clock. Spec: docs/wire.md §5.5, §5.7.

A proposal is a hint: whoever votes checks that the set could close the round here too, and computes
weights and result himself.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Final, TypeAlias, final

from ledger.charter import AggregationPolicy, RoundPolicy
from ledger.rules import rule_of_round
from swarm.protocol.ballots import attempt_of, is_confirmation, vote_ballot
from swarm.protocol.book import Offer, RoundBook
from swarm.protocol.candidates import MOMENTS_ROUND, Candidates
from swarm.protocol.ranking import ranked

Inputs: TypeAlias = tuple[Offer, ...]
NONE: Final[Inputs] = ()


@final
class Choice:
    """One node's view of the votes."""

    def __init__(
        self,
        book: RoundBook,
        candidates: Candidates,
        policy: RoundPolicy,
        aggregation: AggregationPolicy,
        *,
        own: int,
    ) -> None:
        self._book = book
        self._candidates = candidates
        self._policy = policy
        self._aggregation = aggregation
        self._own = own

    def members_min(self, round_: int) -> int:
        """Fewest contributions of a round that close it.

        Round zero cannot go on without a quorum of equal votes, so a few who are cut off must not
        spend theirs on a set that the others never heard of; whoever votes has contributed.
        """
        if round_ == MOMENTS_ROUND:
            return max(self._policy.members_min, self._book.roster.q)
        return self._policy.members_min

    def closes(self, inputs: Collection[Offer], round_: int) -> bool:
        """Whether these inputs are enough: of this round so many, and late or not all of `required`."""
        on_time = self._candidates.on_time(inputs, round_)
        authors = on_time.union(offer.author for offer in inputs)
        return len(on_time) >= self.members_min(round_) and not self.missing_required(authors)

    def is_complete(self, inputs: Collection[Offer], round_: int) -> bool:
        """Whether nobody on the roster is missing."""
        return len(self._candidates.on_time(inputs, round_)) == self._book.roster.n

    def missing_required(self, have: Collection[int]) -> tuple[str, ...]:
        """Members without whom the charter lets no round close."""
        return tuple(
            member.name
            for member in self._book.roster.active
            if member.name in self._policy.required and member.index not in have
        )

    def turn(self, round_: int, active: Iterable[int]) -> int:
        """How many members propose before this one."""
        return ranked(self._book.roster.net, round_, {*active, self._own}).index(self._own)

    def may_agree(self, round_: int) -> bool:
        """Whether any result of a round may still get a quorum: else nobody's vote is worth waiting for."""
        book = self._book
        votes = book.votes(round_)
        missing = sum(
            book.is_frozen(one.index)  # it counts for whatever most others vote for
            or (one.index not in votes and not book.has_passed(one.index, round_))
            for one in book.roster.active
        )
        return book.votes_most(round_) + missing >= book.roster.q

    def proposal(self, round_: int, lost: Callable[[Offer], bool]) -> Inputs:
        """The published set with most votes that this node may vote for too.

        lost: what nobody serves. Nobody waits for it because one member says that he holds it; what
        more than f voted for, an honest one holds.
        """
        sets, f = self._sets(round_, 0), self._book.roster.f
        mine = [
            inputs
            for inputs, count in sets.items()
            if self._is_fair(inputs, count, round_) and (count > f or not any(map(lost, inputs)))
        ]
        return max(mine, key=lambda inputs: sets[inputs], default=NONE)

    def _sets(self, round_: int, number: int) -> Counter[Inputs]:
        """Every set that was voted for and could close the round here, in order of rank, with its votes."""
        votes = self._book.ballot(round_, number)
        order = ranked(self._book.roster.net, round_ + attempt_of(number), votes)
        rule = rule_of_round(self._aggregation, round_)
        ranked_votes = [votes[a] for a in order if votes[a].rule == rule]
        named = self._candidates.named(ranked_votes, round_)
        return Counter(inputs for inputs in named if inputs and self.closes(inputs, round_))

    def _is_fair(self, inputs: Inputs, votes: int, round_: int) -> bool:
        """Whether a proposal leaves out no more of what I hold than a quorum can do without.

        Otherwise the first to publish, a liar, would decide whose patients count. What more than f
        members voted for, an honest one has found to be all that there was.
        """
        inside = {offer.author for offer in inputs} | self._candidates.on_time(inputs, round_)
        held = self._candidates.held(round_)
        ignored = [one for one in held if one.round == round_ and one.author not in inside]
        roster = self._book.roster
        return votes > roster.f or len(ignored) <= roster.n - roster.q

    # Round zero, voted on again

    def again(self, attempt: int, lost: Callable[[Offer], bool]) -> Inputs:
        """What to vote for in a later attempt of round zero by who is bound to nothing (attempts.py).

        What more than f voted for in it, or had most votes in the last one before in which more than
        f voted, and can be fetched, so that all who have seen the same votes choose the same; at
        last what is held here. Nothing from behind a fork: not everybody could name it.
        """
        forked = self._book.is_behind_fork
        for number in self._book.turnouts():
            if is_confirmation(number) or number > vote_ballot(attempt):
                continue
            least = self._book.roster.f + 1 if attempt_of(number) == attempt else 1
            sets = self._sets(MOMENTS_ROUND, number)
            able = [
                inputs
                for inputs, count in sets.items()
                if count >= least and not any(lost(one) or forked(one) for one in inputs)
            ]
            if able:
                return max(able, key=lambda inputs: sets[inputs])
        held = tuple(one for one in self._candidates.held(MOMENTS_ROUND) if not forked(one))
        return held if self.closes(held, MOMENTS_ROUND) else NONE
