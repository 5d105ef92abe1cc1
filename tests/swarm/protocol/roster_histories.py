"""Random histories of round zero in which the roster changes once, and each member learns of it when it does.

A liar or an honest hospital is rotated or removed, or one more is added. What the cut of a rotation or
removal leaves of a log is what some member had heard of it, so it may take away votes that others rely on.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from ledger.fork import Cut
from ledger.record import NO_ID, Record, Verified
from ledger.roster import Roster, Term, quorum, tolerated
from swarm.protocol.attempts import Bound
from swarm.protocol.book import Proposal
from tests.federation import Author
from tests.swarm.protocol.attempt_histories import History, Log, Member, log_of


class Operation(StrEnum):
    """What the admins sign."""

    REMOVAL = "removal"
    ROTATION = "rotation"
    ADDITION = "addition"


@dataclass(frozen=True)
class Change:
    """The next roster, and which history of the log that it cuts it keeps."""

    roster: Roster
    cut: Cut | None = None
    branch: int = 0

    def is_of(self, log: Log) -> bool:
        """Tell whether this is the log that it cuts."""
        return self.cut is not None and log == (self.cut.author, self.cut.epoch)


class MemberOfTwo(Member):
    """An honest one, that learns of the second roster at some moment."""

    change: Change | None = None
    taken: Proposal | None = None
    """What it once took for agreed and went on with."""

    def branch_of(self, log: Log) -> int:
        if self.change and self.change.is_of(log):
            return self.change.branch
        return super().branch_of(log)

    def accepts(self, record: Verified[Record]) -> bool:
        """No record of a roster that it does not know, or from behind a cut that it knows."""
        if record.value.roster > self.roster.version:
            return False
        cut = self.roster.cut(*log_of(record))
        return super().accepts(record) if cut is None else record.value.seq < cut.kept

    def take_up(self, change: Change) -> None:
        """Forget what the cut leaves out, and begin anew with the rest."""
        if self.change is not None:
            return
        if change.cut is not None:
            log = change.cut.author, change.cut.epoch
            same = change.branch == self.branch or len(self.history.pens[log]) == 1
            kept = change.cut.kept if same else min(change.cut.kept, self.history.fork_seq)
            self.heard[log] = min(self.heard[log], kept)
            self.order = [one for one in self.order if log_of(one) != log or one.value.seq < kept]
        self.change = change
        self.roster = change.roster
        self.epoch = change.roster.epoch(self.index)
        self.history.pens[self.index, self.epoch][0].roster = change.roster
        self.read_again()

    def act(self, *, due: bool, free: Proposal | None = None) -> bool:
        """As ever, but who has gone on can write nothing of round zero any more."""
        self.note()
        return self.taken is None and super().act(due=due, free=free)

    def note(self) -> None:
        """Remember what is agreed."""
        assert self.taken is None or self.agreed in {None, self.taken}, self.history.told()
        self.taken = self.agreed or self.taken

    def waits_for_what_was_cut(self) -> bool:
        """Whether it relied on votes or inputs that are no more."""
        lost = self.taken is not None and self.agreed is None
        return lost or self.attempts.bound() == Bound(None)


class ChangingHistory(History):
    """One in which the admins sign one update."""

    members: list[MemberOfTwo]  # type: ignore[assignment]

    def __init__(self, count: int, seed: int, *, forking: int, operation: Operation) -> None:
        super().__init__(count, seed, forking=forking)
        self.hears = self.random.choice((0.5, 0.6))
        self.like = self.random.choice((0.6, 0.9))
        self.operation = operation
        self.change: Change | None = None

    def member(self, index: int, branch: int) -> MemberOfTwo:
        return MemberOfTwo(self, index, branch)

    def run(self, steps: int) -> None:
        """Let anything happen before the change, and after it."""
        before = self.random.randrange(steps)
        super().run(before)
        self.sign_update()
        for _ in range(steps - before):
            super().run(1)
            if self.random.random() < 0.03:
                self.take_up(self.random.choice(self.members))

    def heal(self, rounds: int) -> bool:
        for member in self.members:
            self.take_up(member)
        return super().heal(rounds)

    def check(self) -> None:
        super().check()
        for member in self.members:
            member.note()

    def take_up(self, member: MemberOfTwo) -> None:
        """Let one member learn of the update."""
        assert self.change is not None
        member.take_up(self.change)

    def lie(self) -> None:
        if self.change is not None and self.liars and self.random.random() < 0.3:
            self._sign_under(self.change)
        super().lie()

    def lies_for(self) -> tuple[int, Proposal]:
        """Mostly it helps to carry what may be cut away."""
        if self.random.random() < 0.7:
            return 1, self.values[0]
        return super().lies_for()

    def sign_update(self) -> None:
        """Change the roster; one member knows at once."""
        if self.operation is Operation.ADDITION:
            self._add()
        else:
            self._end_term(self.random.choice(self._targets()))
        self.take_up(self.random.choice(self.members))

    def _targets(self) -> list[int]:
        """Members that may be removed or rotated, and leave no more liars than are tolerated."""
        count = len(self.federation.authors)
        rotates = self.operation is Operation.ROTATION
        if rotates or tolerated(count - 1) >= len(self.liars):
            return [*range(count), *self.liars * 2]
        return self.liars

    def _add(self) -> None:
        before = self.federation.roster
        new = replace(before.members[0], index=before.n, name="new")
        term = Term(ledger_key=bytes(32), since=1)
        roster = replace(
            before, version=1, versions=(0, 1),
            members=(*before.members, new), terms=(*before.terms, (term,)),
        )  # fmt: skip
        self.change = Change(roster)
        self.begin(Author(roster, new.index, 1), forks=False)
        if tolerated(roster.n) > len(self.liars) and self.random.random() < 0.5:
            self.liars.append(new.index)
        else:
            member = self.member(new.index, self.random.randrange(2))
            self.members.append(member)
            # It has no roster but this one.
            member.take_up(self.change)
        self.values += self.values_of(quorum(roster.n))

    def _end_term(self, target: int) -> None:
        before = self.federation.roster
        rotates = self.operation is Operation.ROTATION
        log = target, 0
        if target in self.liars:
            witness = self.random.choice(self.members)
            if self.random.random() < 0.7:
                witness = min(self.members, key=lambda one: one.heard[log])
            kept, branch = witness.heard[log], witness.branch
        else:
            kept, branch = len(self.records(log, 0)), 0
        head = self.records(log, branch)[kept - 1].id if kept else NO_ID
        cut = Cut(author=target, epoch=0, kept=kept, head_id=head)
        ended = replace(before.terms[target][0], until=1, cut=cut)
        goes_on = (Term(ledger_key=bytes(32), since=1),) if rotates else ()
        terms = (*before.terms[:target], (ended, *goes_on), *before.terms[target + 1 :])
        roster = replace(before, version=1, versions=(0, 1), terms=terms)
        self.change = Change(roster, cut, branch)
        if rotates:
            self._rotate(target, roster)
        else:
            self.members = [one for one in self.members if one.index != target]
            self.liars = [one for one in self.liars if one != target]
        least = quorum(roster.n)
        self.values += self.values_of(least)

    def _rotate(self, target: int, roster: Roster) -> None:
        is_liar = target in self.liars
        forks = is_liar and len(self.pens[target, 0]) > 1 and self.random.random() < 0.5
        self.begin(Author(roster, target, 1, epoch=1), forks=forks)
        for member in self.members:
            if member.index == target:
                self.take_up(member)
                while member.hear((target, 1)):
                    pass

    def _sign_under(self, change: Change) -> None:
        liar = self.random.choice(self.liars)
        for (author, epoch), pens in self.pens.items():
            if author == liar and not change.is_of((author, epoch)):
                self.random.choice(pens).roster = change.roster
