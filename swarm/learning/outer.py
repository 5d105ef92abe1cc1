"""Outer optimisers: what becomes of the agreed mean before the next round starts from it.

Room: learning. Every member computes the same step on the agreed mean, so there is no server and no
state that one could lose: moments travel inside the result and lie under its agreed digest.
Law: element by element in float64, square roots and divisions only as IEEE 754 defines them, rounded
once to float32: the same bits on every machine.

The mean of the members' parameters minus the base is the round's pseudo-gradient (negated). With rate 1
and no momentum every one of them is FedAvg. Reddi et al. 2021, https://arxiv.org/abs/2003.00295
(FedAdagrad, FedAdam, FedYogi; no bias correction, as there); Douillard et al. 2023,
https://arxiv.org/abs/2311.08105 (DiLoCo: Nesterov momentum after many local steps).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from swarm.learning.rows import Block, Vector, blocks

NESTEROV_RATE: Final = 0.7
ADAPTIVE_RATE: Final = 0.1
Step: TypeAlias = tuple[Block, tuple[Block, ...]]
"""(change of the parameters, new moments) of one block."""


class OuterOptimiser(Protocol):
    """One step from (base, mean, moments) to (parameters, moments); every vector is (d,) float32."""

    @property
    def moments(self) -> int:
        """How many vectors it remembers; they start as zeros."""

    def step(self, change: Block, moments: Sequence[Block]) -> Step:
        """Return what to add to the base and the new moments, for one block of coordinates.

        change: mean − base, (b,) float64. moments: as the last step left them, (b,) float64 each.
        """


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Averaging:
    """FedAvg: the mean itself."""

    moments: int = 0

    def step(self, change: Block, _moments: Sequence[Block]) -> Step:  # noqa: D102 - the Protocol says it
        return change, ()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Nesterov:
    """DiLoCo's outer step: m ← momentum·m + change; add rate·(change + momentum·m)."""

    rate: float = NESTEROV_RATE
    momentum: float = 0.9
    moments: int = 1

    def step(self, change: Block, moments: Sequence[Block]) -> Step:  # noqa: D102
        velocity = self.momentum * moments[0] + change
        return self.rate * (change + self.momentum * velocity), (velocity,)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive:
    """FedAdam, FedYogi, FedAdagrad: a step for each coordinate by how much it has moved before.

    kind: which second moment. tau: the adaptivity; larger is nearer to plain momentum.
    """

    kind: str
    rate: float = ADAPTIVE_RATE
    beta_1: float = 0.9
    beta_2: float = 0.99
    tau: float = 1e-3
    moments: int = 2

    def step(self, change: Block, moments: Sequence[Block]) -> Step:  # noqa: D102
        square = change * change
        first = self.beta_1 * moments[0] + (1 - self.beta_1) * change
        second = self._second(moments[1], square)
        return self.rate * (first / (np.sqrt(second) + self.tau)), (first, second)

    def _second(self, before: Block, square: Block) -> Block:
        if self.kind == "adagrad":
            return before + square
        if self.kind == "yogi":
            return before - (1 - self.beta_2) * square * np.sign(before - square)
        return self.beta_2 * before + (1 - self.beta_2) * square


OUTER: Final = ("fedavg", "diloco", "fedadam", "fedyogi", "fedadagrad")
"""Names for a charter."""


def outer_of(name: str, *, rate: float | None = None) -> OuterOptimiser:
    """Return the optimiser that a charter names; ValueError lists those there are.

    rate: the outer learning rate; lower it when the agreed model oscillates. None: the paper's usual.
    """
    match name:
        case "fedavg":
            return Averaging()
        case "diloco":
            return Nesterov(rate=NESTEROV_RATE if rate is None else rate)
        case "fedadam" | "fedyogi" | "fedadagrad":
            kind = name.removeprefix("fed")
            return Adaptive(kind=kind, rate=ADAPTIVE_RATE if rate is None else rate)
        case _:
            raise ValueError(f'no outer optimiser "{name}"; there are {", ".join(OUTER)}')


def outer_step(optimiser: OuterOptimiser, base: Vector, mean: Vector) -> Vector:
    """Return the new state from the round's base state and the members' mean.

    base: ((1 + moments)·d,) float32, parameters then moments, as the last result holds them.
    mean: (d,) float32, the members' merged parameters. Returns a state like ``base``.
    Raises ValueError when the lengths do not fit or the step is not finite.
    """
    count = 1 + optimiser.moments
    if base.size != count * mean.size:
        raise ValueError(f"a state of {base.size} values is none for {mean.size} parameters")
    before = base.reshape(count, -1)
    after: NDArray[np.float32] = np.empty_like(before)
    for piece in blocks(mean.size):
        wide = before[:, piece].astype(np.float64)
        change, moments = optimiser.step(mean[piece] - wide[0], list(wide[1:]))
        after[0, piece] = wide[0] + change
        for at, moment in enumerate(moments, start=1):
            after[at, piece] = moment
    if not np.isfinite(after).all():
        raise ValueError("the outer step is not finite: lower its rate")
    return after.reshape(-1)
