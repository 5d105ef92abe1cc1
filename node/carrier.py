"""Carrying sealed requests for members that cannot reach each other. Spec: docs/wire.md §9.

Room: node. Law: one hop, between members alone, whole boxes in bounded number and at a bounded pace; a
carrier can read nothing of them and keeps nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeVar, final

import trio

from ledger.errors import PeerError, UnavailableError
from node.limits import ByteMeter
from node.network import FORWARD_PROTOCOL, REQUEST_BYTES_MAX, SERVING_MAX, Network
from node.sealed import label_of

PAIR_MAX: Final = 4
"""Boxes under way from one member to another at once."""
TARGET_MAX: Final = SERVING_MAX // 2 - 2
"""Boxes under way to one member: a network asks a peer SERVING_MAX / 2 things at once, and our own
requests shall not wait behind those of others."""
CARRY_S: Final = 60.0
"""How long a target may take to answer: a part of a payload over a slow line (node/pull.py)."""
BURST_S: Final = 4.0
"""Seconds of the allowed pace that may pass at once."""
WAIT_S_MAX: Final = 10.0
"""A box that would have to wait longer for its turn is sent away."""

Key = TypeVar("Key")


@final
class Carrier:
    """What one member does for others. bytes_per_s: for each pair; 0 carries nothing."""

    def __init__(self, network: Network, *, own: int, bytes_per_s: float) -> None:
        self._network = network
        self._own = own
        self._bytes_per_s = bytes_per_s
        self._meters: defaultdict[tuple[int, int], ByteMeter] = defaultdict(
            lambda: ByteMeter(bytes_per_s=bytes_per_s, burst=bytes_per_s * BURST_S)
        )
        self._pairs: Counter[tuple[int, int]] = Counter()
        self._targets: Counter[int] = Counter()
        self.carried_bytes = 0

    @property
    def works(self) -> bool:
        """Whether this member carries at all."""
        return self._bytes_per_s > 0

    async def carry(self, peer: int, box: bytes) -> bytes:
        """Bring a peer's box to its target and return the target's answer, unread.

        1. We carry. 2. The box says that it comes from whom it came from: no second hop.
        3. The target is another member that is connected. 4. The pair has few enough boxes here, and
        5. keeps its pace. 6. Few enough are under way to the target, not counting those that wait for
        their pair's turn. Raises UnavailableError, PeerError.
        """
        if not self.works:
            raise PeerError("this member carries nothing for others")
        label = label_of(box)
        if label.origin != peer or label.target in (peer, self._own):
            raise PeerError("a box is carried once, from its sender to another member")
        if label.target not in self._network.connected():
            raise UnavailableError("that member is not connected here")
        pair = peer, label.target
        with _counted(self._pairs, pair, most=PAIR_MAX):
            wait_s = self._meters[pair].wait_s(now_s=trio.current_time())
            if wait_s > WAIT_S_MAX:
                raise UnavailableError("this pair has had its share; ask again later")
            await trio.sleep(wait_s)
            with _counted(self._targets, label.target, most=TARGET_MAX):
                return await self._carry(self._meters[pair], label.target, box)

    async def _carry(self, meter: ByteMeter, target: int, box: bytes) -> bytes:
        self._count(meter, len(box))
        reply = await self._network.request(
            target,
            FORWARD_PROTOCOL,
            box,
            reply_bytes_max=REQUEST_BYTES_MAX,
            timeout_s=CARRY_S,
        )
        self._count(meter, len(reply))
        return reply

    def _count(self, meter: ByteMeter, count: int) -> None:
        meter.charge(count, now_s=trio.current_time())
        self.carried_bytes += count


@contextmanager
def _counted(counts: Counter[Key], key: Key, *, most: int) -> Iterator[None]:
    """Count a box as long as it is here. Raises UnavailableError if it is one too many."""
    if counts[key] >= most:
        raise UnavailableError("too many boxes to that member at once")
    counts[key] += 1
    try:
        yield
    finally:
        counts[key] -= 1
