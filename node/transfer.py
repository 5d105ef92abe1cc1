"""Payloads between this node and its peers: pulled by digest from whoever holds them, and served.

Chunks go from the network to the disk and from the disk to the network; no payload lies in memory.
Spec: docs/wire.md §4.2.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, final

import trio

from node.blobs import BlobStore
from node.compute import ThreadCompute
from node.partial import Partial
from node.payload_io import NoRoomError
from node.progress import Progress
from node.pull import Pull, Shared
from node.slots import Slots, each_max
from node.world import World
from swarm.protocol.book import RoundBook
from swarm.protocol.fetch import pack_chunks
from swarm.protocol.messages import (
    FetchRequest,
    FetchStatus,
    Part,
    decode_fetch_request,
    encode_fetch_reply,
)
from swarm.protocol.payload import OversizedError

NO_ROOM_WAIT_S: Final = 30.0
PROGRESS_LOG_S: Final = 10.0
"""How often the log tells of a transfer that lasts so long."""


async def _nothing_to_tidy() -> None:
    await trio.lowlevel.checkpoint()


@final
@dataclass(frozen=True, eq=False)
class Received:
    """A whole payload, checked against its digest, that waits to be accepted or refused."""

    digest: bytes
    codec: int
    bytes_count: int
    payload: bytes
    partial: Partial | None
    """None: it was stored already."""


@final
class Transfer:
    """One node's payloads on their way in and out."""

    def __init__(
        self,
        *,
        world: World,
        blobs: BlobStore,
        book: RoundBook,
        behind: Callable[[], None],
        own: int | None = None,
        withholds: Callable[[int, bytes], bool] = lambda _peer, _digest: False,
    ) -> None:
        """Hold nothing but what is stored.

        behind: called when a peer asks for what it may not have yet; perhaps we miss its record.
        own: this member's number. withholds: whether a member of little repute has to wait for a payload.
        """
        self.tidy: Callable[[], Awaitable[None]] = _nothing_to_tidy
        """Called when there is no room for a payload: removes what is not needed any more."""
        self.no_room = ""
        """Why payloads do not come in, while the disk is the reason."""
        self._world = world
        self._log = world.log
        self.blobs = blobs
        self._book = book
        self._own = own
        self._behind = behind
        self._withholds = withholds
        slots = Slots(each_max=each_max(book.roster.f))
        self._shared = Shared(world=world, blobs=blobs, slots=slots)
        self._pulls: dict[bytes, Pull] = {}
        self._members: dict[bytes, int | None] = {}
        self._turns: dict[bytes, trio.Lock] = {}

    # Serving

    async def on_request(self, peer: int, body: bytes) -> bytes:
        """Serve a payload's part, but nobody's contribution to one who has not contributed himself.

        Raises PeerError when it is asked for nonsense.
        """
        request = decode_fetch_request(body)
        if not self._book.may_fetch(peer, request.digest, server=self._own):
            self._behind()
            return encode_fetch_reply(FetchStatus.WITHHELD)
        if self._withholds(peer, request.digest):
            return encode_fetch_reply(FetchStatus.WITHHELD)
        part = self._at_hand(request) or await self._world.disk.run(self._part, request)
        if part is None:
            return encode_fetch_reply(FetchStatus.NOT_HELD)
        return encode_fetch_reply(FetchStatus.OK, part)

    def _at_hand(self, request: FetchRequest) -> bytes | bytearray | None:
        """Return a chunk that needs no turn of the disk. In the simulator everything takes its turn."""
        if request.part is not Part.CHUNK or not isinstance(self._world.disk, ThreadCompute):
            return None
        return self.blobs.chunk_at_hand(request.digest, request.index)

    def _part(self, request: FetchRequest) -> bytes | None:
        """Read a part of what is stored, or of what is coming in."""
        pull = self._pulls.get(request.digest)
        partial = pull.partial if pull else None
        manifest = self.blobs.manifest(request.digest)
        match request.part:
            case Part.CHUNK:
                stored = self.blobs.chunk(request.digest, request.index)
                return partial.chunk(request.index) if partial and stored is None else stored
            case Part.MANIFEST:
                manifest = manifest or (partial.manifest if partial else None)
                return manifest.to_bytes() if manifest else None
            case Part.HELD if manifest:
                return pack_chunks(range(len(manifest.chunks)), len(manifest.chunks))
            case Part.HELD if partial:
                return pack_chunks(list(partial.held), len(partial.manifest.chunks))
        return None

    # Fetching

    @asynccontextmanager
    async def fetch(
        self,
        digest: bytes,
        *,
        sources: Sequence[int],
        payload_bytes_max: int,
        member: int | None = None,
    ) -> AsyncIterator[Received]:
        """Pull a payload from whoever holds it. Ends only when it has come, and may take for ever.

        ``sources`` presumably hold it and are asked first. What was fetched before a crash is not
        fetched again. Inside the block the caller checks the payload, and either ``accept``s or
        ``refuse``s it; of a payload that is wanted twice the second waits. A source that serves a
        wrong byte is not asked again, unless nobody else is left.
        Raises OversizedError when the digest names more than ``payload_bytes_max`` bytes, StoreError.
        """
        async with self._turn(digest):
            stored = await self._world.disk.run(self._stored, digest)
            if stored is not None:
                if stored.bytes_count > payload_bytes_max:
                    raise OversizedError(f"payload of {stored.bytes_count} bytes is too large")
                yield stored
                return
            pull = Pull(self._shared, digest, sources=sources, payload_bytes_max=payload_bytes_max)
            self._members[digest], self._pulls[digest] = member, pull
            try:
                partial = await self._run(pull)
                view = await self._world.disk.run(partial.view)
                manifest = partial.manifest
                yield Received(digest, manifest.codec, manifest.bytes_count, view, partial)
            finally:
                del self._pulls[digest], self._members[digest]
                with trio.CancelScope(shield=True):
                    await self._world.disk.run(pull.close)

    async def accept(self, received: Received) -> None:
        """Store a payload that passed its check."""
        if received.partial is not None:
            await self._world.disk.run(self.blobs.accept, received.partial)

    async def refuse(self, received: Received) -> None:
        """Forget a payload that did not."""
        if received.partial is not None:
            await self._world.disk.run(self.blobs.remove_incoming, [received.digest])

    def active(self) -> frozenset[bytes]:
        """Payloads that are being fetched or checked now."""
        return frozenset(self._turns)

    def corrupted(self) -> dict[int, int]:
        """Peers that sent what they had not promised, and how often."""
        return dict(self._shared.corrupted)

    def progress(self) -> list[Progress]:
        """Return every payload on its way in."""
        now_s = trio.current_time()
        return [
            Progress(
                member=self._members[digest],
                digest=digest,
                bytes_held=pull.bytes_held,
                bytes_count=pull.bytes_count,
                bytes_s=pull.meter.bytes_s(now_s),
                sources=pull.sources_count,
            )
            for digest, pull in self._pulls.items()
        ]

    async def log_forever(self) -> None:
        """Tell in the log how long transfers go on."""
        before: set[bytes] = set()
        while True:
            await trio.sleep(PROGRESS_LOG_S)
            for one in self.progress():
                if one.digest in before and one.bytes_count:
                    self._log.info(
                        "transfer",
                        member=None if one.member is None else self._book.roster.member(one.member).name,
                        mb=round(one.bytes_held / 1e6, 1),
                        of_mb=round(one.bytes_count / 1e6, 1),
                        mb_s=round(one.bytes_s / 1e6, 2),
                        sources=one.sources,
                    )  # fmt: skip
            before = set(self._pulls)

    def _stored(self, digest: bytes) -> Received | None:
        payload = self.blobs.get(digest)
        manifest = self.blobs.manifest(digest)
        if payload is None or manifest is None:
            return None
        return Received(digest, manifest.codec, manifest.bytes_count, payload, None)

    async def _run(self, pull: Pull) -> Partial:
        """Fetch; a disk that has no room for somebody else's payload is no reason to stop."""
        while True:
            try:
                partial = await pull.run()
            except NoRoomError as error:
                before = self.blobs.bytes_stored
                await self.tidy()
                if self.blobs.bytes_stored < before:
                    continue
                self.no_room = str(error)
                self._log.warning("no_room", digest=pull.digest.hex()[:16], why=str(error))
                await trio.sleep(NO_ROOM_WAIT_S)
            else:
                self.no_room = ""
                return partial

    @asynccontextmanager
    async def _turn(self, digest: bytes) -> AsyncIterator[None]:
        lock = self._turns.setdefault(digest, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked():
                self._turns.pop(digest, None)
