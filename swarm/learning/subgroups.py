"""How good a model is on parts of a site's validation patients: men, over 80, one kind of stroke.

Room: learning. Law: nothing is published of a part that is small (fewer patients, cases or non-cases
than the charter's group_count_min), nor of so many parts that what is left over, which anybody can
compute from the total, is small. Two-way tables are not published, so none can be subtracted;
columns that say nearly the same can still tell on each other: choose them with that in mind.
Spec: docs/ledger.md §5.3.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ledger.charter import Schema, Subgroup
from ledger.record import GroupValue
from ledger.subgroups import part_count
from swarm.learning import metrics
from swarm.learning.dataset import Table
from swarm.learning.seeding import derive_seed

BOOTSTRAP = 100  # resamples for each part's intervals
NO_PART = -1


def evaluate_groups(
    schema: Schema,
    rows: Table,
    scores: NDArray[np.floating],
    *,
    group_count_min: int,
    seed: int,
) -> tuple[GroupValue, ...]:
    """Every metric of every part of the charter's subgroups that is large enough to be published.

    scores: the model's raw outputs for the rows, as `metrics.evaluate` takes them.
    """
    values = []
    for at, subgroup in enumerate(schema.subgroups):
        parts = parts_of(subgroup, rows)
        count = part_count(schema, subgroup)
        for part in published(parts, rows.labels, schema.head, count, group_count_min):
            inside = parts == part
            values += [
                GroupValue(
                    subgroup=at,
                    part=part,
                    metric=one.metric,
                    micro=one.micro,
                    low_micro=one.low_micro,
                    high_micro=one.high_micro,
                    count=one.count,
                )
                for one in metrics.evaluate(
                    scores[inside],
                    rows.labels[inside],
                    schema.head,
                    seed=derive_seed("subgroup", seed, at, part),
                    bootstrap=BOOTSTRAP,
                )
            ]
    return tuple(values)


def parts_of(subgroup: Subgroup, rows: Table) -> NDArray[np.int64]:
    """Which part each row is of (n,); NO_PART where the column is missing."""
    column = rows.columns[subgroup.column]
    known = ~np.isnan(column)
    found = np.full(len(column), NO_PART, dtype=np.int64)
    if subgroup.edges:
        found[known] = np.searchsorted(np.asarray(subgroup.edges), column[known], side="right")
    else:
        found[known] = column[known].astype(np.int64)
    return found


def published(
    parts: NDArray[np.int64],
    labels: NDArray[np.generic],
    head: str,
    count: int,
    group_count_min: int,
) -> tuple[int, ...]:
    """Which parts may be published: none small, and what is left over not small either.

    While the patients of all hidden parts together (those without a value among them) are small, the
    smallest part that is still shown is hidden too.
    """
    shown = [
        part
        for part in range(count)
        if (parts == part).any() and not _is_small(labels[parts == part], head, group_count_min)
    ]
    sizes = {part: int((parts == part).sum()) for part in shown}
    while shown:
        hidden = labels[~np.isin(parts, shown)]
        if not len(hidden) or not _is_small(hidden, head, group_count_min):
            break
        shown.remove(min(shown, key=lambda part: (sizes[part], part)))
    return tuple(shown)


def _is_small(labels: NDArray[np.generic], head: str, group_count_min: int) -> bool:
    """Too few patients, or too few of a class that occurs among them; with two classes, of either."""
    if len(labels) < group_count_min:
        return True
    if head == "regression":
        return False
    counts: Sequence[int] = np.unique(labels, return_counts=True)[1].tolist()
    if head == "binary" and len(counts) < 2:
        return True
    return min(counts) < group_count_min
