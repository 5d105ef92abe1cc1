"""FedAvg, FedProx, and outer optimisers over either. Room: learning.

A site trains from the round's parameters and sends what it came to; the mean is the next round's model,
or the outer optimiser's step along it (outer.py).
McMahan et al. 2017, https://arxiv.org/abs/1602.05629 (FedAvg)
Li et al. 2020, https://arxiv.org/abs/1812.06127 (FedProx)
"""

from dataclasses import dataclass
from typing import Final, final

import numpy as np

from swarm.learning.local import LocalResult, LocalSite
from swarm.learning.outer import Averaging, OuterOptimiser, outer_step
from swarm.learning.rows import Vector, same_length
from swarm.learning.training_state import Arrays

NO_OUTER: Final = Averaging()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FedAvg:
    """Local steps, then the mean; with ``outer`` a step along it, whose moments are in the state.

    proximal_mu: how strongly every local step is pulled back to the round's model (FedProx): the
    gradient of mu/2 · ‖w − w_round‖² is added. 0: not at all.
    """

    outer: OuterOptimiser = NO_OUTER
    proximal_mu: float = 0.0
    is_mean_only: bool = False

    @property
    def state_vectors(self) -> int:
        """Parameters, and what the outer optimiser remembers."""
        return 1 + self.outer.moments

    def update_length(self, d: int) -> int:
        """Return d: parameters."""
        return d

    def begin(self, parameters: Vector) -> Vector:
        """(d,) → (s·d,): no moments yet."""
        if self.state_vectors == 1:
            return parameters
        rest = np.zeros((self.state_vectors - 1) * parameters.size, dtype=np.float32)
        return np.concatenate([parameters, rest])

    def around(self, parameters: Vector) -> Vector:
        """Return the state of a beginning."""
        return self.begin(parameters)

    def parameters(self, state: Vector) -> Vector:
        """(s·d,) → (d,), a view."""
        return state[: state.size // self.state_vectors]

    def reference(self, state: Vector) -> Vector:
        """Return the round's parameters, (d,)."""
        return self.parameters(state)

    def examine(self, update: Vector) -> None:
        """Any parameters could be a site's."""

    def step(self, state: Vector, merged: Vector) -> Vector:
        """Return the state after the outer step; in FedAvg the mean as it is, bit for bit."""
        if isinstance(self.outer, Averaging):
            return same_length(state, merged)
        return outer_step(self.outer, state, merged)

    def train(self, site: LocalSite, state: Vector, memory: Arrays) -> LocalResult:
        """Take the local steps from the round's parameters. Remembers nothing."""
        from swarm.learning.gradients import pull_towards
        from swarm.learning.parameters import load
        from swarm.learning.training import train_site

        start = self.parameters(state)
        load(site.module, start, site.layout)
        pull = pull_towards(site, start, self.proximal_mu) if self.proximal_mu else None
        result = train_site(site, pull)
        return LocalResult(
            update=result.parameters,
            steps=result.steps,
            samples=result.samples,
            loss_before=result.loss_before,
            loss_after=result.loss_after,
            memory=memory,
        )

    def model_for(self, site: LocalSite, state: Vector) -> Vector:  # noqa: ARG002 - the Protocol's
        """Return the model that everybody uses."""
        return self.parameters(state)
