"""IFCA: several models; each site trains the one that suits it best, and so the sites form clusters.

Room: learning. Ghosh et al. 2020, https://arxiv.org/abs/2006.04088, with model averaging. State: k models,
(k·d,). A site takes the model with the least loss on its training rows (of equals the first) and sends
k slots of d values, its change in its model's slot and zeros in the others, and then k memberships, 1 for
its model: (k·d + k,). So one weighted mean of all updates holds each cluster's summed changes and its
share of the weight, and their quotient is the weighted mean within the cluster. A cluster that nobody
chose stays as it was. Costs k times the bytes of one model.
"""

from dataclasses import dataclass
from typing import Final, final

import numpy as np

from swarm.learning.local import LocalResult, LocalSite
from swarm.learning.parameters import load
from swarm.learning.rows import Vector
from swarm.learning.seeding import derive_seed
from swarm.learning.training import mean_loss, train_site
from swarm.learning.training_state import Arrays

SPREAD: Final = 0.1
"""Starting models differ from the charter's by up to this in each value: features have deviation 1."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Ifca:
    """``clusters``: k ≥ 2, how many models. seed: of their different starts, the charter's."""

    clusters: int
    seed: int
    is_mean_only: bool = True

    @property
    def state_vectors(self) -> int:
        """Return k."""
        return self.clusters

    def update_length(self, d: int) -> int:
        """Return k·d + k."""
        return self.clusters * (d + 1)

    def begin(self, parameters: Vector) -> Vector:
        """(d,) → (k·d,): pairs of models on opposite sides of the charter's starting model.

        Opposite, so that no site can find all of them equally bad in the same direction. PCG64's raw
        bits and exact arithmetic: the same on every machine.
        """
        models = []
        for cluster in range(self.clusters):
            bits = np.random.PCG64(derive_seed("cluster", self.seed, cluster // 2))
            unit = (bits.random_raw(parameters.size) >> np.uint64(11)) * 2.0**-53
            side = SPREAD if cluster % 2 == 0 else -SPREAD
            models.append((parameters + side * (2 * unit - 1)).astype(np.float32))
        return np.concatenate(models)

    def around(self, parameters: Vector) -> Vector:
        """Return k times the same model."""
        return np.tile(parameters, self.clusters)

    def parameters(self, state: Vector) -> Vector:
        """Return the first model, (d,): a member takes its own by ``model_for``."""
        first: Vector = self._models(state)[0]
        return first

    def reference(self, state: Vector) -> Vector:
        """Return zeros, (k·d + k,): an update is a change already."""
        return np.zeros(state.size + self.clusters, dtype=np.float32)

    def examine(self, update: Vector) -> None:
        """Refuse all but a change in one slot and a membership of 1 there.

        Else one liar could weigh a thousand times, or leave a cluster a negative share to divide by.
        """
        members = update[-self.clusters :]
        slots = update[: -self.clusters].reshape(self.clusters, -1)
        chosen = int(members.argmax())
        others = [cluster for cluster in range(self.clusters) if cluster != chosen]
        if members[chosen] != 1 or members[others].any() or slots[others].any():
            raise ValueError(
                "an update of one cluster's model changes that alone, with membership 1"
            )

    def step(self, state: Vector, merged: Vector) -> Vector:
        """Move each model by its cluster's weighted mean change; float64, rounded once."""
        if merged.size != state.size + self.clusters:
            raise ValueError(f"an update of {merged.size} values is none for {state.size}")
        shares = merged[state.size :].astype(np.float64)
        if (shares < 0).any():
            raise ValueError("a cluster has a negative share")
        before = self._models(state)
        after = before.copy()
        for cluster, changes in enumerate(merged[: state.size].reshape(before.shape)):
            if shares[cluster]:
                after[cluster] = before[cluster] + changes.astype(np.float64) / shares[cluster]
        if not np.isfinite(after).all():
            raise ValueError("a cluster's model is not finite")
        return after.reshape(-1)

    def train(self, site: LocalSite, state: Vector, memory: Arrays) -> LocalResult:
        """Take the local steps from the site's best model. Remembers nothing."""
        chosen = self.choose(site, state)
        models = self._models(state)
        load(site.module, models[chosen], site.layout)
        result = train_site(site)
        update = self.reference(state)
        slots = update[: state.size].reshape(models.shape)
        np.subtract(result.parameters, models[chosen], out=slots[chosen])
        update[state.size + chosen] = 1.0
        return LocalResult(
            update=update,
            steps=result.steps,
            samples=result.samples,
            loss_before=result.loss_before,
            loss_after=result.loss_after,
            memory=memory,
        )

    def model_for(self, site: LocalSite, state: Vector) -> Vector:
        """Return the model with the least loss on the site's training rows, (d,)."""
        chosen: Vector = self._models(state)[self.choose(site, state)]
        return chosen

    def choose(self, site: LocalSite, state: Vector) -> int:
        """Return which model that is, from 0; a loss that is no number is the worst."""
        losses = []
        for model in self._models(state):
            load(site.module, model, site.layout)
            losses.append(mean_loss(site.module, site.batches, site.head))
        return int(np.argmin(np.nan_to_num(losses, nan=np.inf, posinf=np.inf)))

    def _models(self, state: Vector) -> Vector:
        if state.size % self.clusters:
            raise ValueError(f"a state of {state.size} values is none of {self.clusters} models")
        return state.reshape(self.clusters, -1)
