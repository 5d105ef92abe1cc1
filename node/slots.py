"""How many chunks are under way to this node at once, over all payloads. Room: node. Spec: docs/wire.md §4.2.

Each takes memory when it comes. One that does not come takes none, so its slot is somebody else's after a
while: a peer that is silent stops nobody's downloads but those that only it can serve.
"""

from dataclasses import dataclass, field
from typing import Final, final

import trio

SLOTS_MAX: Final = 12
"""Chunks under way at once: each takes a few MiB of memory when it comes."""


@dataclass(eq=False, slots=True)
class Slot:
    """A place for one chunk."""

    peer: int
    patience_s: float
    until_s: float = float("inf")
    """From then on it does not count."""
    taken: trio.Event = field(default_factory=trio.Event)


@final
class Slots:
    """Slots, given in the order in which they were asked for, and only so many to one peer."""

    def __init__(self, *, each_max: int, most: int = SLOTS_MAX) -> None:
        """each_max: slots of one peer."""
        self._each_max = each_max
        self._most = most
        self._held: list[Slot] = []
        self._waiting: list[Slot] = []

    async def take(self, peer: int, *, patience_s: float) -> Slot:
        """Wait for a slot for a chunk of ``peer``; it counts until it is given back, or for ``patience_s``."""
        slot = Slot(peer, patience_s)
        self._waiting.append(slot)
        try:
            while not slot.taken.is_set():
                with trio.move_on_at(self._admit(trio.current_time())):
                    await slot.taken.wait()
        except BaseException:
            self.give_back(slot)
            raise
        return slot

    def give_back(self, slot: Slot) -> None:
        """The chunk is here, or will not come."""
        for slots in (self._held, self._waiting):
            if slot in slots:
                slots.remove(slot)
        self._admit(trio.current_time())

    def _admit(self, now_s: float) -> float:
        """Give what is free to those who wait; return when the next slot ceases to count."""
        for slot in tuple(self._waiting):
            counted = [one.peer for one in self._held if one.until_s > now_s]
            if len(counted) >= self._most:
                break
            if counted.count(slot.peer) < self._each_max:
                self._waiting.remove(slot)
                self._held.append(slot)
                slot.until_s = now_s + slot.patience_s
                slot.taken.set()
        return min((one.until_s for one in self._held if one.until_s > now_s), default=float("inf"))


def each_max(tolerated: int) -> int:
    """Slots of one peer where up to ``tolerated`` lie: five of them leave some; of more, patience frees them."""
    return max(2, SLOTS_MAX // (tolerated + 2))
