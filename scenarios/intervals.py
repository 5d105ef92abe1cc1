"""Means over seeds with 95 % intervals: Student's t, seeds taken as independent repetitions.

Room: scenarios. Law: pure. One seed has no interval: low and high are then the value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import Final

METHOD: Final = "95 % interval of the mean over seeds, Student's t"
QUANTILES: Final = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
)  # fmt: skip
"""97.5 % points of Student's t with 1, 2, … degrees of freedom; beyond, the next one at most 5 % too wide."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over seeds. values: one a seed."""

    value: float
    low: float
    high: float
    values: tuple[float, ...]


def over_seeds(values: Sequence[float | None]) -> Interval | None:
    """Mean and interval of what is defined in every seed; None if it is not."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    mean = fmean(known)
    half = 0.0
    if len(known) > 1:
        quantile = QUANTILES[min(len(known) - 1, len(QUANTILES)) - 1]
        half = quantile * stdev(known) / sqrt(len(known))
    return Interval(value=mean, low=mean - half, high=mean + half, values=tuple(known))
