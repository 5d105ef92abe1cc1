"""Guided truncated Monte-Carlo Shapley values (GTG-Shapley): what each contribution is worth, estimated.

Room: scoring. Law: the permutations follow from a seed (PCG64's raw bits), so whoever has the same payloads
and the same ledger gets the same estimate. It is an estimate: standard errors come with it.
Liu, Chen, Yu, Liu, Cui 2022, https://doi.org/10.1145/3501811
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from swarm.learning.gram import gram
from swarm.learning.rows import Vector

BETWEEN: Final = 1e-4
"""A round whose whole worth is less than this part of all there is to gain is skipped."""
WITHIN: Final = 0.001
"""A permutation ends where twice in a row less than this part of the round's worth is missing: once may be
a crossing, for worth can fall again."""
CONVERGED: Final = 0.02
"""Done when ten batches have moved the values by less than this, on average, of the largest of them."""
BATCHES_LOOKED_BACK: Final = 10
BATCHES_MIN: Final = 20
BATCHES_MAX: Final = 400

Walk = Callable[[Sequence[int]], Iterator[float]]
"""An order of players → the worth of its first one, first two, … all."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One round's values in the order of players; errors: their standard errors.

    batches: of as many permutations as there are players, each first in one. converged: False where
    BATCHES_MAX ended it. whole: the worth of all together, which exact values add up to.
    """

    values: tuple[float, ...]
    errors: tuple[float, ...]
    whole: float
    batches: int
    converged: bool


def gtg_shapley(players: int, walk: Walk, *, seed: bytes, scale: float) -> Estimate:
    """Estimate the Shapley value of each player of a game in which nobody is worth 0.

    scale: all that there is to gain, in the unit of worth (BETWEEN is a part of it).
    """
    whole = list(walk(range(players)))[-1]
    if abs(whole) < BETWEEN * scale:
        nothing = (0.0,) * players
        return Estimate(values=nothing, errors=nothing, whole=whole, batches=0, converged=True)
    bits = np.random.PCG64(int.from_bytes(hashlib.sha256(seed).digest(), "big"))
    means: list[np.ndarray] = []
    running: list[np.ndarray] = []
    total = np.zeros(players)
    converged = False
    while len(means) < BATCHES_MAX and not converged:
        marginal = np.zeros(players)
        for first in range(players):
            drawn = np.argsort(bits.random_raw(players), kind="stable")
            order = [first, *(int(one) for one in drawn if one != first)]
            _add_marginals(marginal, order, walk, whole)
        means.append(marginal / players)
        total += means[-1]
        running.append(total / len(means))
        converged = len(means) >= BATCHES_MIN and _has_settled(running)
    errors = np.std(np.stack(means), axis=0, ddof=1) / math.sqrt(len(means))
    return Estimate(
        values=tuple(map(float, running[-1])), errors=tuple(map(float, errors)),
        whole=whole, batches=len(means), converged=converged,
    )  # fmt: skip


def _add_marginals(marginal: np.ndarray, order: Sequence[int], walk: Walk, whole: float) -> None:
    before, was_near = 0.0, False
    for player, worth in zip(order, walk(order), strict=False):
        marginal[player] += worth - before
        before = worth
        is_near = abs(whole - worth) < WITHIN * abs(whole)
        if is_near and was_near:
            return
        was_near = is_near


def _has_settled(running: Sequence[np.ndarray]) -> bool:
    now, then = running[-1], running[-1 - BATCHES_LOOKED_BACK]
    return bool(np.abs(now - then).mean() < CONVERGED * np.abs(now).max())


def progress(
    rows: Sequence[Vector], weights: Sequence[int], base: Vector, goal: Vector
) -> tuple[Walk, float]:
    """Return the game of one round, and how far it was from the goal: |base − goal|².

    The worth of some contributions is by how much their weighted mean lies nearer to the goal than the
    base does, in squared distance. rows: (n, d) updates; goal: (d,), the model that the federation ended
    with. One pass over the parameters (exact products, gram.py); then a permutation costs n² steps.
    """
    table = gram([*rows, goal], base)
    far = table[-1][-1]

    def walk(order: Sequence[int]) -> Iterator[float]:
        total, square, towards = 0, 0.0, 0.0
        inside: list[int] = []
        for one in order:
            cross = math.fsum(weights[other] * table[one][other] for other in inside)
            square += weights[one] * (weights[one] * table[one][one] + 2 * cross)
            towards += weights[one] * table[one][-1]
            total += weights[one]
            inside.append(one)
            yield (2 * towards / total - square / total**2) if total else 0.0

    return walk, far
