"""Per-FedAvg: a shared model that is good after one step on a hospital's own patients.

Room: learning. Fallah et al. 2020, https://arxiv.org/abs/2002.07948, Algorithm 1 in its first-order form
(FO): each local step takes the gradient at w − α ∇f(w; batch) on another batch and applies it to w.
What a hospital uses is the shared model after one such inner step on its own training rows.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swarm.learning.gradients import learnable, loss_gradients
from swarm.learning.local import LocalResult, LocalSite
from swarm.learning.parameters import flatten, load
from swarm.learning.rows import Vector, same_length
from swarm.learning.seeding import derive_seed
from swarm.learning.training import batch_loss, class_weights_of, train_site
from swarm.learning.training_state import Arrays


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PerFedAvg:
    """``inner_rate``: α, of the one step by which each hospital adapts; larger trusts it more."""

    inner_rate: float
    state_vectors: int = 1
    is_mean_only: bool = False

    def update_length(self, d: int) -> int:
        """Return d: parameters."""
        return d

    def begin(self, parameters: Vector) -> Vector:
        """Return them."""
        return parameters

    def around(self, parameters: Vector) -> Vector:
        """Return the state of a beginning."""
        return self.begin(parameters)

    def parameters(self, state: Vector) -> Vector:
        """Return them: the model before any hospital adapts it."""
        return state

    def reference(self, state: Vector) -> Vector:
        """Return the round's parameters."""
        return state

    def examine(self, update: Vector) -> None:
        """Any parameters could be a site's."""

    def step(self, state: Vector, merged: Vector) -> Vector:
        """Return the mean."""
        return same_length(state, merged)

    def train(self, site: LocalSite, state: Vector, memory: Arrays) -> LocalResult:
        """Take the local steps along gradients at adapted points. Remembers nothing."""
        load(site.module, state, site.layout)
        weights = class_weights_of(site)
        result = train_site(site, lambda step: self._look_ahead(site, step, weights))
        return LocalResult(
            update=result.parameters,
            steps=result.steps,
            samples=result.samples,
            loss_before=result.loss_before,
            loss_after=result.loss_after,
            memory=memory,
        )

    def model_for(self, site: LocalSite, state: Vector) -> Vector:
        """Return the model after one inner step along the gradient of all the site's training rows."""
        load(site.module, state, site.layout)
        loss_gradients(site.module, site.batches, site.head, class_weights_of(site))
        with torch.no_grad():
            for parameter in learnable(site).values():
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad, alpha=self.inner_rate)
        site.module.zero_grad()
        return flatten(site.module, site.layout)

    def _look_ahead(self, site: LocalSite, step: int, weights: Tensor | None) -> None:
        """Replace the gradients at w by those at w − α · gradient, on a batch of their own."""
        rows = second_batch(site, step)
        with _moved(site, self.inner_rate):
            site.module.zero_grad()
            batch_loss(site.module, site.batches, rows, site.head, weights).backward()  # type: ignore[no-untyped-call]


@contextmanager
def _moved(site: LocalSite, rate: float) -> Iterator[None]:
    """Inside the block the parameters are one step along their gradients; after it as before."""
    parameters = learnable(site).values()
    before = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=rate)
    yield
    with torch.no_grad():
        for parameter, old in zip(parameters, before, strict=True):
            parameter.copy_(old)


def second_batch(site: LocalSite, step: int) -> NDArray[np.int64]:
    """Rows (b,) of the outer gradient: they follow from the seed and the step, so a restart agrees."""
    rows = len(site.batches)
    generator = np.random.Generator(np.random.PCG64(derive_seed("outer batch", site.seed, step)))
    chosen = generator.permutation(rows)[: max(min(site.training.batch_size, rows), 1)]
    return np.sort(chosen)
