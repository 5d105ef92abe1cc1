"""Where one node is in its rounds, and what it stands on. Knows no clock. Spec: docs/wire.md §5.1.

Everything that the phases have in common: what is held, who is waited for how long, which round comes
next. `steps/` reads it and, in few places, moves it on; only `round.py` changes the phase.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias, final

from ledger.charter import AggregationPolicy, RoundPolicy, StoppingPolicy
from ledger.rules import codec_of_round
from ledger.topology import Topology
from swarm.protocol.attempts import Attempts
from swarm.protocol.attendance import Attendance
from swarm.protocol.book import Agreed, Offer, RoundBook
from swarm.protocol.candidates import MOMENTS_ROUND, Candidates
from swarm.protocol.choice import Choice, Inputs
from swarm.protocol.effects import Effect, Fetch
from swarm.protocol.neighbours import Neighbours
from swarm.protocol.patience import Patience
from swarm.protocol.phases import Event, Phase
from swarm.protocol.stopping import Stopping

Step: TypeAlias = tuple[Event | None, tuple[Effect, ...]]
"""Either an event that moves the machine on, or the work that is wanted in this phase."""

NEVER: Final = StoppingPolicy(patience=0, delta_min=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Who runs this machine, under which policy, and how long it stays for stragglers at the end."""

    own: int
    policy: RoundPolicy
    aggregation: AggregationPolicy
    has_moments: bool
    initial: bytes
    """Digest of the charter's initial model."""
    linger_s: float
    leaves: bool = False
    """Whether it says goodbye for good, in whichever round it is."""
    topology: Topology | None = None
    """Who averages with whom; None: everybody with everybody, by agreement."""
    stopping: StoppingPolicy = NEVER

    @property
    def first_round(self) -> int:
        """Round zero exists only where the charter standardises over the swarm."""
        return MOMENTS_ROUND if self.has_moments else MOMENTS_ROUND + 1


@final
class Position:
    """One node's place in its rounds."""

    def __init__(self, place: Place, book: RoundBook, *, now_s: float) -> None:
        self.place = place
        self.own = place.own
        self.policy = place.policy
        self.book = book
        self.near: Neighbours | None = None
        if place.topology is not None:
            self.near = Neighbours(place.topology, book, place.policy, own=place.own)
        self.candidates = Candidates(
            book,
            own=place.own,
            rounds=place.policy,
            aggregation=place.aggregation,
            initial=place.initial,
            has=self.has,
            near=self.near.of if self.near else None,
        )
        self.choice = Choice(book, self.candidates, place.policy, place.aggregation, own=place.own)
        self.attempts = Attempts(book, own=place.own)
        self.attendance = Attendance(book, place.policy, first_round=place.first_round)
        self.patience = Patience(book, place.policy)
        self.stopping = Stopping(book, place.stopping, rounds=place.policy.rounds)

        self.phase = Phase.JOIN
        self.round = place.first_round
        self.entered_s = now_s
        self.wake_s: float | None = None
        """the first moment that a step waits for"""
        self.held: dict[bytes, tuple[int, int]] = {}
        """digest → the codec and the length that it commits to"""
        self.stalled: frozenset[bytes] = frozenset()
        """what nobody serves now"""
        self.synced: set[int] = set()
        """who has told what it holds"""
        self.model = place.initial
        self.began = self.round
        """the round in which the training of now began"""
        self.base: bytes | None = None
        """what it starts from"""
        self.passed_over: set[bytes] = set()
        """bases that nobody has served for too long in this round"""
        self.base_is_own = False
        """the newest agreed model has not come in time"""
        self.is_outpaced = False
        """others went on while a result was on its way here"""
        self.has_chased = False
        """and the newest was fetched once instead"""
        self.attempt = 0
        """of round zero"""
        self.merging: Inputs = ()
        """what this node merges with its neighbours'"""

    # Time

    def passed(self, due_s: float, now_s: float) -> bool:
        """Whether a moment has come; if not, remember to wake up then."""
        if now_s >= due_s:
            return True
        self.wake_s = due_s if self.wake_s is None else min(self.wake_s, due_s)
        return False

    # What is here

    def has(self, offer: Offer) -> bool:
        """Whether an offer's payload is stored here and is what its round merges.

        A digest that is held under another codec or length does not count: it never passed the
        check as what it is offered as.
        """
        held = self.held.get(offer.digest)
        codec = codec_of_round(self.place.aggregation, offer.round)
        return held == (offer.codec, offer.bytes_count) and offer.codec == codec

    def moments(self) -> bytes | None:
        """Digest of the agreed moments, once round zero is agreed."""
        agreed = self.book.agreed(MOMENTS_ROUND)
        return agreed.proposal.result if self.place.has_moments and agreed else None

    def fetches(self, offers: Iterable[Offer]) -> tuple[Effect, ...]:
        """Fetch what is not here."""
        return tuple(Fetch(o.digest, (o.author,), o) for o in offers if not self.has(o))

    def voters(self, result: bytes) -> tuple[int, ...]:
        """Members that published ``result``, newest round first: they can serve it."""
        for round_ in range(self.round, -1, -1):
            votes = self.book.votes(round_)
            voters = [a for a, v in votes.items() if v.result == result and a != self.own]
            if voters:
                return tuple(sorted(voters))
        return ()

    def others(self, agreed: Agreed) -> tuple[int, ...]:
        """Who else voted for an agreed result."""
        return tuple(author for author in agreed.voters if author != self.own)

    # Who takes part

    def active(self) -> frozenset[int]:
        """Members that take part in this round."""
        return self.attendance.active(self.round)

    def mixes(self) -> Neighbours | None:
        """Whom this node averages with in this round; None where a quorum agrees."""
        return None if self.round == MOMENTS_ROUND else self.near

    def is_new(self) -> bool:
        """Whether the charter gives this node no model yet: it has not contributed to any."""
        first = self.policy.newcomers == "contribution_first"
        return first and self.book.last_offer_round(self.own) <= MOMENTS_ROUND

    def missing_required(self, *, besides: Iterable[Offer] = ()) -> tuple[str, ...]:
        """Members without whom the charter lets this round not close, and of whom nothing is held.

        besides: what is on its way and counts as held.
        """
        held = (*self.candidates.held(self.round), *besides)
        have = self.candidates.on_time(held, self.round).union(offer.author for offer in held)
        return self.choice.missing_required(have)

    # Where to go

    def is_overtaken(self) -> bool:
        """A later round is agreed: it becomes this node's."""
        latest = self.book.latest_agreed()
        if latest is None or latest.round <= self.round:
            return False
        self.round = latest.round
        return True

    def is_over(self) -> bool:
        """Training has ended with a round before this one: that becomes this node's."""
        last = self.stopping.last_round()
        if self.round <= last:
            return False
        self.round = last
        return True

    def next_after(self, round_: int) -> int:
        """The next round, or the one that enough others to believe it have reached."""
        ahead = min(self.book.round_ahead(self.own), self.stopping.last_round())
        if self.near is not None and ahead <= round_ + 1 + self.policy.staleness_max:
            return round_ + 1  # what it offers there still counts for the others
        return max(round_ + 1, ahead)
