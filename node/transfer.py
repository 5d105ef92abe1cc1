"""Payloads between this node and its peers: pulled by digest from whoever holds them, and served.

Spec: docs/wire.md §4.2.
"""

from collections.abc import Callable, Sequence
from typing import Final, final

import trio

from ledger.errors import PeerError, UnavailableError
from node.blobs import BlobStore
from node.network import FETCH_PROTOCOL, REQUEST_BYTES_MAX
from node.world import World
from swarm.protocol.book import RoundBook
from swarm.protocol.fetch import Download
from swarm.protocol.messages import (
    FetchRequest,
    FetchStatus,
    Part,
    decode_fetch_reply,
    decode_fetch_request,
    encode_fetch_reply,
    encode_fetch_request,
)
from swarm.protocol.payload import OversizedError

REQUEST_TIMEOUT_S: Final = 20.0
RETRY_MIN_S: Final = 0.1
RETRY_MAX_S: Final = 5.0


@final
class Transfer:
    """One node's payloads on their way in and out."""

    def __init__(
        self, *, world: World, blobs: BlobStore, book: RoundBook, behind: Callable[[], None]
    ) -> None:
        """behind: called when a peer asks for what it may not have yet; perhaps we miss its record."""
        self._world = world
        self._network = world.network
        self._log = world.log
        self._random = world.random
        self._blobs = blobs
        self._book = book
        self._behind = behind

    # Serving

    async def on_request(self, peer: int, body: bytes) -> bytes:
        """Serve a payload's part, but nobody's contribution to one who has not contributed himself.

        Raises PeerError when it is asked for nonsense.
        """
        request = decode_fetch_request(body)
        if not self._book.may_fetch(peer, request.digest):
            self._behind()
            return encode_fetch_reply(FetchStatus.WITHHELD)
        part = await self._world.disk.run(self._part, request)
        if part is None:
            return encode_fetch_reply(FetchStatus.NOT_HELD)
        return encode_fetch_reply(FetchStatus.OK, part)

    def _part(self, request: FetchRequest) -> bytes | None:
        if request.part is Part.CHUNK:
            return self._blobs.chunk(request.digest, request.index)
        manifest = self._blobs.manifest(request.digest)
        return manifest.to_bytes() if manifest else None

    # Fetching

    async def fetch(
        self, digest: bytes, *, sources: Sequence[int], payload_bytes_max: int
    ) -> tuple[int, bytes]:
        """Pull a payload from whoever holds it; return (codec, payload). Ends only when it has come.

        ``sources`` are asked first. A source that serves a wrong byte is not asked again, unless
        nobody else is left: then all get another chance after the longest wait.
        Raises OversizedError when the digest names more than ``payload_bytes_max`` bytes.
        """
        download = Download(digest, payload_bytes_max=payload_bytes_max)
        distrusted: set[int] = set()
        wait_s = RETRY_MIN_S
        while True:
            connected = self._network.connected() - distrusted
            # In any order, so that one that stalls does not stand before the others every time.
            first = sorted(connected.intersection(sources))
            self._random.shuffle(first)
            for peer in [*first, *sorted(connected - set(first))]:
                try:
                    if await self._download_from(peer, download):
                        return download.codec, download.payload()
                except UnavailableError as error:
                    self._log.debug("fetch_unavailable", peer=peer, why=str(error))
                except OversizedError:
                    raise
                except PeerError as error:
                    distrusted.add(peer)
                    self._log.warning("fetch_refused", peer=peer, why=str(error))
            if distrusted >= self._network.connected():
                wait_s = RETRY_MAX_S
                distrusted.clear()
            await trio.sleep(wait_s * self._random.uniform(0.75, 1.25))
            wait_s = min(wait_s * 1.5, RETRY_MAX_S)

    async def _download_from(self, peer: int, download: Download) -> bool:
        """Take what ``peer`` has; False when it has (or gives) no more of this payload."""
        while not download.is_complete:
            reply = await self._network.request(
                peer,
                FETCH_PROTOCOL,
                encode_fetch_request(download.next_request()),
                reply_bytes_max=REQUEST_BYTES_MAX,
                timeout_s=REQUEST_TIMEOUT_S,
            )
            status, body = decode_fetch_reply(reply)
            if status is not FetchStatus.OK:
                return False
            download.receive(body)
        return True
