"""Removes payloads that are not needed any more, after each round and when room runs out. Room: node.

What may go says swarm/protocol/retention.py; what is being fetched or checked stays in any case.
"""

from collections.abc import Callable, Iterable
from typing import final

import trio

from node.blobs import BlobStore
from node.world import World
from swarm.protocol.retention import Keep, needless, unnamed
from swarm.protocol.round import RoundMachine


@final
class Janitor:
    """Keeps one node's payloads within what they are needed for."""

    def __init__(
        self,
        *,
        world: World,
        blobs: BlobStore,
        machine: RoundMachine,
        keep: Keep,
        own: int,
        pinned: frozenset[bytes],
        in_use: Callable[[], frozenset[bytes]],
    ) -> None:
        """Make one for a node.

        own: this node's index. pinned: digests that always stay. in_use: digests that must stay
        because somebody works with their files now.
        """
        self._world = world
        self._blobs = blobs
        self._machine = machine
        self._keep = keep
        self._own = own
        self._pinned = pinned
        self._in_use = in_use
        self._wanted = trio.Event()

    def start(self) -> None:
        """Remove what a crash left behind, before anything of it counts as held. Raises StoreError."""
        if self._keep.rounds is not None:
            book = self._machine.book
            self._blobs.remove(unnamed(book, self._blobs.stored()) - self._pinned)
            self._blobs.remove_incoming(unnamed(book, self._blobs.incoming()))

    def soon(self) -> None:
        """A round has ended, or begun: look what is not needed any more."""
        self._wanted.set()

    async def run(self) -> None:
        """Tidy whenever it is wanted, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            await self.tidy()

    async def tidy(self) -> None:
        """Remove what is not needed any more. Raises StoreError."""
        if self._keep.rounds is None:
            return
        released = self._machine.released
        staying = {
            self._machine.model,
            released.proposal.result if released else self._machine.model,
        }
        whole = self._needless(self._blobs.stored()) - self._pinned - staying
        stored, incoming = self._blobs.stored(), self._blobs.incoming()
        parts = self._needless(incoming) | (incoming & stored.keys())
        in_use = self._in_use()
        await self._remove(sorted(whole - in_use), sorted(parts - in_use))

    def _needless(self, digests: Iterable[bytes]) -> frozenset[bytes]:
        machine = self._machine
        return needless(
            machine.book, self._keep, digests, own=self._own, standing=machine.round
        )  # fmt: skip

    async def _remove(self, whole: list[bytes], parts: list[bytes]) -> None:
        if not (whole or parts):
            return
        for digest in whole:
            self._machine.release(digest)
        # In one turn of the disk: in a second one a part might be in use by then.
        freed = await self._world.disk.run(
            lambda: self._blobs.remove(whole) + self._blobs.remove_incoming(parts)
        )
        count = len(whole) + len(parts)
        self._world.log.info("payloads_removed", count=count, mb=round(freed / 1e6, 1))
