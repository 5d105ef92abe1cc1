"""What a payload is called: a digest over its chunks. Knows no socket, no tensor. Spec: docs/wire.md §4.

A payload's digest commits to its codec, its length and every 1 MiB chunk, so a receiver checks each
chunk as it arrives, from any source and in any order, and never holds unchecked bytes.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from blake3 import blake3

from ledger.canonical import decode, encode
from ledger.errors import PeerError

CHUNK_BYTES: Final = 1 << 20
DIGEST_BYTES: Final = 32
PAYLOAD_BYTES_MAX: Final = 4 << 30
"""Manifests of payloads up to this size are always looked at; the charter's limit may be higher."""

_DOMAIN: Final = b"swarm/payload/v1\n"


class OversizedError(PeerError):
    """The payload that a digest names is larger than it may be: whoever named it is to blame."""


class CorruptPayloadError(PeerError):
    """What a source sent is not what the digest names: the source is to blame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The chunk digests of one payload: what a fetcher needs before it asks for bytes."""

    codec: int
    bytes_count: int
    chunks: tuple[bytes, ...]

    @property
    def digest(self) -> bytes:
        """SHA-256 of domain ‖ codec (u16) ‖ length (u64) ‖ BLAKE3 digest of every chunk."""
        head = self.codec.to_bytes(2, "big") + self.bytes_count.to_bytes(8, "big")
        return hashlib.sha256(_DOMAIN + head + b"".join(self.chunks)).digest()

    def size_of(self, index: int) -> int:
        """Bytes of a chunk: 1 MiB but for the last."""
        return min(CHUNK_BYTES, self.bytes_count - index * CHUNK_BYTES)

    def to_bytes(self) -> bytes:
        """Canonical bytes for the wire."""
        return encode([int(self.codec), self.bytes_count, b"".join(self.chunks)])


def chunk_count(bytes_count: int) -> int:
    """Number of chunks in a payload of ``bytes_count`` bytes (an empty payload has none)."""
    return -(-bytes_count // CHUNK_BYTES)


def manifest_bytes_max(payload_bytes_max: int) -> int:
    """Upper bound of an encoded manifest for payloads of at most ``payload_bytes_max`` bytes."""
    return chunk_count(payload_bytes_max) * DIGEST_BYTES + 64


def manifest_of(codec: int, payload: bytes | memoryview) -> Manifest:
    """Cut ``payload`` into chunks and digest each."""
    view = memoryview(payload)
    starts = range(0, len(payload), CHUNK_BYTES)
    chunks = tuple(blake3(view[start : start + CHUNK_BYTES]).digest() for start in starts)
    return Manifest(codec=codec, bytes_count=len(payload), chunks=chunks)


def payload_digest(codec: int, payload: bytes | memoryview) -> bytes:
    """Digest by which the ledger names ``payload``."""
    return manifest_of(codec, payload).digest


def open_manifest(data: bytes, *, digest: bytes, payload_bytes_max: int) -> Manifest:
    """Parse a peer's manifest and check it against the digest that the ledger names.

    Raises CorruptPayloadError when it is malformed or not the preimage of ``digest`` (the source lies), and
    OversizedError when it is, and the payload is larger than it may be (every source says the same).
    """
    bytes_max = manifest_bytes_max(max(payload_bytes_max, PAYLOAD_BYTES_MAX))
    try:
        value = decode(data, bytes_max=bytes_max)
    except PeerError as error:
        raise CorruptPayloadError(f"manifest: {error}") from error
    match value:
        case [int(codec), int(bytes_count), bytes(joined)]:
            pass
        case _:
            raise CorruptPayloadError("manifest is not [codec, length, digests]")
    if len(joined) != chunk_count(bytes_count) * DIGEST_BYTES or codec >= 1 << 16:
        raise CorruptPayloadError("manifest does not fit its length")
    chunks = tuple(joined[at : at + DIGEST_BYTES] for at in range(0, len(joined), DIGEST_BYTES))
    manifest = Manifest(codec=codec, bytes_count=bytes_count, chunks=chunks)
    if manifest.digest != digest:
        raise CorruptPayloadError("manifest does not match the digest on the ledger")
    if bytes_count > payload_bytes_max:
        raise OversizedError(f"payload of {bytes_count} bytes exceeds {payload_bytes_max} bytes")
    return manifest


def check_chunk(manifest: Manifest, index: int, chunk: bytes | memoryview) -> None:
    """Check one received chunk. Raises CorruptPayloadError when its bytes are not the promised ones."""
    if len(chunk) != manifest.size_of(index) or blake3(chunk).digest() != manifest.chunks[index]:
        raise CorruptPayloadError(f"chunk {index} does not match the digest on the ledger")
