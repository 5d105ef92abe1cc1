"""Merging of models: the same bits on every machine.

Room: learning. Law: rows in order of digest, float64, element by element; never a BLAS or a
threaded reduction, whose order of additions differs from machine to machine.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Vector: TypeAlias = NDArray[np.float32]

# A block of float64 this long (256 KiB) and its scratch stay in a core's cache.
BLOCK_ELEMENTS = 1 << 15


def weighted_mean(
    rows: Sequence[Vector], weights_micro: Sequence[int], digests: Sequence[bytes]
) -> Vector:
    """Average rows by integer weights, identical for any order of the inputs.

    rows: n float32 vectors of one length d, finite. weights_micro: n integers ≥ 0, not all zero;
    they are divided by their own sum, so they need not add up to a million.
    digests: n byte strings that fix the order; equal digests mean equal rows.
    Returns (d,) float32, rounded once from float64. Raises ValueError on anything else.
    McMahan et al. 2017, https://arxiv.org/abs/1602.05629
    """
    if not rows or not len(rows) == len(weights_micro) == len(digests):
        raise ValueError(
            f"need as many rows as weights and digests, at least one: "
            f"{len(rows)}, {len(weights_micro)}, {len(digests)}"
        )
    length = rows[0].shape
    if len(length) != 1 or any(row.shape != length or row.dtype != np.float32 for row in rows):
        raise ValueError("every row must be a float32 vector of the same length")
    if min(weights_micro) < 0 or sum(weights_micro) == 0:
        raise ValueError("weights must be at least 0 and not all 0")
    # The weight breaks ties: two sites with the same payload share a digest.
    order = sorted(range(len(rows)), key=lambda i: (digests[i], weights_micro[i]))
    total = np.float64(sum(weights_micro))
    result = np.empty(length, dtype=np.float32)
    scratch = np.empty(BLOCK_ELEMENTS, dtype=np.float64)
    mean = np.empty(BLOCK_ELEMENTS, dtype=np.float64)
    for start in range(0, length[0], BLOCK_ELEMENTS):
        stop = min(start + BLOCK_ELEMENTS, length[0])
        sums, product = mean[: stop - start], scratch[: stop - start]
        sums.fill(0.0)
        for i in order:
            # Multiply, then add: two roundings, the same with and without FMA hardware.
            np.multiply(rows[i][start:stop], np.float64(weights_micro[i]), out=product)
            np.add(sums, product, out=sums)
        np.divide(sums, total, out=sums)
        result[start:stop] = sums
    return result
