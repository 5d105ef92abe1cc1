"""One payload fetched from several peers at once, straight to the disk. Room: node. Spec: docs/wire.md §4.2.

A source is a task that asks one peer for the manifest, if that is still unknown, and then for chunks,
several at once. What a peer does wrong ends its task, not the fetch; the fetch ends when all is here.
Which chunk is asked of whom says swarm/protocol/fetch.py.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, final

import trio

from ledger.errors import PeerError, StoreError, UnavailableError
from node.blobs import BlobStore
from node.network import FETCH_PROTOCOL, REQUEST_BYTES_MAX
from node.partial import Partial
from node.progress import Meter
from node.slots import Slot, Slots
from node.source_order import SourceOrder
from node.world import World
from swarm.protocol.fetch import STEAL_AFTER_S, Download, Window, unpack_chunks
from swarm.protocol.messages import (
    FetchRequest,
    FetchStatus,
    Part,
    decode_fetch_reply,
    encode_fetch_request,
)
from swarm.protocol.payload import CorruptPayloadError, OversizedError, open_manifest

REQUEST_TIMEOUT_S: Final = 20.0
CHUNK_TIMEOUT_S: Final = 60.0
"""A line that moves a chunk more slowly than this (17 kB/s) brings no payload."""
HEDGE_S: Final = 1.0
"""How long a source may be silent before another one is asked too."""
SOURCES_MAX: Final = 6
"""Peers that one payload is fetched from at once; one place is kept for whoever presumably has it."""
ANYBODY: Final = -1
"""A peer of which nothing is known."""
SWARM_CHUNKS_MIN: Final = 3
"""With fewer chunks missing one source after the other is asked, as long as each is quick."""


@dataclass(kw_only=True)
class Shared:
    """What all fetches of a node have in common."""

    world: World
    blobs: BlobStore
    slots: Slots
    corrupted: Counter[int] = field(default_factory=Counter)
    """peer → how often it sent what it had not promised"""


@dataclass(eq=False)
class _Source:
    """One peer that is being asked."""

    peer: int
    started_s: float
    window: Window = field(default_factory=Window)
    requests: dict[int, trio.CancelScope] = field(default_factory=dict)
    """chunk → what cancels the request for it"""
    failure: Exception | None = None
    has_nothing: bool = False
    """It said so; it may have something later."""


@final
class Pull:
    """One payload on its way in."""

    def __init__(
        self, shared: Shared, digest: bytes, *, sources: Sequence[int], payload_bytes_max: int
    ) -> None:
        self.digest = digest
        self.partial: Partial | None = None
        self.meter = Meter(trio.current_time())
        self._shared = shared
        self._network = shared.world.network
        self._log = shared.world.log
        self._random = shared.world.random
        self._first = frozenset(sources)
        self._payload_bytes_max = payload_bytes_max
        self._download: Download | None = None
        self._sources: dict[int, _Source] = {}
        self._order = SourceOrder(sources, shared.corrupted, random=shared.world.random)
        self._withheld: set[int] = set()
        """Peers that have it for us, but had not heard yet that we have contributed."""
        self._beginning = trio.Lock()
        self._changed = trio.Event()
        self._failure: Exception | None = None

    @property
    def bytes_held(self) -> int:
        """Checked bytes so far."""
        return self._download.bytes_held if self._download else 0

    @property
    def bytes_count(self) -> int | None:
        """Bytes in all, once the manifest is known."""
        partial = self.partial  # once: the disk's thread may let go of it meanwhile
        return partial.manifest.bytes_count if partial else None

    @property
    def sources_count(self) -> int:
        """Peers that chunks are under way from."""
        return sum(bool(source.requests) for source in self._sources.values())

    async def run(self) -> Partial:
        """Fetch until all is here. Raises OversizedError, NoRoomError (run it again later), StoreError."""
        disk = self._shared.world.disk
        await disk.run(self.close)
        self._download = self._failure = None
        partial = await disk.run(self._shared.blobs.resume, self.digest)
        if partial is not None:
            self._log.info("fetch_resumed", digest=self.digest.hex()[:16], chunks=len(partial.held))
            self._know(partial)
        async with trio.open_nursery() as nursery:
            while self._failure is None and not self._is_complete():
                if self._changed.is_set():  # else somebody still waits for this one
                    self._changed = trio.Event()
                wake_s = self._ask_more(nursery)
                with trio.move_on_at(wake_s):
                    await self._changed.wait()
            nursery.cancel_scope.cancel()
        if self._failure is not None or self.partial is None:
            raise self._failure or AssertionError("complete without a manifest")
        return self.partial

    def close(self) -> None:
        """Let go of the file; what is in it stays for the next time. On the thread that reads it."""
        if self.partial is not None:
            self.partial.close()
            self.partial = None

    def _is_complete(self) -> bool:
        return self._download is not None and self._download.is_complete

    def _know(self, partial: Partial) -> None:
        """The manifest is known: chunks may come."""
        if partial.manifest.bytes_count > self._payload_bytes_max:
            partial.close()
            raise OversizedError(f"payload of {partial.manifest.bytes_count} bytes is too large")
        self.partial = partial
        self._download = Download(partial.manifest, partial.held, random=self._random)

    # Whom to ask

    def _ask_more(self, nursery: trio.Nursery) -> float:
        """Begin with as many sources as are of use; return when to look again."""
        now_s = trio.current_time()
        connected = self._network.connected()
        if not self._sources:
            self._order.forgive(connected, now_s)
        idle = connected - self._sources.keys()
        if not self._has_room_for(ANYBODY, now_s):  # as nearly always: there may be a hundred
            idle &= self._first | self._withheld
        for peer in self._order.able(idle, now_s):
            if self._has_room_for(peer, now_s):
                source = self._sources[peer] = _Source(peer, now_s)
                nursery.start_soon(self._ask, source)
        return min(now_s + HEDGE_S, self._order.wake_s(idle, now_s))

    def _has_room_for(self, peer: int, now_s: float) -> bool:
        """Whether to ask ``peer`` beside those that are asked now.

        Whoever presumably has it waits for no others, and whoever withheld it for nobody: one that is
        slow, or wants to be, must not come between a payload and its author.
        """
        likely = [one for one in self._sources.values() if one.peer in self._first]
        others_count = len(self._sources) - len(likely)
        is_likely = peer in self._first
        if len(self._sources) >= SOURCES_MAX or (not is_likely and others_count >= SOURCES_MAX - 1):
            return False
        many = self._download is not None and self._download.missing_count >= SWARM_CHUNKS_MIN
        if many or peer in self._withheld:
            return True
        ahead = likely if is_likely else self._sources.values()
        return all(now_s >= one.started_s + HEDGE_S for one in ahead)

    # One source

    async def _ask(self, source: _Source) -> None:
        """Take what a peer has; whatever goes wrong is told here and stays here."""
        peer = source.peer
        try:
            if self._download is None:
                await self._ask_for_manifest(source)
            if self._download is not None and not source.has_nothing:
                await self._ask_for_chunks(source, self._download)
        except UnavailableError as error:
            self._log.debug("fetch_unavailable", peer=peer, why=str(error))
        except (OversizedError, StoreError) as error:
            self._failure = error
        except CorruptPayloadError as error:
            self._order.distrust(peer)
            self._shared.corrupted[peer] += 1
            count = self._shared.corrupted[peer]
            self._log.warning("fetch_refused", peer=peer, count=count, why=str(error))
        except PeerError as error:  # its disk, for example: nobody is to be blamed for that
            self._log.warning("fetch_failed", peer=peer, why=str(error))
        finally:
            self._order.rest(peer, trio.current_time())
            if self._download is not None:
                self._download.leave(peer)
            del self._sources[peer]
            self._changed.set()

    async def _ask_for_manifest(self, source: _Source) -> None:
        status, body = await self._request(source.peer, Part.MANIFEST, timeout_s=REQUEST_TIMEOUT_S)
        self._heard(source.peer, status)
        if status is not FetchStatus.OK:
            source.has_nothing = True
            return
        manifest = open_manifest(
            bytes(body), digest=self.digest, payload_bytes_max=self._payload_bytes_max
        )
        async with self._beginning:
            if self._download is None:
                self._know(await self._shared.world.disk.run(self._shared.blobs.begin, manifest))
        self._changed.set()

    async def _ask_for_chunks(self, source: _Source, download: Download) -> None:
        """Keep a window of requests going until this peer has nothing more that is missing."""
        if source.peer not in self._first:
            await self._ask_what_is_held(source, download)
        async with trio.open_nursery() as nursery:
            while not download.is_complete and source.failure is None:
                changed = self._changed
                if len(source.requests) < source.window.size and (
                    await self._ask_for_another(source, download, nursery)
                ):
                    continue
                if not source.requests and not download.can_come_from(source.peer):
                    break
                with trio.move_on_after(HEDGE_S):
                    await changed.wait()
            if not isinstance(source.failure, UnavailableError):
                nursery.cancel_scope.cancel()
        if source.failure is not None:
            raise source.failure

    async def _ask_for_another(
        self, source: _Source, download: Download, nursery: trio.Nursery
    ) -> bool:
        """Begin one request more; False when there is no chunk to ask this peer for."""
        slots = self._shared.slots
        patience_s = max(STEAL_AFTER_S, 2 * source.window.usual_s)
        slot = await slots.take(source.peer, patience_s=patience_s)
        index = download.take(source.peer, now_s=trio.current_time(), usual_s=source.window.usual_s)
        if index is None or source.failure is not None:
            slots.give_back(slot)
            return False
        scope = source.requests[index] = trio.CancelScope()
        nursery.start_soon(self._ask_for_chunk, source, download, index, scope, slot)
        return True

    async def _ask_for_chunk(
        self,
        source: _Source,
        download: Download,
        index: int,
        scope: trio.CancelScope,
        slot: Slot,
    ) -> None:
        """Fetch one chunk and write it, unless somebody else is faster."""
        disk, partial, started_s = self._shared.world.disk, self.partial, trio.current_time()
        try:
            with scope:
                status, body = await self._request(
                    source.peer, Part.CHUNK, index, timeout_s=CHUNK_TIMEOUT_S
                )
                if status is not FetchStatus.OK:
                    await self._ask_what_is_held(source, download, refused=index)
                elif partial is not None:
                    await disk.run(partial.add, index, body)
                    self._took(source, download, index, started_s)
        except (PeerError, UnavailableError, StoreError) as error:
            source.window.failed()
            source.failure = source.failure or error
        finally:
            self._shared.slots.give_back(slot)
            del source.requests[index]
            download.put_back(source.peer, index)
            self._changed.set()

    def _took(self, source: _Source, download: Download, index: int, started_s: float) -> None:
        now_s = trio.current_time()
        source.window.took(now_s - started_s)
        self.meter.add(download.manifest.size_of(index), now_s)
        self._order.brought(source.peer)
        for peer in download.received(index):
            other = self._sources.get(peer)
            if other is not None and other is not source and index in other.requests:
                other.requests[index].cancel()

    async def _ask_what_is_held(
        self, source: _Source, download: Download, *, refused: int | None = None
    ) -> None:
        """Learn which chunks a peer has that does not have all, or perhaps none.

        Raises UnavailableError if it still says that it has the one that it did not bring.
        """
        held: frozenset[int] = frozenset()
        try:
            status, body = await self._request(source.peer, Part.HELD, timeout_s=REQUEST_TIMEOUT_S)
            self._heard(source.peer, status)
            if status is FetchStatus.OK:
                held = unpack_chunks(bytes(body), len(download.manifest.chunks))
        except PeerError as error:
            # Perhaps an older node, which does not know the question.
            self._log.debug("fetch_not_told", peer=source.peer, why=str(error))
        download.announce(source.peer, held)
        source.has_nothing = not held
        if refused in held:
            raise UnavailableError(f"it holds chunk {refused}, and does not bring it")

    def _heard(self, peer: int, status: FetchStatus) -> None:
        if status is FetchStatus.WITHHELD:
            self._withheld.add(peer)
        else:
            self._withheld.discard(peer)

    async def _request(
        self, peer: int, part: Part, index: int = 0, *, timeout_s: float
    ) -> tuple[FetchStatus, memoryview]:
        request = FetchRequest(digest=self.digest, part=part, index=index)
        reply = await self._network.request(
            peer,
            FETCH_PROTOCOL,
            encode_fetch_request(request),
            reply_bytes_max=REQUEST_BYTES_MAX,
            timeout_s=timeout_s,
        )
        return decode_fetch_reply(reply)
