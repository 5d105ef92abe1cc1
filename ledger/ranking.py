"""The arithmetic of reputation. Room: ledger. Spec: docs/reputation.md §4.

Integers only, each function the same for any order of its input: node and auditor get the same
number. ``//`` rounds towards minus infinity, also below zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

MICRO: Final = 1_000_000


def ranks_micro(scores: Sequence[tuple[int, bytes]]) -> list[int]:
    """Return each score's rank in [0, 1,000,000], in the order of ``scores``.

    scores: (loss change, contribution id), ids all different, at least two.
    Equal changes rank in the order of their ids. Raises ValueError.
    """
    last = len(scores) - 1
    if last < 1 or len({id_ for _, id_ in scores}) <= last:
        raise ValueError("ranks need at least two scores, of different contributions")
    place = {id_: at for at, (_, id_) in enumerate(sorted(scores))}
    return [place[id_] * MICRO // last for _, id_ in scores]


def lower_weighted_median(votes: Sequence[tuple[int, int]]) -> int:
    """Return the smallest rank at or below which half of the weight lies.

    votes: (rank, weight), weights above 0, at least one. Raises ValueError.
    """
    if not votes or any(weight <= 0 for _, weight in votes):
        raise ValueError("a median needs votes, and every weight above 0")
    ordered = sorted(votes)
    total = sum(weight for _, weight in ordered)
    reached = accumulate(weight for _, weight in ordered)
    return next(
        rank for (rank, _), weight in zip(ordered, reached, strict=True) if 2 * weight >= total
    )


def score_of(votes: Sequence[tuple[int, int]], *, tolerated: int) -> int:
    """Return c: the lower weighted median, kept between what honest evaluators must have said.

    votes: (rank, weight), at least 2f + 1 with f = ``tolerated``. With at most f liars among
    them, the (f+1)-th lowest and the (f+1)-th highest rank lie between two honest ones, whatever
    the weights; the median is clamped to these. Raises ValueError.
    """
    if tolerated < 0 or len(votes) < 2 * tolerated + 1:
        raise ValueError(f"need at least {2 * tolerated + 1} votes, got {len(votes)}")
    ranks = sorted(rank for rank, _ in votes)
    low, high = ranks[tolerated], ranks[len(ranks) - 1 - tolerated]
    return min(max(lower_weighted_median(votes), low), high)


def agreement_micro(distance: int, count: int, *, slope: int, unknown: int) -> int:
    """Return how closely an evaluator's ranks followed the medians, in [0, 1,000,000].

    distance: sum of |rank - median| over ``count`` ranks. ``unknown`` is for count 0.
    """
    if count == 0:
        return unknown
    return max(0, MICRO - slope * distance // count)


def weight_micro(agreement: int, *, floor: int) -> int:
    """Return an evaluator's weight, from ``floor`` (agreement 0) to 1,000,000."""
    return floor + agreement * (MICRO - floor) // MICRO


def step_towards(value: int, score: int, *, divisor: int) -> int:
    """Return how far ``value`` moves towards ``score``: (score - value) // divisor.

    Rounded down: a value above moves at least 1 and arrives, one below may stop up to
    divisor - 1 short. It never overshoots.
    """
    return (score - value) // divisor
