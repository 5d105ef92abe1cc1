"""Random histories of round zero: any delivery, any lie that a log can tell, on the code that decides.

Members are books and what attempts.py makes of them; who sees what and when is drawn. The first liar
signs two histories from the start and shows each to some; others vote as they like or are silent. At the end
everything is delivered, forks are proven, and liars go on.
"""

from collections import Counter
from collections.abc import Sequence
from random import Random

from ledger.record import Aggregation, Record, Rule, Verified
from ledger.roster import quorum, tolerated
from swarm.protocol.attempts import NEVER, Attempts
from swarm.protocol.ballots import attempt_of, is_confirmation, vote_ballot
from swarm.protocol.book import Proposal, RoundBook
from tests.federation import Author, Federation, input_of, result_of

FORK_SEQ = 2
"""OPEN and CONTRIBUTION are the same in both histories."""


class Member:
    """An honest one: what it has heard, and what it has signed."""

    def __init__(self, history: "History", index: int, branch: int) -> None:
        self.history = history
        self.index = index
        self.branch = branch
        self.book = RoundBook(history.federation.roster)
        self.heard: Counter[int] = Counter()
        self.order: list[Verified[Record]] = []
        self.attempts = Attempts(self.book, own=index)
        self.attempt = 0

    @property
    def agreed(self) -> Proposal | None:
        """What it takes for agreed."""
        agreed = self.book.agreed(0)
        return agreed.proposal if agreed else None

    def hear(self, author: int) -> bool:
        """Hear one more record of a log; tell whether there was one."""
        log = self.history.log(author, self.branch)
        if self.heard[author] >= len(log) or (
            author in self.history.proven(self) and author != self.index
        ):
            return False
        record = log[self.heard[author]]
        self.heard[author] += 1
        self.order.append(record)
        self.book.learn(record)
        return True

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
        if bound is None:
            return self._sign(vote_ballot(self.attempt), free or self.history.drawn())
        return bound.proposal is not None and self._sign(vote_ballot(self.attempt), bound.proposal)

    def most_voted(self) -> Proposal:
        """What had most votes in the last attempt that is known."""
        for number in self.book.turnouts():
            votes = self.book.ballot(0, number)
            if votes and not is_confirmation(number) and number < vote_ballot(self.attempt):
                return max(sorted(votes.values(), key=repr), key=list(votes.values()).count)
        return self.history.values[0]

    def again(self) -> RoundBook:
        """Return the book of a restart: everything in order, then the proofs."""
        book = RoundBook(self.history.federation.roster)
        for record in self.order:
            book.learn(record)
        for liar in self.history.proven(self):
            book.freeze(liar, 0, FORK_SEQ)
        return book

    def _sign(self, ballot: int, proposal: Proposal) -> bool:
        self.history.vote(self.history.federation[self.index], ballot, proposal)
        self.hear(self.index)
        self.attempt = max(self.attempt, attempt_of(ballot))
        return True


class History:
    """One federation, its liars, and what has been signed."""

    def __init__(self, count: int, seed: int, *, forking: int) -> None:
        self.random = Random(f"{count}/{forking}/{seed}")
        self.federation = Federation(count)
        for author in self.federation.authors:
            author.open()
        self._offers = [author.contribute(0) for author in self.federation.authors]
        self._liars = list(range(count - tolerated(count), count))
        self._forking = self._liars[:forking]
        self._silent = {one for one in self._liars[forking:] if self.random.random() < 0.5}
        self._other = {one: Author(self.federation.roster, one, 1) for one in self._forking}
        for one, twin in self._other.items():
            twin.records += self.federation[one].records
            twin.head = self.federation[one].head
        self._hears = self.random.choice((0.2, 0.35, 0.5))
        self._like = self.random.choice((0.0, 0.5, 0.8))
        self._proven: dict[int, set[int]] = {}
        least = quorum(count)
        sets = [self._offers[skip:][:least] for skip in range(min(3, count - least + 1))]
        self.values = [_proposal(inputs) for inputs in sets]
        self.members = [
            Member(self, index, self.random.randrange(2))
            for index in range(count - len(self._liars))
        ]
        for member in self.members:
            self._proven[member.index] = set()
            for author in range(count):
                for _ in range(2):
                    member.hear(author)

    def log(self, author: int, branch: int) -> Sequence[Verified[Record]]:
        """What is shown of a log to who sees this branch."""
        twin = self._other.get(author) if branch else None
        return (twin or self.federation[author]).records

    def proven(self, member: Member) -> set[int]:
        """Who is proven to lie, as this member knows."""
        return self._proven[member.index]

    def vote(self, pen: Author, ballot: int, proposal: Proposal) -> None:
        """Sign a vote."""
        pen.vote(0, proposal.inputs, ballot=ballot, result=proposal.result)

    def drawn(self) -> Proposal:
        """Return a value, in some histories mostly the same."""
        return (
            self.values[0] if self.random.random() < self._like else self.random.choice(self.values)
        )

    def run(self, steps: int) -> None:
        """Let anything happen."""
        for _ in range(steps):
            member = self.random.choice(self.members)
            kind = self.random.random()
            if kind < self._hears:
                member.hear(self.random.randrange(len(self.federation.authors)))
            elif kind < self._hears + 0.03:
                self._prove(member)
            elif kind < self._hears + 0.2:
                self._lie()
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
            self._lie()
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
        for author in range(len(self.federation.authors)):
            for branch in range(1 + (author in self._other)):
                votes = [
                    f"{one.value.body.parameters or (0,)}:{self.values.index(_proposal_of(one.value.body))}"
                    for one in self.log(author, branch)
                    if isinstance(one.value.body, Aggregation)
                ]
                lines.append(f"{author}{'ab'[branch]} {' '.join(votes)}")
        for one in self.members:
            value = None if one.agreed is None else self.values.index(one.agreed)
            lines.append(
                f"{one.index} sees {'ab'[one.branch]}, agreed {value}, attempt {one.attempt}, proven {self.proven(one)}"
            )
        return "\n".join(lines)

    def _deliver(self) -> None:
        for member in self.members:
            for author in range(len(self.federation.authors)):
                while member.hear(author):
                    pass

    def _prove(self, member: Member, *, all_of_them: bool = False) -> None:
        for liar in self._forking:
            both = min(len(self.log(liar, branch)) for branch in (0, 1)) > FORK_SEQ
            if both and (all_of_them or self.random.random() < 0.5):
                self._proven[member.index].add(liar)
                member.book.freeze(liar, 0, FORK_SEQ)

    def _lie(self) -> None:
        if not self._liars:
            return
        liar = self.random.choice(self._liars)
        if liar in self._silent:
            return
        pens = [self.federation[liar]] + ([self._other[liar]] if liar in self._other else [])
        pen = self.random.choice(pens)
        votes = [one.value.body for one in pen.records if isinstance(one.value.body, Aggregation)]
        newest = max(((one.parameters or (0,))[0] for one in votes), default=-1)
        self.vote(pen, newest + self.random.choice((1, 1, 1, 2, 3)), self.drawn())


def _proposal(offers: Sequence[Verified[Record]]) -> Proposal:
    rows = sorted(map(input_of, offers), key=lambda row: row.author)
    return Proposal(Rule.MOMENTS, tuple(rows), result_of(0, rows))


def _proposal_of(body: Aggregation) -> Proposal:
    return Proposal(body.rule, body.inputs, body.result_digest)
