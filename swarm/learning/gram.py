"""Inner products of members' vectors, the same bits on every machine and yet as fast as BLAS.

Room: learning. Block by block, every row is rounded to integers of at most 2^20 times a power of two of
its own. A product of two has at most 40 bits and a sum of 2^13 of them at most 53, so within a block
every float64 operation is exact, whatever the order, the threads or the fused instructions. The blocks
are then added in order. A row's values are off by at most 2^-20 of the largest of their block.
"""

import math
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from swarm.learning.rows import Vector, blocks

BITS: Final = 20
EXACT_ELEMENTS: Final = 1 << 13
"""2 · BITS + 13 = 53 bits: what float64 holds exactly."""
EXPONENT_MIN: Final = -100
"""Differences far below 2^-100 count as zero; their scale would overflow float32."""
Gram: TypeAlias = list[list[float]]
"""(n, n) inner products, symmetric."""


def gram(rows: Sequence[Vector], origin: Vector) -> Gram:
    """Return ⟨row_i − origin, row_j − origin⟩, (n, n). rows: n float32 vectors (d,); origin: (d,).

    The differences are float32: take an origin near the honest rows, where they lose nothing.
    Raises ValueError where a difference is not finite.
    """
    count = len(rows)
    table = np.empty((count, EXACT_ELEMENTS), dtype=np.float32)
    exact = np.empty((count, EXACT_ELEMENTS), dtype=np.float64)
    total = np.zeros((count, count))
    for piece in blocks(origin.size, elements=EXACT_ELEMENTS):
        width = piece.stop - piece.start
        difference, whole = table[:, :width], exact[:, :width]
        for lane, row in zip(difference, rows, strict=True):
            np.subtract(row[piece], origin[piece], out=lane)
        exponents = _exponents(difference)
        np.multiply(difference, np.ldexp(np.float32(1), BITS - exponents), out=difference)
        np.rint(difference, out=difference)
        np.copyto(whole, difference)
        unit = np.ldexp(1.0, exponents - BITS)
        total += (whole @ whole.T) * unit * unit.T
    if not np.isfinite(total).all():
        raise ValueError("the rows are too far from the origin to be compared")
    products: Gram = total.tolist()
    return products


def _exponents(difference: NDArray[np.float32]) -> NDArray[np.int32]:
    """Exponents of two that bound each row of the block, (n, 1)."""
    largest = np.maximum(difference.max(axis=1), -difference.min(axis=1))
    if not np.isfinite(largest).all():
        raise ValueError("a row is not finite, or too far from the origin for a float32")
    exponents: NDArray[np.int32] = np.frexp(largest)[1].astype(np.int32)
    return np.maximum(exponents, EXPONENT_MIN)[:, np.newaxis]


def mixed(products: Gram, factors: Sequence[Sequence[float]]) -> Gram:
    """Inner products of the combinations Σ_j factors[i][j] · row_j, (m, m) from (n, n)."""
    half = [[dot(row, column) for column in products] for row in factors]
    return [[dot(left, row) for row in factors] for left in half]


def dot(left: Sequence[float], right: Sequence[float]) -> float:
    """Inner product of two short vectors, rounded once: the same bits in any order."""
    return math.fsum(a * b for a, b in zip(left, right, strict=True))
