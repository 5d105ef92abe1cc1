"""One payload on its way in: which part to ask next, and whether what came is what was promised.

Sans-IO: `next_request` says what to ask, `receive` checks and keeps the answer. A source that serves a
wrong byte is a PeerError at once; a source that lacks the payload is simply not asked again this time.
Spec: docs/wire.md §4.
"""

from typing import final

from ledger.errors import PeerError
from swarm.protocol.messages import FetchRequest, Part
from swarm.protocol.payload import Manifest, check_chunk, open_manifest


@final
class Download:
    """Assembles one payload chunk by chunk; sources may change between any two chunks."""

    def __init__(self, digest: bytes, *, payload_bytes_max: int) -> None:
        self.digest = digest
        self._payload_bytes_max = payload_bytes_max
        self._manifest: Manifest | None = None
        self._chunks: list[bytes] = []

    @property
    def bytes_held(self) -> int:
        """Checked bytes so far."""
        return sum(map(len, self._chunks))

    @property
    def is_complete(self) -> bool:
        """Whether every chunk has been checked."""
        return self._manifest is not None and len(self._chunks) == len(self._manifest.chunks)

    @property
    def codec(self) -> int:
        """Codec id that the digest commits to. Only after the manifest has come."""
        return self._known().codec

    def next_request(self) -> FetchRequest:
        """Return what to ask for next; the manifest comes first."""
        if self._manifest is None:
            return FetchRequest(digest=self.digest, part=Part.MANIFEST, index=0)
        return FetchRequest(digest=self.digest, part=Part.CHUNK, index=len(self._chunks))

    def receive(self, body: bytes) -> None:
        """Check and keep the answer to `next_request`. Raises PeerError and keeps nothing if it is wrong."""
        if self._manifest is None:
            self._manifest = open_manifest(
                body, digest=self.digest, payload_bytes_max=self._payload_bytes_max
            )
            return
        check_chunk(self._manifest, len(self._chunks), body)
        self._chunks.append(body)

    def payload(self) -> bytes:
        """Return the whole payload. Raises PeerError unless it is complete."""
        if not self.is_complete:
            raise PeerError("payload is not complete")
        return b"".join(self._chunks)

    def _known(self) -> Manifest:
        if self._manifest is None:
            raise PeerError("manifest has not come yet")
        return self._manifest
