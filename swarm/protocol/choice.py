"""Which set of contributions to vote for. Knows no clock. Spec: docs/wire.md §5.5, §5.7.

A proposal is a hint: whoever votes checks that the set could close the round here too, and computes
weights and result himself.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from typing import Final, TypeAlias, final

from ledger.charter import AggregationPolicy, RoundPolicy
from ledger.roster import quorum
from ledger.rules import rule_of_round
from swarm.protocol.attempts import Claim, Next, next_vote
from swarm.protocol.book import Offer, Proposal, RoundBook
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

    def _sets(self, round_: int, attempt: int) -> Counter[Inputs]:
        """Every published set that could close the round here, in order of rank, with its votes."""
        votes = self._book.attempt_votes(round_, attempt)
        order = ranked(self._book.roster.net, round_ + attempt, votes)
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

    def newer_attempt(self, attempt: int) -> int | None:
        """An attempt of round zero after ``attempt`` that this node may vote in, if there is reason to.

        Reason: the votes are split, by what or by which electorate they were cast, or somebody has gone
        on. A liar who runs ahead costs votes only.
        One that others have voted in already comes before a fresh one: else three who need each other
        would leap over each other for ever.
        """
        later = {a for a in self._book.attempts(MOMENTS_ROUND).values() if a > attempt}
        here = self._book.attempt_votes(MOMENTS_ROUND, attempt)
        electorates = self._book.electorates(MOMENTS_ROUND, attempt)
        cast = {(vote, electorates[author]) for author, vote in here.items()}
        if not later and len(cast) < 2:
            return None
        fresh = {one + 1 for one in (*later, attempt)} - later
        for target in (*sorted(later, reverse=True), *sorted(fresh, reverse=True)):
            if self._allowed(target).ready:
                return target
        return None

    def again(self, attempt: int, lost: Callable[[Offer], bool]) -> Inputs:
        """What to vote for in a later attempt of round zero; nothing as long as more votes must come.

        What may have won the attempt before, and nothing else. If nothing may have: what had most
        votes there and can be fetched, so that all who have seen the same votes choose the same;
        at last what is held here. Then nothing from behind a fork: not everybody could name it.
        """
        allowed = self._allowed(attempt)
        if not allowed.ready:
            return NONE
        if allowed.bound is not None:
            return self._candidates.named([allowed.bound], MOMENTS_ROUND)[0]
        forked = self._book.is_behind_fork
        sets = self._sets(MOMENTS_ROUND, attempt - 1)
        able = [inputs for inputs in sets if not any(lost(one) or forked(one) for one in inputs)]
        held = tuple(one for one in self._candidates.held(MOMENTS_ROUND) if not forked(one))
        own = held if self.closes(held, MOMENTS_ROUND) else NONE
        return max(able, key=lambda inputs: sets[inputs], default=own)

    def adopted(self, attempt: int) -> Proposal | None:
        """What alone may be voted for, if this node holds other branches of a fork than it names.

        It cannot compute that itself. An honest member has: more than f voted for it.
        """
        bound = self._allowed(attempt).bound
        if bound is None or self._candidates.named([bound], MOMENTS_ROUND)[0]:
            return None
        votes = self._book.attempt_votes(MOMENTS_ROUND, attempt - 1)
        count = sum(vote == bound for vote in votes.values())
        return bound if count > self._book.roster.f else None

    def _allowed(self, attempt: int) -> Next[Proposal]:
        """Judge the attempt before by every electorate there ever was: a vote counts in its own only."""
        book, roster = self._book, self._book.roster
        votes = book.votes_cast(MOMENTS_ROUND, attempt - 1)
        named = book.vote_rosters(MOMENTS_ROUND, attempt - 1)
        claims: list[Claim[Proposal]] = []
        for members, newest in self._electorates.items():
            needed = quorum(len(members))
            unseen = self._unseen(members, newest, votes)
            claims.append(Claim(value=None, votes=0, unseen=unseen, quorum=needed))
            versions: dict[Proposal, list[int]] = defaultdict(list)
            for author, vote in votes.items():
                if roster.active_at(named[author]) == members:
                    versions[vote].append(named[author])
            for vote, under in versions.items():
                is_cut = self._is_cut(vote)
                claims.append(
                    Claim(
                        value=vote,
                        votes=len(under),
                        unseen=self._unseen(members, max(under), votes) if is_cut else unseen,
                        quorum=needed,
                        is_barred=is_cut,
                    )
                )
        return next_vote(claims)

    @cached_property
    def _electorates(self) -> Mapping[frozenset[int], int]:
        """Everybody who was a member together once, and the newest roster of which that is so."""
        roster = self._book.roster
        return {roster.active_at(version): version for version in range(roster.version + 1)}

    def _unseen(self, members: frozenset[int], version: int, votes: Collection[int]) -> int:
        """How many may have voted up to a roster's time without a vote here.

        Who is gone or has another key since has no vote of then that is not here; what one with two
        histories has voted, nobody knows.
        """
        book, roster = self._book, self._book.roster
        versions = [v for v in range(version + 1) if roster.active_at(v) == members]
        proven = book.proven_under(versions)
        return sum(
            one in proven
            or (roster.is_active(one) and roster.term(one, roster.epoch(one)).since <= version)
            for one in members.difference(votes)
        )

    def _is_cut(self, vote: Proposal) -> bool:
        """Whether an input lies behind a cut: under this roster nobody can vote for it again."""
        cuts = ((self._book.roster.cut(one.author, one.epoch), one.seq) for one in vote.inputs)
        return any(cut is not None and seq >= cut.kept for cut, seq in cuts)
