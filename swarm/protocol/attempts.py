"""Round zero votes until it agrees, and never on two things. Spec: docs/wire.md §5.7, ADR 0014.

Every other round may end provisional; round zero's moments all must share. So a split vote is taken
again. An attempt has two phases, as in Castro and Liskov's PBFT (1999) and Buchman, Kwon and Milosevic's
Tendermint (2018), without a leader: members vote; what a quorum voted for they confirm, and are bound to
it until they see that a quorum of a later attempt voted for something else; a quorum of confirmations
agrees. No clock here: the caller says when a wait is over.
"""

from dataclasses import dataclass
from typing import Final, final

from ledger.roster import quorum
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

        For what a quorum voted for last, as far as is known here, if that is no older than the own last
        confirmation; else for what that one confirmed. What lies behind a cut nobody can vote for any more: while
        it may have been agreed nothing else is voted for by who confirmed it.
        """
        confirmed, own = self._own_confirmation()
        carried = self._carried()
        if own is not None and self._is_cut(own):
            if self._may_be_agreed(confirmation_ballot(confirmed), own):
                return Bound(None)
            own = None
        if carried is not None and (own is None or carried[0] >= confirmed):
            return Bound(carried[1])
        return Bound(own) if own is not None else None

    def to_confirm(self) -> tuple[int, Proposal] | None:
        """A ballot, and what to confirm in it: what a quorum voted for in the own attempt or a later one."""
        carried = self._carried()
        if carried is None or confirmation_ballot(carried[0]) <= self.newest:
            return None
        return confirmation_ballot(carried[0]), carried[1]

    def joined(self, attempt: int) -> int | None:
        """A later attempt than this one that an honest member has begun: more others than may still lie."""
        others = sorted((attempt_of(b) for a, b in self._others().items()), reverse=True)
        spare = max(self._book.roster.f - len(self._proven()), 0)
        return others[spare] if len(others) > spare and others[spare] > attempt else None

    def next(self, attempt: int) -> int | None:
        """The attempt after this one, which has lasted long enough, if there is reason for one.

        Reason: enough take part to agree, and their votes are split or somebody has gone on. While
        too few are here an attempt waits, however long.
        """
        others = [attempt_of(ballot) for ballot in self._others().values()]
        here = 1 + sum(one >= attempt for one in others) + len(self._proven())
        split = self._carried_in(attempt) is None
        reason = split or any(one > attempt for one in others)
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

    def _own_confirmation(self) -> tuple[int, Proposal | None]:
        """Attempt and value of the own last confirmation."""
        for number in reversed(self._book.ballots(MOMENTS_ROUND)):
            if is_confirmation(number):
                own = self._book.vote(MOMENTS_ROUND, number, self._own)
                if own is not None:
                    return attempt_of(number), own
        return NEVER, None

    def _carried(self) -> tuple[int, Proposal] | None:
        """The last attempt in which something was carried, and that."""
        for number in reversed(self._book.ballots(MOMENTS_ROUND)):
            if not is_confirmation(number):
                winner = self._carried_in(attempt_of(number))
                if winner is not None:
                    return attempt_of(number), winner
        return None

    def _carried_in(self, attempt: int) -> Proposal | None:
        """What a quorum voted for in an attempt, if it can still be voted for."""
        winner = self._book.winner(MOMENTS_ROUND, vote_ballot(attempt))
        return None if winner is None or self._is_cut(winner) else winner

    def _is_cut(self, vote: Proposal) -> bool:
        """Whether an input lies behind a cut: under this roster nobody can vote for it again."""
        cuts = ((self._book.roster.cut(one.author, one.epoch), one.seq) for one in vote.inputs)
        return any(cut is not None and seq >= cut.kept for cut, seq in cuts)

    def _may_be_agreed(self, number: int, proposal: Proposal) -> bool:
        """Whether confirmations that are not here may have made a quorum with those that are."""
        book, roster = self._book, self._book.roster
        backers = book.backers(MOMENTS_ROUND, number, proposal)
        for version in {book.roster_of_vote(MOMENTS_ROUND, number, one) for one in backers}:
            members = roster.active_at(version)
            unseen = sum(self._may_have_voted(one, number, version) for one in members - backers)
            if len(members & backers) + unseen >= quorum(len(members)):
                return True
        return False

    def _may_have_voted(self, author: int, number: int, version: int) -> bool:
        """Whether a vote of a ballot under this roster may exist that is not here.

        Who is gone or has another key since has none of then; who has voted later, or otherwise, neither;
        what one with two histories has voted nobody knows.
        """
        book, roster = self._book, self._book.roster
        if author in book.proven_under((version,)):
            return True
        if book.newest_ballots(MOMENTS_ROUND).get(author, NEVER) >= number:
            return False
        has_key_of_then = roster.term(author, roster.epoch(author)).since <= version
        return roster.is_active(author) and has_key_of_then
