"""Many members' vectors as one table of rows: checked, put into one order, combined block by block.

Room: learning. Law: the same bits on every machine and for any order of the inputs. So rows lie in
order of digest, sums are float64 and go element by element; never a BLAS or a threaded reduction,
whose order of additions differs from machine to machine (gram.py says where BLAS is exact).
"""

from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from swarm.learning.mapped import RELEASE_ELEMENTS, release, roomy

Vector: TypeAlias = NDArray[np.float32]
Block: TypeAlias = NDArray[np.float64]

BLOCK_ELEMENTS: Final = 1 << 15
"""A block of float64 this long (256 KiB) and its scratch stay in a core's cache."""


def in_order(
    rows: Sequence[Vector], weights_micro: Sequence[int], digests: Sequence[bytes]
) -> tuple[list[Vector], list[int]]:
    """Return rows and weights in order of digest; ValueError when they are no table.

    rows: n ≥ 1 float32 vectors of one length d, finite. weights_micro: n integers ≥ 0, not all zero.
    digests: n byte strings that fix the order; equal digests mean equal rows.
    """
    if not rows or not len(rows) == len(weights_micro) == len(digests):
        raise ValueError(
            f"need as many rows as weights and digests, at least one: "
            f"{len(rows)}, {len(weights_micro)}, {len(digests)}"
        )
    shape = rows[0].shape
    if len(shape) != 1 or any(row.shape != shape or row.dtype != np.float32 for row in rows):
        raise ValueError("every row must be a float32 vector of the same length")
    if min(weights_micro) < 0 or sum(weights_micro) == 0:
        raise ValueError("weights must be at least 0 and not all 0")
    # The weight breaks ties: two sites with the same payload share a digest.
    order = sorted(range(len(rows)), key=lambda i: (digests[i], weights_micro[i]))
    return [rows[i] for i in order], [weights_micro[i] for i in order]


def same_length(state: Vector, merged: Vector) -> Vector:
    """Return ``merged`` as it is; ValueError unless it is as long as the state."""
    if merged.shape != state.shape:
        raise ValueError(f"an update of {merged.size} values is none for {state.size}")
    return merged


def blocks(length: int, *, elements: int = BLOCK_ELEMENTS) -> Iterator[slice]:
    """Cut ``length`` coordinates into consecutive pieces."""
    for start in range(0, length, elements):
        yield slice(start, min(start + elements, length))


def combine(rows: Sequence[Vector], factors: Sequence[float], divisor: float) -> Vector:
    """Return Σ factor · row / divisor, added in the order given, (d,) float32 rounded once.

    Rows whose factor is zero are not read.
    """
    used = [(row, np.float64(factor)) for row, factor in zip(rows, factors, strict=True) if factor]
    result = roomy(rows[0].size)
    product = np.empty(BLOCK_ELEMENTS, dtype=np.float64)
    total = np.empty(BLOCK_ELEMENTS, dtype=np.float64)
    for piece in blocks(result.size):
        if piece.start % RELEASE_ELEMENTS == 0:
            for row, _ in used:
                release(row)
        length = piece.stop - piece.start
        sums, scratch = total[:length], product[:length]
        sums.fill(0.0)
        for row, factor in used:
            # Multiply, then add: two roundings, the same with and without FMA hardware.
            np.multiply(row[piece], factor, out=scratch)
            np.add(sums, scratch, out=sums)
        np.divide(sums, np.float64(divisor), out=sums)
        result[piece] = sums
    return result
