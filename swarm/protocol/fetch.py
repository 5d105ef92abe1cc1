"""One payload on its way in from several sources: who is asked for which chunk, and when twice.

Sans-IO: knows no clock, no socket, no file; time and randomness are arguments. Rarest chunks first,
ties at random, so that members who fetch the same payload hold different parts of it and serve each
other. What is under way for long is asked of a second source too: the first answer counts.
Spec: docs/wire.md §4.2.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from random import Random
from typing import Final, final

from ledger.errors import PeerError
from swarm.protocol.payload import CHUNK_BYTES, Manifest

WINDOW_START: Final = 2
WINDOW_MAX: Final = 4
"""Chunks asked of one source at once. More hides a longer way; each costs a chunk of memory."""
QUICK_S: Final = 0.5
SLOW_S: Final = 3.0
STEAL_AFTER_S: Final = 2.0
"""A chunk that is under way for so long, and for twice the usual time, may be asked of somebody else."""


def pack_chunks(held: Collection[int], count: int) -> bytes:
    """Spell which of ``count`` chunks are held: one bit each, chunk 0 is the highest bit of byte 0."""
    bits = bytearray(-(-count // 8))
    for index in held:
        bits[index >> 3] |= 0x80 >> (index & 7)
    return bytes(bits)


def unpack_chunks(data: bytes, count: int) -> frozenset[int]:
    """Undo ``pack_chunks``. Raises PeerError unless there is one bit a chunk and nothing besides."""
    if len(data) != -(-count // 8):
        raise PeerError(f"{len(data)} bytes do not say which of {count} chunks are held")
    held = frozenset(i for i in range(len(data) * 8) if data[i >> 3] & (0x80 >> (i & 7)))
    if held and max(held) >= count:
        raise PeerError(f"a chunk beyond the last of {count} is said to be held")
    return held


@final
class Window:
    """How many chunks one source is asked for at once: more while it is quick, fewer when it is slow."""

    def __init__(self) -> None:
        self.size = WINDOW_START
        self.usual_s = QUICK_S

    def took(self, seconds: float) -> None:
        """Take a chunk's time into account."""
        self.usual_s += 0.25 * (seconds - self.usual_s)
        if seconds <= QUICK_S:
            self.size = min(self.size + 1, WINDOW_MAX)
        elif seconds >= SLOW_S:
            self.size = max(self.size - 1, 1)

    def failed(self) -> None:
        """Begin again with one: the source is silent, or has too much to do."""
        self.size = 1


@final
class Download:
    """Which chunks are held, which are under way from whom, and who has which."""

    def __init__(self, manifest: Manifest, held: Iterable[int], *, random: Random) -> None:
        self.manifest = manifest
        self._random = random
        self._missing = set(range(len(manifest.chunks))).difference(held)
        self._holders: dict[int, frozenset[int] | None] = {}
        self._asked: dict[int, dict[int, float]] = {}
        """chunk → {peer: since when it is asked for it}"""

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing."""
        return not self._missing

    @property
    def missing_count(self) -> int:
        """Chunks still to come."""
        return len(self._missing)

    @property
    def bytes_held(self) -> int:
        """Checked bytes so far."""
        missing = len(self._missing) * CHUNK_BYTES
        count = len(self.manifest.chunks)
        if count - 1 in self._missing:
            missing -= count * CHUNK_BYTES - self.manifest.bytes_count
        return self.manifest.bytes_count - missing

    def holds(self, index: int) -> bool:
        """Whether a chunk is here, so that others may have it."""
        return 0 <= index < len(self.manifest.chunks) and index not in self._missing

    def held(self) -> list[int]:
        """Chunks that are here."""
        return [i for i in range(len(self.manifest.chunks)) if i not in self._missing]

    def announce(self, peer: int, chunks: frozenset[int] | None) -> None:
        """Remember what a source says that it holds; None: presumably all."""
        self._holders[peer] = chunks

    def leave(self, peer: int) -> None:
        """Forget a source; what it was asked for is free again."""
        self._holders.pop(peer, None)
        for index in [i for i, peers in self._asked.items() if peer in peers]:
            self.put_back(peer, index)

    def can_come_from(self, peer: int) -> bool:
        """Whether a source may hold something that is missing, even if others are asked for it now."""
        has = self._holders.get(peer)
        return bool(self._missing if has is None else self._missing & has)

    def take(self, peer: int, *, now_s: float, usual_s: float = 0.0) -> int | None:
        """Choose a chunk to ask ``peer`` for; None when there is none for it now.

        usual_s: what this source needs for a chunk; what another one has had for longer than twice
        that, and for STEAL_AFTER_S, may be asked of this one too.
        """
        has = self._holders.get(peer)
        able = self._missing if has is None else self._missing & has
        free = [index for index in able if index not in self._asked]
        if free:
            index = self._rarest(free)
        else:
            due_s = now_s - max(STEAL_AFTER_S, 2 * usual_s)
            late = [i for i in able if self._may_steal(i, peer, due_s)]
            if not late:
                return None
            index = min(late, key=lambda i: (min(self._asked[i].values()), i))
        self._asked.setdefault(index, {})[peer] = now_s
        return index

    def put_back(self, peer: int, index: int) -> None:
        """``peer`` will not bring this chunk."""
        peers = self._asked.get(index, {})
        peers.pop(peer, None)
        if not peers:
            self._asked.pop(index, None)

    def received(self, index: int) -> tuple[int, ...]:
        """A chunk is here and checked. Returns everybody who was asked for it."""
        self._missing.discard(index)
        return tuple(self._asked.pop(index, ()))

    def _may_steal(self, index: int, peer: int, due_s: float) -> bool:
        asked = self._asked[index]
        return len(asked) == 1 and peer not in asked and min(asked.values()) <= due_s

    def _rarest(self, free: list[int]) -> int:
        partial = [has for has in self._holders.values() if has is not None]
        if partial:
            known = Counter(index for has in partial for index in has)
            fewest = min(known[index] for index in free)
            free = [index for index in free if known[index] == fewest]
        return free[self._random.randrange(len(free))]
