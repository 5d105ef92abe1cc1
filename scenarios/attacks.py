"""Free-riders: members that want the model and do not work for it, behind the node's Learner.

Room: scenarios. Law: an attack uses what a real member has: the models and payloads that its own node
fetched, and its own keys. What it hands to the node goes through the same rounds, network and ledger as
everybody's. Attacks on the protocol are in simulation/liars.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from swarm.learning.dataset import SiteData, Table
from swarm.learning.parameters import distance
from swarm.learning.payload import HEADER
from swarm.learning.trained import Trained

FIRST_NORM: Final = 1.0
"""Norm of noise while nothing is known of others' updates."""
PERIOD_ROUNDS: Final = 3
"""An intermittent rider works in two of so many rounds."""
MICRO: Final = 1_000_000

Vector = NDArray[np.float32]


class Attack(StrEnum):
    """How a member rides free."""

    ZERO = "zero"  # the model as it came
    NOISE = "noise"  # random numbers of the norm that others' updates have
    STALE = "stale"  # what moved the model last round, and a little noise
    COPY = "copy"  # another's update of this round, that leaked
    REPLAY = "replay"  # another's update of the round before
    INTERMITTENT = "intermittent"  # honest in two rounds of three, stale in the third
    FEW_RECORDS = "few-records"  # trains on a handful and claims them all
    RANDOM_LABELS = "random-labels"  # trains on labels that it drew
    LAZY = "lazy"  # takes one step


@dataclass(frozen=True, kw_only=True)
class Riding:
    """One rider. noise: share of the update's norm that is added. records: what it trains on."""

    attack: Attack
    noise: float = 0.0
    records: int = 0

    @property
    def name(self) -> str:
        """For tables: `few-records 5`, `stale 50 %`."""
        if self.records:
            return f"{self.attack} {self.records}"
        return f"{self.attack} {self.noise:.0%}" if self.noise else str(self.attack)


@dataclass
class Heard:
    """What a rider's node fetched: the model of the round before, and its round's payloads."""

    base: bytes = b""
    payloads: Mapping[bytes, bytes] = field(default_factory=dict)


@final
class Leak:
    """Updates of the current round that left a careless hospital's server before they should."""

    def __init__(self) -> None:
        self.payloads: dict[int, bytes] = {}
        """Round → payload."""


def spoil(data: SiteData, riding: Riding, random: np.random.Generator) -> SiteData:
    """Return the data that a rider trains on; its validation rows are its own."""
    train = data.train
    if not isinstance(train, Table):
        raise TypeError("riders spoil tables")
    if riding.attack is Attack.FEW_RECORDS:
        chosen = np.zeros(train.rows, dtype=np.bool_)
        chosen[random.permutation(train.rows)[: riding.records]] = True
        train = train.take(chosen)
    elif riding.attack is Attack.RANDOM_LABELS:
        classes = np.unique(train.labels).astype(np.int64)
        train = Table(columns=train.columns, labels=random.choice(classes, size=train.rows))
    return SiteData(train=train, validation=data.validation)


@final
class FreeRider:
    """A Learner that hands out something else than what it learned.

    inner: a real task, over spoiled data or with fewer steps where the attack is of that kind.
    samples: what it claims. random: the rider's own. leak: where another's update appears.
    """

    def __init__(
        self, inner: Any, riding: Riding, *, samples: int, random: np.random.Generator, leak: Leak
    ) -> None:
        self._inner = inner
        self._riding = riding
        self._random = random
        self._leak = leak
        self._before = Heard()
        self._now = Heard()
        self._honest: Trained | None = None
        self._sent = b""
        self.samples = samples

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def train(self, base: bytes, round: int, *rest: Any) -> Trained:  # noqa: A002 - the protocol's word
        """Ride: the same bytes for the same round, as a node that restarts must get."""
        self._now.base = base
        attack = self._riding.attack
        if attack in (Attack.FEW_RECORDS, Attack.RANDOM_LABELS, Attack.LAZY):
            trained: Trained = self._inner.train(base, round, *rest)
            return replace(trained, samples=self.samples)
        if attack is Attack.INTERMITTENT and (round % PERIOD_ROUNDS or not self._before.base):
            self._honest = self._inner.train(base, round, *rest)
            return self._honest
        if self._honest is None:  # the form of an honest answer, whatever is in it
            self._honest = self._inner.train(base, round, *rest)
        start = _values(base)
        update = (start + self._made(start, round)).astype(np.float32)
        norm = round_micro(distance(update, start))
        self._sent = _payload(base, update)
        return replace(self._honest, payload=self._sent, norm_micro=norm, samples=self.samples)

    def merge(self, inputs: Sequence[tuple[bytes, bytes, int]], *rest: Any) -> bytes:
        """Merge as everybody does, and keep what was fetched for it."""
        self._now.payloads = {digest: payload for digest, payload, _ in inputs}
        merged: bytes = self._inner.merge(inputs, *rest)
        self._before, self._now = self._now, Heard()
        return merged

    def _made(self, start: Vector, number: int) -> NDArray[np.float64]:
        """The update (d,) that it invents for a model; noise comes on top."""
        made: Mapping[Attack, Callable[[], NDArray[np.float64]]] = {
            Attack.ZERO: lambda: np.zeros(start.size),
            Attack.NOISE: lambda: self._noise(start.size, self._usual_norm()),
            Attack.STALE: lambda: self._movement(start),
            Attack.INTERMITTENT: lambda: self._movement(start),
            Attack.COPY: lambda: self._copied(start, number),
            Attack.REPLAY: lambda: self._replayed(start.size),
        }
        update = made[self._riding.attack]()
        if self._riding.noise:
            size = float(np.linalg.norm(update))
            update = update + self._noise(start.size, self._riding.noise * size)
        return update

    def _noise(self, count: int, norm: float) -> NDArray[np.float64]:
        drawn = self._random.normal(size=count)
        return drawn * (norm / float(np.linalg.norm(drawn)))

    def _usual_norm(self) -> float:
        if not self._before.payloads:
            return FIRST_NORM
        base = _values(self._before.base)
        sizes = [distance(_values(one), base) for one in self._before.payloads.values()]
        return float(np.median(sizes))

    def _movement(self, start: Vector) -> NDArray[np.float64]:
        if not self._before.base:
            return self._noise(start.size, FIRST_NORM)
        return start.astype(np.float64) - _values(self._before.base)

    def _replayed(self, count: int) -> NDArray[np.float64]:
        """Another's update of the round before: the first by order of digest."""
        others = {d: p for d, p in self._before.payloads.items() if p != self._sent}
        if not others:
            return self._noise(count, FIRST_NORM)
        chosen = others[min(others)]
        return _values(chosen).astype(np.float64) - _values(self._before.base)

    def _copied(self, start: Vector, number: int) -> NDArray[np.float64]:
        leaked = self._leak.payloads.get(number)
        if leaked is None:  # nothing has leaked (yet)
            return self._replayed(start.size)
        return _values(leaked).astype(np.float64) - start


@final
class Careless:
    """An honest learner whose updates leak to a rider before they should."""

    def __init__(self, inner: Any, leak: Leak) -> None:
        self._inner = inner
        self._leak = leak

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def train(self, base: bytes, round: int, *rest: Any) -> Trained:  # noqa: A002 - the protocol's word
        """Train, and let it out."""
        trained: Trained = self._inner.train(base, round, *rest)
        self._leak.payloads[round] = trained.payload
        return trained


def invented_scores(
    scores: Mapping[int, int], *, friends: frozenset[int], framed: int, size: int
) -> dict[int, int]:
    """What a colluding evaluator says of each member: friends are a blessing, one site is a curse.

    scores: the loss changes in millionths that it measured. size: how large its lies are.
    """
    return {
        member: size if member in friends else -size if member == framed else change
        for member, change in scores.items()
    }


def round_micro(value: float) -> int:
    """Millionths of a norm."""
    return round(value * MICRO)


def _values(payload: bytes) -> Vector:
    return np.frombuffer(payload, dtype="<f4", offset=HEADER.size)


def _payload(like: bytes, values: Vector) -> bytes:
    return like[: HEADER.size] + values.astype("<f4").tobytes()
