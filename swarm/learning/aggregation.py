"""FedAvg's merge: the weighted mean, the same bits on every machine.

Room: learning. Law: as in rows.py. Rules that withstand liars: robust.py.
"""

from collections.abc import Callable, Sequence

import numpy as np

from swarm.learning.rows import BLOCK_ELEMENTS, Block, Vector, blocks, combine, in_order

__all__ = ["BLOCK_ELEMENTS", "Vector", "weighted_mean", "weighted_mean_one_by_one"]


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
    table, weights = in_order(rows, weights_micro, digests)
    return combine(table, [float(weight) for weight in weights], float(sum(weights)))


def weighted_mean_one_by_one(
    read: Callable[[int], Vector], weights_micro: Sequence[int], digests: Sequence[bytes]
) -> Vector:
    """Return the same bits as ``weighted_mean``, with one row in memory at a time.

    read: returns row i, (d,) float32; for rows that must be unpacked before they can be read.
    """
    if not digests or len(weights_micro) != len(digests):
        raise ValueError(f"{len(digests)} rows and {len(weights_micro)} weights")
    if min(weights_micro) < 0 or sum(weights_micro) == 0:
        raise ValueError("weights must be at least 0 and not all 0")
    order = sorted(range(len(digests)), key=lambda i: (digests[i], weights_micro[i]))
    total: Block = np.empty(0)
    for i in order:
        row = read(i)
        if not total.size:
            total = np.zeros(row.size, dtype=np.float64)
        if row.shape != total.shape or row.dtype != np.float32:
            raise ValueError("every row must be a float32 vector of the same length")
        factor = np.float64(weights_micro[i])
        for piece in blocks(row.size) if factor else ():
            # Multiply, then add: two roundings, as in `combine`.
            total[piece] += np.multiply(row[piece], factor)
    mean: Vector = np.divide(total, np.float64(sum(weights_micro)), out=total).astype(np.float32)
    return mean
