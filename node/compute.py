"""Where heavy work runs: off the network's thread in a hospital, inline in the simulator.

Under virtual time a task that waits for a thread looks idle and the clock would run away, so the
simulator runs everything inline and charges virtual seconds for it.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar, TypeVarTuple, final

import trio

T = TypeVar("T")
Args = TypeVarTuple("Args")


class Compute(Protocol):
    """Runs one function at a time, in the order of the calls."""

    async def run(self, function: "Callable[[*Args], T]", *args: *Args) -> T:
        """Call ``function(*args)`` and return its result; its exceptions pass through."""
        ...


@final
class ThreadCompute:
    """One worker thread at a time. Cancelling the caller waits for the function to end: no half state."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(1)

    async def run(self, function: "Callable[[*Args], T]", *args: *Args) -> T:
        """Call ``function`` in a worker thread."""
        return await trio.to_thread.run_sync(function, *args, limiter=self._limiter)


@final
class InlineCompute:
    """The caller's own thread; each call lasts ``cost_s`` of (virtual) time."""

    def __init__(self, cost_s: float = 0.0) -> None:
        self._cost_s = cost_s
        self._lock = trio.Lock()

    async def run(self, function: "Callable[[*Args], T]", *args: *Args) -> T:
        """Call ``function`` here and now, then let its cost pass."""
        async with self._lock:
            result = function(*args)
            await trio.sleep(self._cost_s)
            return result
