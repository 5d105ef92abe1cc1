"""A seeded random projection of an update, the same integers on every machine: what SKETCH records hold.

Room: scoring. Law: exact. The difference is rounded to integers of a common power of two, signs and
places come from PCG64's raw bits, and every sum stays below 2^53, so no order of additions, no
thread and no library changes a bit.

Coordinate i is multiplied by a random sign and added to the place (i + r) mod k, where r is random
for each block of k coordinates: a sparse embedding with one entry a column (Charikar, Chen,
Farach-Colton 2002, https://doi.org/10.1016/S0304-3975(03)00400-6; Weinberger et al. 2009,
https://arxiv.org/abs/0902.2206), in which coordinates of one block never meet. Cost: one pass.

Error, over the seeds, for two fixed vectors x, y (d,): the inner product is unbiased and its
variance is at most (|x|²|y|² + ⟨x, y⟩²) / k; it is exact where d ≤ k. So by Chebyshev a squared norm
is off by more than a share of ε in at most 2 / (k ε²) of seeds: with k = 256, norms within 10 % in
5 of 6. That bound is for the worst vectors (two coordinates hold everything); for vectors that are
spread out errors are near normal: a norm's standard error is 1 / √(2k), 4.4 %, a cosine's is
(1 − cos²) / √k, at most 6.3 % and nothing between equal updates. tests/swarm/test_scoring.py measures both.
The seed is an agreed round's, which nobody knew when updates were chosen (ledger/sketch.py).
"""

import hashlib
import math
import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from swarm.learning.mapped import RELEASE_ELEMENTS, release
from swarm.learning.rows import Vector

DIMENSIONS_MIN: Final = 16
DIMENSIONS_MAX: Final = 4_096
VALUE_MAX: Final = 32_767
EXACT_BITS: Final = 52  # of a float64; one is left for the sign
QUANTUM_BITS_MAX: Final = 30
CHUNK_ELEMENTS: Final = 1 << 17
"""Coordinates taken at a time: their scratch stays in a core's cache."""


@dataclass(frozen=True, slots=True)
class Projection:
    """value · 2^exponent at each of k places. The largest value has 15 bits, or all are 0."""

    exponent: int
    values: tuple[int, ...]

    def to_bytes(self) -> bytes:
        """K big-endian int16 values."""
        return struct.pack(f">{len(self.values)}h", *self.values)


def project(update: Vector, origin: Vector, *, seed: bytes, dimensions: int) -> Projection:
    """Project update − origin, float32 (d,) each, to ``dimensions`` integers.

    Raises ValueError where the difference is not finite, or dimensions are not 16 to 4,096.
    """
    if not DIMENSIONS_MIN <= dimensions <= DIMENSIONS_MAX:
        raise ValueError(f"dimensions are {DIMENSIONS_MIN} to {DIMENSIONS_MAX}")
    if update.shape != origin.shape or update.ndim != 1:
        raise ValueError("update and origin must be vectors of one length")
    largest = _largest(update, origin)
    if largest == 0.0:
        return Projection(0, (0,) * dimensions)
    bits = min(QUANTUM_BITS_MAX, EXACT_BITS - update.size.bit_length())
    exponent = math.frexp(largest)[1] - bits
    return _short(_sums(update, origin, exponent, seed, dimensions), exponent)


def _largest(update: Vector, origin: Vector) -> float:
    largest = 0.0
    for start in range(0, update.size, CHUNK_ELEMENTS):
        piece = slice(start, start + CHUNK_ELEMENTS)
        top = float(np.abs(update[piece] - origin[piece]).max())
        if not math.isfinite(top):
            raise ValueError("the update is not finite, or too far from its origin")
        largest = max(largest, top)
        if start % RELEASE_ELEMENTS == 0:
            release(update)
            release(origin)
    return largest


def _sums(
    update: Vector, origin: Vector, exponent: int, seed: bytes, dimensions: int
) -> NDArray[np.float64]:
    """Whole numbers (k,): Σ sign · round((update − origin) / 2^exponent) at each place."""
    bits = np.random.PCG64(int.from_bytes(hashlib.sha256(seed).digest(), "big"))
    words = -(-dimensions // 64)
    rows_at_once = max(1, CHUNK_ELEMENTS // dimensions)
    places = np.arange(dimensions)
    sums = np.zeros(dimensions)
    for start in range(0, update.size, rows_at_once * dimensions):
        piece = slice(start, min(start + rows_at_once * dimensions, update.size))
        size = piece.stop - piece.start
        rows = -(-size // dimensions)
        drawn = bits.random_raw(rows * (1 + words)).reshape(rows, 1 + words)
        turns = (drawn[:, :1] % np.uint64(dimensions)).astype(np.int64)
        octets = np.ascontiguousarray(drawn[:, 1:]).astype("<u8").view(np.uint8)
        is_negative = np.unpackbits(octets, axis=1, count=dimensions, bitorder="little")
        whole = np.subtract(update[piece], origin[piece]).astype(np.float64)
        np.rint(np.ldexp(whole, -exponent), out=whole)
        np.negative(whole, out=whole, where=is_negative.reshape(-1)[:size].astype(np.bool_))
        at = ((places + turns) % dimensions).reshape(-1)[:size]
        sums += np.bincount(at, weights=whole, minlength=dimensions)
    return sums


def _short(sums: NDArray[np.float64], exponent: int) -> Projection:
    """Round to 15 bits and a common exponent, halves to even."""
    largest = float(np.abs(sums).max())
    if largest == 0.0:
        return Projection(0, (0,) * len(sums))
    shift = math.frexp(largest)[1] - 15
    values = np.rint(np.ldexp(sums, -shift))
    if np.abs(values).max() > VALUE_MAX:
        shift += 1
        values = np.rint(np.ldexp(sums, -shift))
    return Projection(exponent + shift, tuple(map(int, values)))
