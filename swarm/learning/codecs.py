"""Compressed updates: float16, int8, int4, ternary, sign, top-k, top-k with int8.

Room: learning. An update is parameters after minus before, (d,) float32. Lossy codecs lose a part of it
for good unless the sender adds to its next update what this one lost (error feedback, `Residual`).
Law: decoding gives the same bits on every machine, and refuses whatever is not what encoding writes:
sizes follow from d and the header, numbers are finite, indices ascend, nothing follows.
Layout of a body: one byte (0 raw, 1 zstd), then the codec's bytes; zstd only where it is shorter.
Seide et al. 2014 and Karimireddy et al. 2019, arXiv:1901.09847 (error feedback); Stich et al. 2018,
arXiv:1809.07599 (top-k); Li et al. 2016, arXiv:1605.04711 (ternary); Bernstein et al. 2018,
arXiv:1802.04434 (sign).
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol, final

import numpy as np
import zstandard
from numpy.typing import NDArray

from swarm.learning.packing import (
    Whole,
    ascending_bytes,
    pack_ascending,
    pack_digits,
    unpack_ascending,
    unpack_digits,
)
from swarm.learning.rows import Vector

BLOCK: Final = 1024
"""Values that share one scale: one outlier costs its neighbours precision, not the whole model."""
ZSTD_LEVEL: Final = 9
FLOAT16_MAX: Final = 65_504.0
TERNARY_THRESHOLD: Final = 0.7
"""Of the mean magnitude: smaller values become zero. Near the optimum for normal values (Li 2016)."""
KEEP_MICRO_DEFAULT: Final = 10_000
"""Top-k keeps one value of a hundred."""
MILLION: Final = 1_000_000
_COUNT: Final = struct.Struct("<Q")
RAW: Final = b"\x00"
ZSTD: Final = b"\x01"


class NotFiniteError(ValueError):
    """An update holds a value that is no number."""


class UpdateCodec(Protocol):
    """Writes an update in fewer bytes and reads what somebody else wrote."""

    def pack(self, update: Vector) -> bytes:
        """Write a finite float32 update (d,)."""

    def unpack(self, data: bytes, count: int) -> Vector:
        """Read an update (count,) float32; ValueError on anything that `pack` does not write."""

    def bytes_max(self, count: int) -> int:
        """Length of the longest `pack` of ``count`` values."""


@final
@dataclass(frozen=True, slots=True)
class Float16:
    """IEEE binary16; what is larger than it holds becomes its largest."""

    def pack(self, update: Vector) -> bytes:  # noqa: D102 - the Protocol says it
        halves: NDArray[np.float16] = np.clip(update, -FLOAT16_MAX, FLOAT16_MAX).astype("<f2")
        return halves.tobytes()

    def unpack(self, data: bytes, count: int) -> Vector:  # noqa: D102
        _need(len(data) == self.bytes_max(count))
        return _finite(np.frombuffer(data, dtype="<f2").astype(np.float32))

    def bytes_max(self, count: int) -> int:  # noqa: D102
        return 2 * count


@final
@dataclass(frozen=True, slots=True)
class Integers:
    """Whole multiples, −levels … levels, of a scale for each block of 1,024 values."""

    levels: int
    values_a_byte: int

    def pack(self, update: Vector) -> bytes:  # noqa: D102
        scales: Vector = _in_blocks(np.abs(update)).max(axis=1) / np.float32(self.levels)
        units = np.repeat(_inverse(scales), BLOCK)[: update.size]
        whole = np.clip(np.rint(update * units), -self.levels, self.levels).astype(np.int64)
        return scales.astype("<f4").tobytes() + self._digits(whole)

    def _digits(self, whole: Whole) -> bytes:
        base = 256 if self.values_a_byte == 1 else 16
        return pack_digits(whole + base // 2, base=base, digits_a_byte=self.values_a_byte)

    def unpack(self, data: bytes, count: int) -> Vector:  # noqa: D102
        _need(len(data) == self.bytes_max(count))
        cut = 4 * _blocks(count)
        base = 256 if self.values_a_byte == 1 else 16
        whole = unpack_digits(data[cut:], count, base=base, digits_a_byte=self.values_a_byte)
        whole = whole - base // 2
        _need(bool((np.abs(whole) <= self.levels).all()))
        return _finite(whole.astype(np.float32) * _spread(data[:cut], count))

    def bytes_max(self, count: int) -> int:  # noqa: D102
        return 4 * _blocks(count) + -(-count // self.values_a_byte)


@final
@dataclass(frozen=True, slots=True)
class Ternary:
    """−scale, 0 or +scale, five values a byte: small ones vanish, the rest share their mean."""

    def pack(self, update: Vector) -> bytes:  # noqa: D102
        size = np.abs(update)
        threshold = _means(size) * np.float32(TERNARY_THRESHOLD)
        kept = size > np.repeat(threshold, BLOCK)[: update.size]
        scales = _means(np.where(kept, size, np.float32(0)), kept)
        digits = np.where(kept, np.where(update > 0, 2, 0), 1)
        return scales.astype("<f4").tobytes() + pack_digits(digits, base=3, digits_a_byte=5)

    def unpack(self, data: bytes, count: int) -> Vector:  # noqa: D102
        _need(len(data) == self.bytes_max(count))
        cut = 4 * _blocks(count)
        digits = unpack_digits(data[cut:], count, base=3, digits_a_byte=5) - 1
        return _finite(digits.astype(np.float32) * _spread(data[:cut], count))

    def bytes_max(self, count: int) -> int:  # noqa: D102
        return 4 * _blocks(count) + -(-count // 5)


@final
@dataclass(frozen=True, slots=True)
class Sign:
    """One bit a value: plus or minus the block's mean magnitude."""

    def pack(self, update: Vector) -> bytes:  # noqa: D102
        scales = _means(np.abs(update))
        return scales.astype("<f4").tobytes() + np.packbits(update > 0).tobytes()

    def unpack(self, data: bytes, count: int) -> Vector:  # noqa: D102
        _need(len(data) == self.bytes_max(count))
        cut = 4 * _blocks(count)
        bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8, offset=cut))
        _need(not bits[count:].any())
        signs = np.where(bits[:count] == 1, np.float32(1), np.float32(-1))
        return _finite(signs * _spread(data[:cut], count))

    def bytes_max(self, count: int) -> int:  # noqa: D102
        return 4 * _blocks(count) + -(-count // 8)


@final
@dataclass(frozen=True, slots=True)
class TopK:
    """The largest values and where they are; ties go to the lower index."""

    keep_micro: int = KEEP_MICRO_DEFAULT
    values: UpdateCodec | None = None
    """How the values are written; None: as float32."""

    def kept(self, count: int) -> int:
        """How many values of ``count`` are sent, at least one."""
        return min(max(-(-count * self.keep_micro // MILLION), 1), count)

    def pack(self, update: Vector) -> bytes:  # noqa: D102
        chosen = _largest(np.abs(update), self.kept(update.size))
        values = update[chosen]
        body = self.values.pack(values) if self.values else values.astype("<f4").tobytes()
        return pack_ascending(chosen, update.size) + body

    def unpack(self, data: bytes, count: int) -> Vector:  # noqa: D102
        kept = self.kept(count)
        cut = ascending_bytes(kept, count)
        _need(len(data) >= cut)
        chosen = unpack_ascending(data[:cut], kept, count)
        update = np.zeros(count, dtype=np.float32)
        if self.values:
            update[chosen] = self.values.unpack(data[cut:], kept)
        else:
            _need(len(data) == self.bytes_max(count))
            update[chosen] = np.frombuffer(data, dtype="<f4", offset=cut)
        return _finite(update)

    def bytes_max(self, count: int) -> int:  # noqa: D102
        kept = self.kept(count)
        values = self.values.bytes_max(kept) if self.values else 4 * kept
        return ascending_bytes(kept, count) + values


INT8: Final = Integers(levels=127, values_a_byte=1)
INT4: Final = Integers(levels=7, values_a_byte=2)
CODECS: Final[Mapping[str, UpdateCodec]] = MappingProxyType(
    {
        "float16": Float16(),
        "int8": INT8,
        "int4": INT4,
        "ternary": Ternary(),
        "sign": Sign(),
        "top_k": TopK(),
        "top_k_int8": TopK(values=INT8),
    }
)
"""By the name that a charter gives; `top_k…` with the default share of one value in a hundred."""


def codec_of(name: str, *, keep_micro: int = KEEP_MICRO_DEFAULT) -> UpdateCodec:
    """Return the codec that a charter names; ValueError lists those there are."""
    if name not in CODECS:
        raise ValueError(f'no codec "{name}"; there are {", ".join(CODECS)}')
    codec = CODECS[name]
    return TopK(keep_micro=keep_micro, values=codec.values) if isinstance(codec, TopK) else codec


def encode_update(codec: UpdateCodec, update: Vector) -> bytes:
    """Body of a payload: the codec's bytes, through zstd where that is shorter."""
    packed = codec.pack(update)
    smaller = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_content_size=False).compress(packed)
    return ZSTD + smaller if len(smaller) < len(packed) else RAW + packed


def decode_update(codec: UpdateCodec, body: bytes, count: int) -> Vector:
    """Read the update (count,) float32 of a peer; ValueError, and never more memory than it has."""
    _need(len(body) >= 1)
    stage, packed = body[:1], body[1:]
    if stage == ZSTD:
        longest = codec.bytes_max(count)
        try:
            # A frame that unpacks to more than any honest one is refused before it is unpacked.
            with zstandard.ZstdDecompressor().stream_reader(
                packed, read_across_frames=True
            ) as reader:
                packed = reader.read(longest + 1)
        except zstandard.ZstdError as error:
            raise ValueError(f"the update does not unpack: {error}") from error
        _need(len(packed) <= longest)
    elif stage != RAW:
        raise ValueError(f"unknown stage {stage!r}")
    return codec.unpack(packed, count)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Residual:
    """What earlier updates lost, (d,) float32: it joins the next one. Its owner keeps it on disk."""

    lost: Vector

    @classmethod
    def none(cls, count: int) -> "Residual":
        """Nothing is lost yet."""
        return cls(np.zeros(count, dtype=np.float32))

    def compress(self, codec: UpdateCodec, update: Vector) -> tuple[bytes, Vector, "Residual"]:
        """Return (body, the update that its readers see, what is lost now)."""
        wanted = update + self.lost
        body = encode_update(codec, wanted)
        seen = decode_update(codec, body, wanted.size)
        return body, seen, Residual(wanted - seen)

    def unsent(self, seen: Vector) -> "Residual":
        """Return the residual once an update that was sent turned out to be left out of the merge."""
        return Residual(self.lost + seen)


def _need(kept: bool) -> None:  # noqa: FBT001 - reads as a sentence
    if not kept:
        raise ValueError("the bytes of the update are not what its codec writes")


def _finite(update: NDArray[np.float32]) -> Vector:
    if not np.isfinite(update).all():
        raise NotFiniteError("the update holds a value that is not finite")
    return update


def _blocks(count: int) -> int:
    return -(-count // BLOCK)


def _in_blocks(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut (d,) into (blocks, 1024), the last one filled up with zeros."""
    padded = np.zeros(_blocks(values.size) * BLOCK, dtype=np.float32)
    padded[: values.size] = values
    return padded.reshape(-1, BLOCK)


def _means(size: NDArray[np.float32], counted: NDArray[np.bool_] | None = None) -> Vector:
    """Mean of each block over the values that count (all, where nothing is said), (blocks,)."""
    if counted is None:
        counted = np.ones(size.size, dtype=np.bool_)
    counts = _in_blocks(counted.astype(np.float32)).sum(axis=1)
    means: Vector = _in_blocks(size).sum(axis=1) / np.maximum(counts, np.float32(1))
    return means


def _inverse(scales: Vector) -> Vector:
    """1 / scale; 0 where the scale is zero or so small that its inverse is not finite."""
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.float32(1) / scales
    return np.where(np.isfinite(inverse), inverse, np.float32(0))


def _spread(data: bytes, count: int) -> Vector:
    """Scales from their bytes, one for each value, (count,)."""
    scales = np.frombuffer(data, dtype="<f4").astype(np.float32)
    _need(bool((scales >= 0).all()))
    return np.repeat(scales, BLOCK)[:count]


def _largest(size: NDArray[np.float32], kept: int) -> Whole:
    """Ascending places of the ``kept`` largest values; of equal ones the first."""
    bound = np.partition(size, size.size - kept)[size.size - kept]
    above = np.flatnonzero(size > bound)
    equal = np.flatnonzero(size == bound)[: kept - above.size]
    return np.sort(np.concatenate([above, equal])).astype(np.int64)
