"""Coordinate-wise order statistics of members' vectors: the trimmed mean and the median.

Room: learning. Law: the same bits on every machine. Rows are sorted by a network of element-wise
minima and maxima over a block, which is also far faster than sorting column by column.
They count members, not patients: a weight would be influence that a liar claims for himself.
"""

from collections.abc import Sequence
from functools import cache
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from swarm.learning.rows import Vector, blocks

SORT_BLOCK_ELEMENTS: Final = 1 << 12
"""Coordinates sorted at once: a table of 32 such float32 rows (512 KiB) stays in a core's cache."""
Mixing: TypeAlias = Sequence[Sequence[float]]


def trimmed_mean(rows: Sequence[Vector], trim: int, *, mixing: Mixing | None = None) -> Vector:
    """Drop the ``trim`` smallest and largest values of each coordinate and average the rest.

    rows: n float32 vectors (d,); 0 ≤ 2·trim < n. mixing (n, n): take Σ_j mixing[i][j] · row_j in the
    place of row_i; without it the order of the rows is irrelevant. trim = (n − 1) // 2 is the median.
    Returns (d,) float32. Yin et al. 2018, https://arxiv.org/abs/1803.01498
    """
    count = len(rows)
    if not 0 <= 2 * trim < count:
        raise ValueError(f"cannot trim {trim} of {count} rows at both ends")
    result = np.empty(rows[0].shape, dtype=np.float32)
    kept = count - 2 * trim
    table = np.empty((count + 1, SORT_BLOCK_ELEMENTS), dtype=np.float32)
    sums = np.empty(SORT_BLOCK_ELEMENTS, dtype=np.float64)
    for piece in blocks(result.size, elements=SORT_BLOCK_ELEMENTS):
        width = piece.stop - piece.start
        *lanes, spare = (lane[:width] for lane in table)
        values = [row[piece] for row in rows]
        for at, lane in enumerate(lanes):
            value = values[at] if mixing is None else _mix(values, mixing[at])
            # −0 becomes +0: which of the two is the smaller one differs from machine to machine.
            np.add(value, 0.0, out=lane, casting="same_kind")
        _sort(lanes, spare)
        total = sums[:width]
        total.fill(0.0)
        for lane in lanes[trim : trim + kept]:
            np.add(total, lane, out=total)
        result[piece] = np.divide(total, np.float64(kept), out=total)
    return result


def _mix(values: Sequence[Vector], factors: Sequence[float]) -> NDArray[np.float64]:
    total = np.zeros(values[0].size)
    for value, factor in zip(values, factors, strict=True):
        if factor:
            np.add(total, np.multiply(value, np.float64(factor)), out=total)
    return total


def _sort(lanes: list[NDArray[np.float32]], scratch: NDArray[np.float32]) -> None:
    """Sort each coordinate over the lanes, ascending; lanes and scratch change places, no copies."""
    spare = scratch
    for low, high in sorting_network(len(lanes)):
        a, b = lanes[low], lanes[high]
        np.minimum(a, b, out=spare)
        np.maximum(a, b, out=b)
        lanes[low], spare = spare, a


@cache
def sorting_network(count: int) -> tuple[tuple[int, int], ...]:
    """Comparators that sort ``count`` lanes: Batcher's odd-even merge sort (1968; Knuth 5.2.2 M)."""
    comparators = []
    top = 1 << max((count - 1).bit_length() - 1, 0)
    p = top if count > 1 else 0
    while p > 0:
        q, r, distance = top, 0, p
        while distance > 0:
            comparators += [(i, i + distance) for i in range(count - distance) if i & p == r]
            distance, q, r = q - p, q >> 1, p
        p >>= 1
    return tuple(comparators)
