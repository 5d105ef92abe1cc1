"""Which rows are for validation: the same on every machine that has the same file and seed.

Room: node. Law: stratified by label, a patient's rows stay together, rows keep their order. Draws
are SHA-256 and PCG64's raw bits, which no library version changes.
"""

import hashlib
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

REGRESSION_STRATA = 5


def strata(labels: NDArray[np.float64] | NDArray[np.int64], head: str) -> NDArray[np.int64]:
    """Stratum of each row (n,): its class, or the fifth of the targets that it lies in."""
    if head != "regression":
        return labels.astype(np.int64)
    ranks = np.empty(len(labels), dtype=np.int64)
    ranks[np.argsort(labels, kind="stable")] = np.arange(len(labels))
    return ranks * REGRESSION_STRATA // max(len(labels), 1)


def split_rows(
    strata_of_rows: NDArray[np.int64],
    groups: NDArray[np.object_] | None,
    *,
    fraction: float,
    seed: int,
) -> NDArray[np.bool_]:
    """Mark the validation rows (n,): in every stratum the nearest to ``fraction`` of its rows.

    Without groups a stratum of two rows or more has one on each side. groups: (n,) patient names; a
    patient belongs to the stratum of the highest class among its rows, and moves as a whole.
    """
    if groups is None:
        return _split_single(strata_of_rows, fraction=fraction, seed=seed)
    return _split_groups(strata_of_rows, groups, fraction=fraction, seed=seed)


def _split_single(
    strata_of_rows: NDArray[np.int64], *, fraction: float, seed: int
) -> NDArray[np.bool_]:
    draws = np.random.PCG64(seed).random_raw(len(strata_of_rows))
    validation = np.zeros(len(strata_of_rows), dtype=np.bool_)
    for stratum in np.unique(strata_of_rows):
        rows = np.flatnonzero(strata_of_rows == stratum)
        chosen = rows[np.argsort(draws[rows], kind="stable")]
        validation[chosen[: _wanted(len(rows), fraction)]] = True
    return validation


def _split_groups(
    strata_of_rows: NDArray[np.int64],
    groups: NDArray[np.object_],
    *,
    fraction: float,
    seed: int,
) -> NDArray[np.bool_]:
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        rows_of[str(group)].append(row)
    in_stratum: dict[int, list[str]] = defaultdict(list)
    for group, rows in rows_of.items():
        in_stratum[int(strata_of_rows[rows].max())].append(group)
    validation = np.zeros(len(strata_of_rows), dtype=np.bool_)
    for members in in_stratum.values():
        # By name, not by position: a patient keeps its side when rows are added or sorted.
        members.sort(key=lambda group: _draw(seed, group))
        total = sum(len(rows_of[group]) for group in members)
        wanted, taken = fraction * total, 0
        for group in members[: len(members) - 1]:  # one patient at least stays for training
            size = len(rows_of[group])
            # Take a patient when that brings the count nearer to what is wanted.
            if abs(taken + size - wanted) < abs(taken - wanted):
                validation[rows_of[group]] = True
                taken += size
    return validation


def _wanted(rows: int, fraction: float) -> int:
    return min(max(int(rows * fraction + 0.5), 1), rows - 1)


def _draw(seed: int, group: str) -> bytes:
    return hashlib.sha256(f"swarm/split/v1\n{seed}\n{group}".encode()).digest()
