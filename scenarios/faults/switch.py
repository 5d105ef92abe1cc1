"""A switch between hospitals whose cables can be slow, lossy or cut, each direction by itself. Sans-IO.

Room: scenarios. Ethernet frames go in with the time, and come out when they are due. What `tc netem` would
do, without needing it in the kernel; the TCP of both ends is the kernel's own. One seed, one loss.
"""

import heapq
from dataclasses import dataclass
from random import Random
from typing import Final, final

MAC_PREFIX: Final = bytes.fromhex("025357000000")[:4]
"""Locally administered; the last two bytes are the port."""
BROADCAST_BIT: Final = 1
QUEUE_S_MAX: Final = 2.0
"""A frame that would wait longer for its turn on a slow cable is dropped, as a full queue does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cable:
    """One direction between two ports."""

    delay_s: float = 0.0
    loss: float = 0.0
    """Share of the frames that vanish."""
    bytes_per_s: float = 0.0
    """0: as fast as it goes."""
    is_cut: bool = False


PLUGGED: Final = Cable()
CUT: Final = Cable(is_cut=True)


def mac_of(port: int) -> bytes:
    """Address of the machine on ``port``, 6 bytes."""
    return MAC_PREFIX + port.to_bytes(2, "big")


@final
class Switch:
    """Forwards frames among ``ports`` along their cables."""

    def __init__(self, ports: int, *, seed: int) -> None:
        self._ports = ports
        self._random = Random(seed)  # noqa: S311 - which frame is lost guards nothing
        self._cables: dict[tuple[int, int], Cable] = {}
        self._free_s: dict[tuple[int, int], float] = {}
        self._waiting: list[tuple[float, int, int, bytes]] = []
        self._count = 0

    def plug(self, source: int, target: int, cable: Cable) -> None:
        """Replace the cable from ``source`` to ``target``; frames on their way still arrive."""
        self._cables[source, target] = cable
        self._free_s.pop((source, target), None)

    def receive(self, port: int, frame: bytes, *, now_s: float) -> None:
        """Take a frame that the machine on ``port`` sent."""
        if len(frame) < 14:
            return
        if frame[0] & BROADCAST_BIT:
            targets = [other for other in range(self._ports) if other != port]
        elif frame[:4] == MAC_PREFIX:
            targets = [int.from_bytes(frame[4:6], "big")]
        else:
            return
        for target in targets:
            if target < self._ports and target != port:
                self._send(port, target, frame, now_s)

    def _send(self, source: int, target: int, frame: bytes, now_s: float) -> None:
        cable = self._cables.get((source, target), PLUGGED)
        if cable.is_cut or (cable.loss and self._random.random() < cable.loss):
            return
        leaves_s = now_s
        if cable.bytes_per_s:
            starts_s = max(now_s, self._free_s.get((source, target), 0.0))
            if starts_s - now_s > QUEUE_S_MAX:
                return
            leaves_s = starts_s + len(frame) / cable.bytes_per_s
            self._free_s[source, target] = leaves_s
        # The count keeps frames of one moment in order.
        self._count += 1
        heapq.heappush(self._waiting, (leaves_s + cable.delay_s, self._count, target, frame))

    def due(self, *, now_s: float) -> list[tuple[int, bytes]]:
        """Take out what arrives by now: (port, frame), in order."""
        arrived = []
        while self._waiting and self._waiting[0][0] <= now_s:
            _, _, target, frame = heapq.heappop(self._waiting)
            arrived.append((target, frame))
        return arrived

    def next_due_s(self) -> float | None:
        """When to ask again; None while nothing is on its way."""
        return self._waiting[0][0] if self._waiting else None
