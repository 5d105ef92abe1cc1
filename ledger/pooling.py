"""One number from many members' metrics: weighted by patients, with a 95 % interval. Room: ledger.

What each member measured on its own patients is all that there is, so a pooled AUC is the mean of
AUCs within hospitals, not the AUC of one long list. Spec: docs/ledger.md §13.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import sqrt

from .bodies import GroupValue, MetricValue

PooledMetrics = Mapping[int, MetricValue]
"""Metric → its mean over the members; `count` is all their patients."""


def pool(members: Iterable[Iterable[MetricValue | GroupValue]]) -> dict[int, MetricValue]:
    """Average each metric over the members that have it, weighted by the patients behind it.

    Hospitals have different patients, so half-widths of the intervals add in squares.
    """
    by_metric: dict[int, list[MetricValue | GroupValue]] = {}
    for values in members:
        for one in values:
            if one.count:
                by_metric.setdefault(one.metric, []).append(one)
    return {metric: _mean(metric, by_metric[metric]) for metric in sorted(by_metric)}


def pool_groups(
    members: Iterable[Iterable[GroupValue]],
) -> dict[tuple[int, int], dict[int, MetricValue]]:
    """Do the same for each (subgroup, part) that any member published."""
    by_part: dict[tuple[int, int], list[list[GroupValue]]] = {}
    for values in members:
        own: dict[tuple[int, int], list[GroupValue]] = {}
        for one in values:
            own.setdefault((one.subgroup, one.part), []).append(one)
        for part, found in own.items():
            by_part.setdefault(part, []).append(found)
    return {part: pool(by_part[part]) for part in sorted(by_part)}


def _mean(metric: int, values: list[MetricValue | GroupValue]) -> MetricValue:
    count = sum(one.count for one in values)
    mean = sum(one.micro * one.count for one in values) / count
    below = sqrt(sum(((one.micro - one.low_micro) * one.count) ** 2 for one in values)) / count
    above = sqrt(sum(((one.high_micro - one.micro) * one.count) ** 2 for one in values)) / count
    return MetricValue(
        metric=metric,
        micro=round(mean),
        low_micro=max(0, round(mean - below)),
        high_micro=round(mean + above),
        count=count,
    )
