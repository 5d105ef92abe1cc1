"""How long computing takes in a simulation: training apart from the rest, and slow hospitals. Room: scenarios."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, TypeVar, TypeVarTuple, final

import trio

from ledger.store import Store
from node.blobs import BlobStore
from node.compute import Compute
from node.network import EventLog, Network
from node.service import Service
from scenarios.simulation.swarm import Calm
from scenarios.spec import Pace

T = TypeVar("T")
Args = TypeVarTuple("Args")
TRAIN: Final = "train"


@final
class PacedCompute:
    """The caller's own thread; training and other calls last different virtual times."""

    def __init__(self, pace: Pace, factor: float) -> None:
        self._pace = pace
        self._factor = factor
        self._lock = trio.Lock()

    async def run(self, function: "Callable[[*Args], T]", *args: *Args) -> T:
        """Call ``function`` here and now, then let its cost pass."""
        is_training = getattr(function, "__name__", "") == TRAIN
        cost_s = self._pace.train_s if is_training else self._pace.other_s
        async with self._lock:
            result = function(*args)
            await trio.sleep(cost_s * self._factor)
            return result


@final
class Paced:
    """Surroundings in which nothing fails, and members have the pace that they have."""

    def __init__(self, calm: Calm, pace: Pace, members: int) -> None:
        self._calm = calm
        self._pace = pace
        self._members = members

    def files(self, index: int) -> AbstractContextManager[tuple[Store, BlobStore]]:
        """Calm."""
        return self._calm.files(index)

    def network(self, index: int) -> Network:
        """Calm."""
        return self._calm.network(index)

    def inbox(self, index: int) -> Path | None:
        """Calm."""
        return self._calm.inbox(index)

    def compute(self, index: int) -> Compute:
        """Where time passes."""
        return PacedCompute(self._pace, self._pace.factor(index, self._members))

    def disk(self, index: int) -> Compute:
        """Calm."""
        return self._calm.disk(index)

    def time_ms(self, index: int) -> int:
        """Calm."""
        return self._calm.time_ms(index)

    def log(self, index: int) -> EventLog:
        """Calm."""
        return self._calm.log(index)

    def started(self, index: int, service: Service) -> None:
        """Calm."""
        self._calm.started(index, service)

    def ended(self, index: int, error: BaseException) -> bool:
        """Calm."""
        return self._calm.ended(index, error)
