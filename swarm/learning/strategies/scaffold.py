"""SCAFFOLD: local steps corrected for the direction in which each site drifts.

Room: learning. Karimireddy et al. 2020, https://arxiv.org/abs/1910.06378, Algorithm 1 with option II and
global step 1. State: parameters x and control variate c, (2 d,). A site remembers its own variate c_i,
takes K steps y ← y − η (g(y) − c_i + c) from x, and sends y and how its variate changed,
c_i⁺ − c_i = −c + (x − y) / (K η), as (y, c + change).

Where members are absent, c moves as if they had changed like those present (the paper divides by all
members, which a merge by shares cannot), so with many absences it is not exactly the mean of the c_i.
"""

from dataclasses import dataclass
from typing import Final, final

import numpy as np

from swarm.learning.gradients import add_to_gradients, learnable, tensors_of
from swarm.learning.local import LocalResult, LocalSite
from swarm.learning.parameters import load
from swarm.learning.rows import Vector, same_length
from swarm.learning.training import train_site
from swarm.learning.training_state import Arrays, take

CONTROL: Final = "control"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Scaffold:
    """Needs plain SGD: only there is (x − y) / (K η) the mean gradient along the way."""

    state_vectors: int = 2
    is_mean_only: bool = False

    def update_length(self, d: int) -> int:
        """Return 2 d: parameters and control variate."""
        return 2 * d

    def begin(self, parameters: Vector) -> Vector:
        """(d,) → (2 d,): no control yet."""
        return np.concatenate([parameters, np.zeros_like(parameters)])

    def around(self, parameters: Vector) -> Vector:
        """Return the state of a beginning."""
        return self.begin(parameters)

    def parameters(self, state: Vector) -> Vector:
        """(2 d,) → (d,), a view."""
        return state[: state.size // 2]

    def reference(self, state: Vector) -> Vector:
        """Return all of the state: an update is a changed one."""
        return state

    def examine(self, update: Vector) -> None:
        """Any parameters could be a site's."""

    def step(self, state: Vector, merged: Vector) -> Vector:
        """Return the mean: both parts are averaged. ValueError unless it is as long as the state."""
        return same_length(state, merged)

    def train(self, site: LocalSite, state: Vector, memory: Arrays) -> LocalResult:
        """Take the corrected steps; the memory is this site's control variate, (d,)."""
        start, common = np.split(state, 2)
        own = np.zeros_like(common)
        if CONTROL in memory:
            own = take(memory, CONTROL, shape=common.shape, dtype=common.dtype)
        load(site.module, start, site.layout)
        drift = tensors_of(site, common - own)
        result = train_site(site, lambda _step: add_to_gradients(site, drift))
        gradient = (start - result.parameters) / np.float32(
            result.steps * site.training.learning_rate
        )
        change = np.where(_is_learnable(site), gradient - common, np.float32(0))
        return LocalResult(
            update=np.concatenate([result.parameters, common + change]),
            steps=result.steps,
            samples=result.samples,
            loss_before=result.loss_before,
            loss_after=result.loss_after,
            memory={**memory, CONTROL: own + change},
        )

    def model_for(self, site: LocalSite, state: Vector) -> Vector:  # noqa: ARG002 - the Protocol's
        """Return the model that everybody uses."""
        return self.parameters(state)


def _is_learnable(site: LocalSite) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which values of the vector have gradients, (d,): a running mean is averaged, not corrected."""
    names = learnable(site)
    sizes = [int(np.prod(shape)) for shape in site.layout.shapes]
    return np.repeat([name in names for name in site.layout.names], sizes)
