"""Round zero votes until it agrees, and never on two things. Spec: docs/wire.md §5.7, ADR 0014.

Every other round may end provisional; round zero's moments all must share. So a split vote is taken
again. An attempt has two phases, as in Castro and Liskov's PBFT (1999) and Buchman, Kwon and Milosevic's
Tendermint (2018), without a leader: members vote; what a quorum voted for they confirm, and are bound to
it until they see that a quorum of a later attempt voted for something else; a quorum of confirmations
agrees. No clock here: the caller says when a wait is over.
"""

from dataclasses import dataclass
from typing import Final, final

from ledger.electorate import is_quorum
from ledger.roster import tolerated
from swarm.protocol.ballots import attempt_of, confirmation_ballot, is_confirmation, vote_ballot
from swarm.protocol.book import Proposal, RoundBook
from swarm.protocol.candidates import MOMENTS_ROUND

NEVER: Final = -1


@dataclass(frozen=True, slots=True)
class Bound:
    """What alone may be voted for; ``proposal`` is None while nothing may be."""

    proposal: Proposal | None


@final
class Attempts:
    """One node's view of round zero's votes."""

    def __init__(self, book: RoundBook, *, own: int) -> None:
        self._book = book
        self._own = own

    @property
    def newest(self) -> int:
        """The own newest ballot, or NEVER."""
        return self._book.newest_ballots(MOMENTS_ROUND).get(self._own, NEVER)

    def bound(self) -> Bound | None:
        """What the next vote must be for; None if it is free.

        For what was carried last, unless the own last confirmation is newer and may have been agreed: a
        roster update can take away the votes that carried that. What then lies behind a cut nobody
        can vote for, and whoever has confirmed it waits.
        """
        carried = self._carried()
        for number in filter(is_confirmation, self._book.cast(self._own)):
            if carried is not None and carried[0] >= attempt_of(number):
                break
            own = self._book.vote(MOMENTS_ROUND, number, self._own)
            if own is not None and self._may_be_agreed(number, own):
                return Bound(None if self._is_cut(own) else own)
        return Bound(carried[1]) if carried is not None else None

    def to_confirm(self) -> tuple[int, Proposal] | None:
        """A ballot, and what to confirm in it: what a quorum voted for in the own attempt or a later one."""
        carried = self._carried()
        if carried is None or confirmation_ballot(carried[0]) <= self.newest:
            return None
        return confirmation_ballot(carried[0]), carried[1]

    def joined(self, attempt: int) -> int | None:
        """A later attempt than this one that an honest member has begun: more others than may still lie."""
        others = sorted(map(attempt_of, self._others().values()), reverse=True)
        spare = max(self._book.roster.f - len(self._proven()), 0)
        return others[spare] if len(others) > spare and others[spare] > attempt else None

    def next(self, attempt: int) -> int | None:
        """The attempt after this one, which has lasted long enough, if there is reason for one.

        Reason: enough take part to agree, and their votes are split, their confirmations are of two
        electorates, or somebody has gone on. While too few are here an attempt waits, however long.
        """
        others = [attempt_of(ballot) for ballot in self._others().values()]
        here = 1 + sum(one >= attempt for one in others) + len(self._proven())
        reason = (
            self._carried_in(attempt) is None
            or len(self._book.electorates(MOMENTS_ROUND, confirmation_ballot(attempt))) > 1
            or any(one > attempt for one in others)
        )
        return attempt + 1 if reason and here >= self._book.roster.q else None

    def _others(self) -> dict[int, int]:
        """Newest ballots of the other members that are not proven to lie."""
        newest, roster = self._book.newest_ballots(MOMENTS_ROUND), self._book.roster
        not_counted = {self._own, *self._proven()}
        return {
            author: ballot
            for author, ballot in newest.items()
            if roster.is_active(author) and author not in not_counted
        }

    def _proven(self) -> frozenset[int]:
        """Members whose log of today forks."""
        active = self._book.roster.active
        return frozenset(one.index for one in active if self._book.is_frozen(one.index))

    def _carried(self) -> tuple[int, Proposal] | None:
        """The last attempt in which something was carried, and that."""
        for number in self._book.turnouts():
            winner = None if is_confirmation(number) else self._carried_in(attempt_of(number))
            if winner is not None:
                return attempt_of(number), winner
        return None

    def _carried_in(self, attempt: int) -> Proposal | None:
        """What a quorum voted for in an attempt, if it can still be voted for."""
        winner = self._book.winner(MOMENTS_ROUND, vote_ballot(attempt))
        return None if winner is None or self._is_cut(winner) else winner

    def _is_cut(self, vote: Proposal) -> bool:
        """Whether an input lies behind a cut, or in a branch that is not kept: nobody can vote for it again."""
        for one in vote.inputs:
            cut = self._book.roster.cut(one.author, one.epoch)
            if cut is not None and (one.seq >= cut.kept or self._book.offer(one.id) is None):
                return True
        return False

    def _may_be_agreed(self, number: int, proposal: Proposal) -> bool:
        """Whether confirmations that are not here may have made a quorum with those that are.

        Whoever may have one here, and as many as may still lie, counted as if they had confirmed it.
        """
        book, roster, ballot = self._book, self._book.roster, (MOMENTS_ROUND, number)
        backers = book.backers(MOMENTS_ROUND, number, proposal)
        named = {one: book.roster_of_vote(MOMENTS_ROUND, number, one) for one in backers}
        left = roster.active_at(roster.version)
        for version in set(named.values()):
            members = roster.active_at(version)
            for electorate in (members, members & left):
                unseen = [one for one in electorate if self._may_have_voted(one, number, version)]
                every = dict.fromkeys(unseen, version) | named
                proven = book.proven_in(ballot, every.values())
                may_lie = tolerated(len(members)) - len(proven & members)
                spare = max(min(may_lie, tolerated(len(electorate))), 0)
                others = sorted(electorate - proven - every.keys())[:spare]
                every |= dict.fromkeys(others, version)
                after_removals = electorate != members
                if is_quorum(roster, every, proven=proven, after_removals=after_removals):
                    return True
        return False

    def _may_have_voted(self, author: int, number: int, version: int) -> bool:
        """Whether an honest vote of a ballot under this roster may exist that is not here.

        Who is gone or has another key since has none of then that is not here; who has voted later neither.
        """
        roster = self._book.roster
        if self._book.newest_ballots(MOMENTS_ROUND).get(author, NEVER) >= number:
            return False
        has_key_of_then = roster.term(author, roster.epoch(author)).since <= version
        return roster.is_active(author) and has_key_of_then
