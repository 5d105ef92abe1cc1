"""Typed bytes of a model or of moments: what travels, is digested and is averaged.

Room: learning. Law: no pickle and nothing that names code: a fixed header, then raw little-endian
numbers. Layout: `SWPAYLD1` ‖ codec (u64 BE) ‖ count (u64 BE) ‖ layout digest (32) ‖ data. One
vector has exactly one encoding, so equal results have equal digests.
"""

import struct
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ledger.errors import PeerError
from ledger.record import Codec, Reason
from swarm.learning.aggregation import Vector
from swarm.learning.mapped import release, with_room
from swarm.learning.moments import Moments

MAGIC = b"SWPAYLD1"
HEADER = struct.Struct(">8sQQ32s")  # 56 bytes, so the data are aligned to 8
BLOCK_ELEMENTS = 1 << 20
IN_PLACE_BYTES_MIN = 1 << 20
"""Longer vectors that `roomy` made become payloads where they are; nobody may write to them after."""


class PayloadError(PeerError):
    """A peer's payload does not fit; ``reason`` is what the ledger records about it."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def payload_bytes(codec: Codec, count: int) -> int:
    """Exact size of a payload of ``count`` values."""
    return HEADER.size + count * _dtype(codec).itemsize


def encode_vector(vector: Vector, layout_digest: bytes) -> bytes:
    """Encode float32 parameters (d,)."""
    return _encode(Codec.FLOAT32, vector, layout_digest)


def decode_vector(payload: bytes, layout_digest: bytes, count: int) -> Vector:
    """Decode ``count`` float32 parameters; a read-only view of the payload.

    Raises PayloadError unless codec, count, layout, size and finiteness are all right.
    """
    _check(Codec.FLOAT32, payload, layout_digest, count)
    vector = np.frombuffer(payload, dtype="<f4", offset=HEADER.size)
    _check_finite(vector)
    return vector


def encode_packed(codec: Codec, body: bytes, count: int, layout_digest: bytes) -> bytes:
    """Put the header before an update of ``count`` values that a codec has written."""
    return HEADER.pack(MAGIC, codec, count, layout_digest) + body


def open_packed(
    payload: bytes, codec: Codec, layout_digest: bytes, count: int, *, bytes_max: int
) -> bytes:
    """Undo ``encode_packed``. Raises PayloadError unless size, codec, count and layout are right."""
    if not HEADER.size < len(payload) <= bytes_max:
        raise PayloadError(
            Reason.TOO_LARGE if len(payload) > bytes_max else Reason.BAD_SHAPE,
            f"payload has {len(payload)} bytes, expected {HEADER.size + 1} to {bytes_max}",
        )
    _check_header(codec, payload, layout_digest, count)
    return bytes(memoryview(payload)[HEADER.size :])


def encode_moments(moments: Moments, columns: bytes) -> bytes:
    """Encode moments of d columns as 3 d float64 values; columns: ``columns_digest``."""
    return _encode(Codec.MOMENTS, moments.to_vector(), columns)


def decode_moments(payload: bytes, columns: bytes, count: int) -> Moments:
    """Decode the moments of ``count`` columns; PayloadError when no real values have them."""
    _check(Codec.MOMENTS, payload, columns, 3 * count)
    vector = np.frombuffer(payload, dtype="<f8", offset=HEADER.size)
    _check_finite(vector)
    try:
        return Moments.from_vector(vector)
    except ValueError as error:
        raise PayloadError(Reason.BAD_SHAPE, str(error)) from error


def _dtype(codec: Codec) -> np.dtype[np.floating]:
    return np.dtype("<f4") if codec == Codec.FLOAT32 else np.dtype("<f8")


def _encode(codec: Codec, values: NDArray[np.floating], layout_digest: bytes) -> bytes:
    head = HEADER.pack(MAGIC, codec, values.size, layout_digest)
    numbers = np.ascontiguousarray(values, dtype=_dtype(codec))
    whole = with_room(numbers) if numbers.nbytes >= IN_PLACE_BYTES_MIN else None
    if whole is not None:
        # No copy: a model may be a good part of a hospital's memory. It is read as bytes are.
        whole[: len(head)] = np.frombuffer(head, np.uint8)
        return cast("bytes", whole.data.toreadonly())
    return b"".join((head, numbers.reshape(-1).view(np.uint8).data))


def _check(codec: Codec, payload: bytes, layout_digest: bytes, count: int) -> None:
    expected = payload_bytes(codec, count)
    if len(payload) != expected:
        raise PayloadError(
            Reason.TOO_LARGE if len(payload) > expected else Reason.BAD_SHAPE,
            f"payload has {len(payload)} bytes, expected {expected}",
        )
    _check_header(codec, payload, layout_digest, count)


def _check_header(codec: Codec, payload: bytes, layout_digest: bytes, count: int) -> None:
    magic, sent_codec, sent_count, sent_layout = HEADER.unpack_from(payload)
    if (magic, sent_codec, sent_count) != (MAGIC, codec, count):
        raise PayloadError(Reason.BAD_SHAPE, "payload header names another format, codec or count")
    if sent_layout != layout_digest:
        raise PayloadError(Reason.BAD_SHAPE, "payload is of a model with another layout")


def _check_finite(values: NDArray[np.floating]) -> None:
    for start in range(0, values.size, BLOCK_ELEMENTS):
        if not np.isfinite(values[start : start + BLOCK_ELEMENTS]).all():
            raise PayloadError(Reason.NOT_FINITE, "payload holds a value that is not finite")
        release(values)
