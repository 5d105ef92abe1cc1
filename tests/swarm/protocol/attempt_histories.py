"""Random histories of round zero: any delivery, any lie that a log can tell, on the code that decides.

Members are books and what attempts.py makes of them; who sees what and when is drawn. The first liar
signs two histories from the start and shows each to some; others vote as they like or are silent. At the end
everything is delivered, forks are proven, and liars go on.
"""

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import TypeAlias

from ledger.record import Aggregation, Record, Rule, Verified
from ledger.roster import quorum, tolerated
from swarm.protocol.attempts import NEVER, Attempts
from swarm.protocol.ballots import attempt_of, is_confirmation, vote_ballot
from swarm.protocol.book import Proposal, RoundBook
from tests.federation import Author, Federation, digest_of, input_of, result_of

Log: TypeAlias = tuple[int, int]
"""An author and an epoch of its key."""

FORKS_AT = (1, 2)
"""Slots that a liar first signs twice: its CONTRIBUTION, or its first vote."""


class Member:
    """An honest one: what it has heard, and what it has signed."""

    def __init__(self, history: "History", index: int, branch: int) -> None:
        self.history = history
        self.index = index
        self.branch = branch
        self.roster = history.federation.roster
        self.epoch = 0
        self.heard: Counter[Log] = Counter()
        self.order: list[Verified[Record]] = []
        self.proven: set[Log] = set()
        self.attempt = 0
        self.read_again()

    @property
    def agreed(self) -> Proposal | None:
        """What it takes for agreed."""
        agreed = self.book.agreed(0)
        return agreed.proposal if agreed else None

    def hear(self, log: Log) -> bool:
        """Hear one more record of a log; tell whether there was one."""
        records = self.history.records(log, self.branch_of(log))
        heard = self.heard[log]
        if heard >= len(records) or not self.accepts(records[heard]):
            return False
        self.heard[log] += 1
        self.order.append(records[heard])
        self.book.learn(records[heard])
        return True

    def branch_of(self, log: Log) -> int:
        """Which of a log's histories it is shown."""
        return min(self.branch, len(self.history.pens[log]) - 1)

    def accepts(self, record: Verified[Record]) -> bool:
        """Nothing more of a log that is proven to fork, but of its own."""
        log = log_of(record)
        return log not in self.proven or log[0] == self.index

    def act(self, *, due: bool, free: Proposal | None = None) -> bool:
        """Do what SETTLE and AGREE would do; tell whether something was signed."""
        if self.agreed is not None:
            return False
        self.attempt = self.attempts.joined(self.attempt) or self.attempt
        if self.attempts.newest >= vote_ballot(self.attempt) and due:
            self.attempt = self.attempts.next(attempt_of(self.attempts.newest)) or self.attempt
        ready = self.attempts.to_confirm()
        if ready is not None and self.attempts.newest > NEVER:
            return self._sign(*ready)
        if self.attempts.newest >= vote_ballot(self.attempt):
            return False
        bound = self.attempts.bound()
        chosen = bound.proposal if bound else free or self.drawn()
        return chosen is not None and self._sign(vote_ballot(self.attempt), chosen)

    def drawn(self) -> Proposal | None:
        """Return a value that it may vote for, in some histories mostly the same."""
        able = [one for one in self.history.values if self.may_vote_for(one)]
        return self.history.drawn(able) if able else None

    def most_voted(self) -> Proposal | None:
        """What had most votes in the last attempt that is known; else all that it holds."""
        for number in self.book.turnouts():
            cast = self.book.ballot(0, number).values()
            votes = [one for one in cast if self.may_vote_for(one)]
            if votes and not is_confirmation(number) and number < vote_ballot(self.attempt):
                return max(sorted(votes, key=repr), key=votes.count)
        return max(filter(self.may_vote_for, self.history.values), key=_size, default=None)

    def may_vote_for(self, proposal: Proposal) -> bool:
        """Whether it knows the inputs, and after a split everybody can."""
        offers = [self.book.offer(row.id) for row in proposal.inputs]
        return all(
            one is not None and not (self.attempt and self.book.is_behind_fork(one))
            for one in offers
        )

    def can_check(self, log: Log) -> bool:
        """Whether its roster names the key of a log."""
        author, epoch = log
        return author < len(self.roster.terms) and epoch < len(self.roster.terms[author])

    def learn_fork(self, log: Log) -> None:
        """Hold the proof that a log has two histories."""
        self.proven.add(log)
        self.book.freeze(*log, self.history.fork_seq)

    def again(self) -> RoundBook:
        """Return the book of a restart: everything in order, then the proofs."""
        book = RoundBook(self.roster)
        for record in self.order:
            book.learn(record)
        for log in self.proven:
            book.freeze(*log, self.history.fork_seq)
        return book

    def read_again(self) -> None:
        """Begin anew with what has been heard."""
        self.book = self.again()
        self.attempts = Attempts(self.book, own=self.index)

    def _sign(self, ballot: int, proposal: Proposal) -> bool:
        log = self.index, self.epoch
        self.history.vote(self.history.pens[log][0], ballot, proposal)
        assert self.hear(log)
        self.attempt = max(self.attempt, attempt_of(ballot))
        return True


class History:
    """One federation, its liars, and what has been signed."""

    def __init__(self, count: int, seed: int, *, forking: int) -> None:
        self.random = Random(f"{count}/{forking}/{seed}")
        self.federation = Federation(count)
        self.fork_seq = self.random.choice(FORKS_AT)
        self.liars = list(range(count - tolerated(count), count))
        self._silent = {one for one in self.liars[forking:] if self.random.random() < 0.5}
        self.pens: dict[Log, list[Author]] = {}
        for author in self.federation.authors:
            self.begin(author, forks=author.index in self.liars[:forking])
        self.hears = self.random.choice((0.2, 0.35, 0.5))
        self.like = self.random.choice((0.0, 0.5, 0.8))
        self.variety = self.random.choice((2, 2, 8))
        self.values = self.values_of(quorum(count))
        self.members = [
            self.member(index, self.random.randrange(2)) for index in range(count - len(self.liars))
        ]
        knows = self.random.choice((1.0, 1.0, 0.7))
        for member in self.members:
            for log in self.pens:
                member.hear(log)
                if log[0] not in self.liars or self.random.random() < knows:
                    member.hear(log)

    def begin(self, author: Author, *, forks: bool) -> None:
        """Open a log and contribute, in two histories if it forks."""
        author.open()
        pens = self.pens[author.index, author.epoch] = [author]
        if forks and self.fork_seq == 1:
            pens.append(twin_of(author))
            pens[1].contribute(0, digest=digest_of("another update", author.index))
        author.contribute(0)
        if forks and self.fork_seq == 2:
            pens.append(twin_of(author))

    def values_of(self, least: int) -> list[Proposal]:
        """Return sets of so many contributions or more, of either branch: all, then with fewer liars."""
        found = []
        for branch in (0, 1):
            newest = {log[0]: self.records(log, branch)[1] for log in sorted(self.pens)}
            offers = [newest[author] for author in sorted(newest)]
            found += [offers, offers[-least:], offers[1:], offers[:least]]
        sets = [proposal_for(offers) for offers in found if len(offers) >= least]
        return list(dict.fromkeys(sets))

    def member(self, index: int, branch: int) -> Member:
        """Return an honest one."""
        return Member(self, index, branch)

    def records(self, log: Log, branch: int) -> Sequence[Verified[Record]]:
        """What is shown of a log to who sees this branch."""
        pens = self.pens[log]
        return pens[min(branch, len(pens) - 1)].records

    def vote(self, pen: Author, ballot: int, proposal: Proposal) -> None:
        """Sign a vote."""
        pen.vote(0, proposal.inputs, ballot=ballot, result=proposal.result)

    def drawn(self, able: Sequence[Proposal]) -> Proposal:
        """Return one of these, in some histories mostly the first."""
        return (
            able[0]
            if self.random.random() < self.like
            else self.random.choice(able[: self.variety])
        )

    def run(self, steps: int) -> None:
        """Let anything happen."""
        for _ in range(steps):
            member = self.random.choice(self.members)
            kind = self.random.random()
            if kind < self.hears:
                member.hear(self.random.choice(list(self.pens)))
            elif kind < self.hears + 0.03:
                self._prove(member)
            elif kind < self.hears + 0.2:
                self.lie()
            else:
                member.act(due=self.random.random() < 0.6)
            self.check()

    def heal(self, rounds: int) -> bool:
        """Deliver everything, again and again; tell whether all honest members agree in the end."""
        for _ in range(rounds):
            for member in self.members:
                self._prove(member, all_of_them=True)
            acted = True
            while acted:
                self._deliver()
                acted = sum(one.act(due=False, free=one.most_voted()) for one in self.members) > 0
                self.check()
            if all(one.agreed is not None for one in self.members):
                return True
            for member in self.members:
                member.act(due=True, free=member.most_voted())
            self.lie()
        return False

    def check(self) -> None:
        """Nobody honest takes anything else for agreed than another, or forgets it at a restart."""
        agreed = {one.agreed for one in self.members if one.agreed is not None}
        assert len(agreed) <= 1, self.told()

    def check_restarts(self) -> None:
        """A book that is read again says the same."""
        for member in self.members:
            again = member.again().agreed(0)
            assert (again.proposal if again else None) == member.agreed, self.told()

    def told(self) -> str:
        """Every vote, for whoever looks at a failure."""
        lines = []
        for (author, epoch), pens in self.pens.items():
            for branch, pen in zip("ab", pens, strict=False):
                votes = [
                    f"{body.parameters or (0,)}:{self._number_of(proposal_of(body))}"
                    for body in votes_of(pen)
                ]
                lines.append(f"{author}/{epoch}{branch} {' '.join(votes)}")
        for one in self.members:
            value = None if one.agreed is None else self._number_of(one.agreed)
            lines.append(
                f"{one.index} sees {'ab'[one.branch]}, roster {one.roster.version}, agreed {value}, "
                f"attempt {one.attempt}, proven {one.proven}, bound {one.attempts.bound()}"
            )
        return "\n".join(lines)

    def _number_of(self, proposal: Proposal) -> int:
        return self.values.index(proposal) if proposal in self.values else -1

    def _deliver(self) -> None:
        moved = True
        while moved:
            moved = sum(member.hear(log) for member in self.members for log in self.pens) > 0

    def _prove(self, member: Member, *, all_of_them: bool = False) -> None:
        for log, pens in self.pens.items():
            forks = len(pens) > 1 and min(len(one.records) for one in pens) > self.fork_seq
            news = forks and member.can_check(log) and log not in member.proven
            if news and (all_of_them or self.random.random() < 0.5):
                member.learn_fork(log)

    def lie(self) -> None:
        """Let a liar vote for anything in its next ballot, a later one, or one that is over."""
        if not self.liars:
            return
        liar = self.random.choice(self.liars)
        if liar in self._silent:
            return
        pens = [pen for (author, _), pens in self.pens.items() if author == liar for pen in pens]
        pen = self.random.choice(pens)
        newest = max((max(body.parameters, default=0) for body in votes_of(pen)), default=-1)
        step, value = self.lies_for()
        self.vote(pen, max(0, newest + step), value)

    def lies_for(self) -> tuple[int, Proposal]:
        """How far from its newest ballot it votes, and for what."""
        return self.random.choice((-1, 1, 1, 1, 2, 3)), self.drawn(self.values)


def twin_of(author: Author) -> Author:
    """Return another pen with the same key and the same records so far."""
    twin = Author(author.roster, author.index, 1, epoch=author.epoch)
    twin.records += author.records
    twin.head = author.head
    return twin


def log_of(record: Verified[Record]) -> Log:
    """Return the log that a record is in."""
    return record.value.author, record.value.epoch


def votes_of(pen: Author) -> list[Aggregation]:
    """What was voted for in one history of a log."""
    return [one.value.body for one in pen.records if isinstance(one.value.body, Aggregation)]


def proposal_for(offers: Sequence[Verified[Record]]) -> Proposal:
    """Return what a vote for these contributions claims."""
    rows = sorted(map(input_of, offers), key=lambda row: row.author)
    return Proposal(Rule.MOMENTS, tuple(rows), result_of(0, rows))


def proposal_of(body: Aggregation) -> Proposal:
    """Return what a vote claims."""
    return Proposal(body.rule, body.inputs, body.result_digest)


def _size(proposal: Proposal) -> int:
    return len(proposal.inputs)
