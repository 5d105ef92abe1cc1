"""FedAvg's merge: the weighted mean, the same bits on every machine.

Room: learning. Law: as in rows.py. Rules that withstand liars: robust.py.
"""

from collections.abc import Sequence

from swarm.learning.rows import BLOCK_ELEMENTS, Vector, combine, in_order

__all__ = ["BLOCK_ELEMENTS", "Vector", "weighted_mean"]


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
