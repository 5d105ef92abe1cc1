"""The round machine of one node. Knows no clock, no socket, no tensor. Spec: docs/wire.md §5.

Its state is a fold over the ledger, the payloads that are held, and the time. So a crash is a restart:
a machine that is fed the same records stands where the dead one stood. Events go in, and out comes the
whole set of work that is wanted now (`effects.py`). Where it stands is `position.py`; what each phase
looks at and wants is a function of `steps/`; where an event leads is the table in `phases.py`.
"""

from dataclasses import dataclass
from typing import final

from ledger.record import Contribution, Record, Verified
from swarm.protocol.book import Agreed, Offer, RoundBook
from swarm.protocol.candidates import MOMENTS_ROUND
from swarm.protocol.choice import Inputs
from swarm.protocol.effects import Effect
from swarm.protocol.phases import TRANSITIONS, Event, Phase
from swarm.protocol.position import Place, Position
from swarm.protocol.steps import collecting, step, training

__all__ = ["MOMENTS_ROUND", "TRANSITIONS", "Event", "Phase", "Place", "RoundMachine", "Wanted"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Everything a node wants done now, most urgent first; ``wake_s``: when to ask again."""

    effects: tuple[Effect, ...]
    wake_s: float | None


@final
class RoundMachine:
    """One node's rounds, from joining to leaving."""

    def __init__(self, place: Place, book: RoundBook, *, now_s: float) -> None:
        self.book = book
        self.position = Position(place, book, now_s=now_s)
        """Where it stands: for reading."""
        self._news: list[tuple[int, int]] = []
        """(author, round) of contributions that came since the last look"""

    # What happened

    def learn(self, record: Verified[Record]) -> None:
        """A record is on the ledger (stored, so it may be acted upon)."""
        self.book.learn(record)
        if isinstance(record.value.body, Contribution):
            self._news.append((record.value.author, record.value.round))

    def hold(self, digest: bytes, *, codec: int, bytes_count: int) -> None:
        """A payload is stored and checked."""
        self.position.held[digest] = (codec, bytes_count)
        self.position.candidates.holdings_changed()
        for author in self.book.offerers(digest):
            self.position.attendance.served(author)

    def release(self, digest: bytes) -> None:
        """A payload is not stored any more."""
        self.position.held.pop(digest, None)
        self.position.candidates.holdings_changed()

    def stalled(self, digests: frozenset[bytes]) -> bool:
        """Take note of which payloads nobody serves now; tell whether that is news (`stalls.py`)."""
        before, self.position.stalled = self.position.stalled, digests
        return before != digests

    def synced(self, peer: int) -> None:
        """A comparison of heads with ``peer`` has ended: what it had, I have."""
        self.position.synced.add(peer)

    def advance(self, *, now_s: float) -> Wanted:
        """Move as far as the evidence and the time allow; return all work that is wanted now."""
        at = self.position
        self._measure(now_s)
        while True:
            at.wake_s = None
            event, effects = step(at, now_s)
            if event is None:
                return Wanted(effects, at.wake_s)
            self._enter(TRANSITIONS[at.phase, event], now_s)

    def _enter(self, phase: Phase, now_s: float) -> None:
        at = self.position
        if phase is Phase.AGREE and at.phase is Phase.COLLECT:
            at.attempt = 0
        at.phase = phase
        at.entered_s = now_s
        if phase is Phase.TRAIN:
            training.begin(at, now_s)

    def _measure(self, now_s: float) -> None:
        """Learn everybody's pace from what has come, also from what came too late to be of use."""
        at = self.position
        news, self._news = self._news, []
        if at.phase is Phase.JOIN:
            return  # what is replayed says nothing about anybody's pace
        window = at.candidates.window(at.round)
        for author, round_ in news:
            if author != at.own and round_ <= at.round:
                at.attendance.heard(author, round_=at.round)
                if at.near is not None:
                    at.near.heard(author, now_s=now_s)
                offer = self.book.offers(round_).get(author)
                if offer is not None and round_ not in window:
                    at.attendance.measure(offer, now_s=now_s)
        near = self.near
        for round_ in window:
            offers = self.book.offers(round_)
            for author in offers if near is None else near.intersection(offers):
                if author != at.own and at.has(offers[author]):
                    at.attendance.measure(offers[author], now_s=now_s)

    # Where it stands

    @property
    def phase(self) -> Phase:
        """What this node does now."""
        return self.position.phase

    @property
    def round(self) -> int:
        """The round that it does it in."""
        return self.position.round

    @property
    def model(self) -> bytes:
        """Digest of the newest model that this node stands on."""
        return self.position.model

    @property
    def released(self) -> Agreed | None:
        """What is handed out: the newest agreed model, or with patience the best by validation loss."""
        return self.position.stopping.released()

    @property
    def initial(self) -> bytes:
        """Digest of the charter's initial model."""
        return self.position.place.initial

    @property
    def grace_s(self) -> float:
        """Patience with the member whose turn it is in this round: the charter's grace, or more."""
        return self.position.patience.grace_s(self.round)

    @property
    def members_min(self) -> int:
        """Fewest contributions that close this round."""
        near = self.position.mixes()
        if near is not None:
            return near.inputs_min(self.round)
        return self.position.choice.members_min(self.round)

    @property
    def near(self) -> frozenset[int] | None:
        """Whom this node averages with in this round; None where a quorum agrees."""
        near = self.position.mixes()
        return None if near is None else near.of(self.round)

    def mixing_micro(self, round_: int) -> dict[int, int]:
        """What the graph gives this node and each neighbour; nothing where all average with all."""
        near = self.position.near
        return near.mixing_micro(round_) if near else {}

    def has(self, offer: Offer) -> bool:
        """Whether an offer's payload is stored here and is what its round merges."""
        return self.position.has(offer)

    def active(self) -> frozenset[int]:
        """Members that take part in this round."""
        return self.position.active()

    def moments(self) -> bytes | None:
        """Digest of the agreed moments, once round zero is agreed."""
        return self.position.moments()

    def usable(self) -> Inputs:
        """Contributions that could be inputs of this round, late ones included."""
        return self.position.candidates.usable(self.round)

    def stray(self) -> Inputs:
        """Contributions to this round that start from a model on which nobody may merge."""
        return self.position.candidates.stray(self.round)

    def missing_required(self) -> tuple[str, ...]:
        """Members without whom the charter lets this round not close, and of whom nothing is held."""
        return self.position.missing_required()

    def awaited(self, now_s: float) -> frozenset[int]:
        """Whose contribution to this round is still waited for."""
        return collecting.awaited(self.position, now_s)

    def offer_round(self, round_: int) -> int:
        """Say in which round to offer what was trained in ``round_``: where the others are by now."""
        return training.offer_round(self.position, round_)
