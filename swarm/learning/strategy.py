"""Strategies: what a site trains, what it sends, and what the merged updates become.

Room: learning. docs/learning.md draws all of them. Vectors are float32; d is the length of a model's
shared vector (parameters.Layout). Law: `step` is pure, element by element in float64 and rounded once, so
every member and every auditor computes the same bits; all that a strategy needs from one round to the
next is in the state, which lies under the agreed digest, or in the site's own memory.
"""

from typing import Final, Protocol

from ledger.charter import Charter
from swarm.learning.local import LocalResult, LocalSite
from swarm.learning.outer import outer_of
from swarm.learning.rows import Vector
from swarm.learning.strategies.averaging import FedAvg
from swarm.learning.training_state import Arrays

__all__ = ["LocalResult", "LocalSite", "Strategy", "strategy_of"]

_OUTER: Final = ("diloco", "fedadam", "fedyogi", "fedadagrad")


class Strategy(Protocol):
    """A family of federated learning; exam: `swarm.conformance.check_strategy`."""

    @property
    def state_vectors(self) -> int:
        """s: how many vectors of d values the state holds; the first is the parameters'."""

    @property
    def is_mean_only(self) -> bool:
        """Whether updates can only be averaged: no robust rule, no lossy codec."""

    def update_length(self, d: int) -> int:
        """Return u: how many values a site sends."""

    def begin(self, parameters: Vector) -> Vector:
        """Return the state before the first round: (d,) → (s·d,)."""

    def around(self, parameters: Vector) -> Vector:
        """Return a state whose model is exactly this one, for whoever has but a released model."""

    def parameters(self, state: Vector) -> Vector:
        """Return the model that is released: (s·d,) → (d,)."""

    def reference(self, state: Vector) -> Vector:
        """Return what an update is measured from: (s·d,) → (u,)."""

    def examine(self, update: Vector) -> None:
        """Raise ValueError for a vector (u,) that no site's training gives; it is finite."""

    def step(self, state: Vector, merged: Vector) -> Vector:
        """Return the next state from the round's and the merged updates (u,): (s·d,).

        Raises ValueError when the lengths do not fit or the result is not finite.
        """

    def train(self, site: LocalSite, state: Vector, memory: Arrays) -> LocalResult:
        """Take the charter's local steps from the round's state; the update is (u,).

        memory: what this site's last training left, empty at first; arrays are never changed in
        place. The same arguments give the same bits. Raises what `training.train_site` does.
        """

    def model_for(self, site: LocalSite, state: Vector) -> Vector:
        """Return the model that this site uses and measures, (d,); may change the site's module."""


def strategy_of(charter: Charter) -> Strategy:
    """Return the strategy that a charter names."""
    policy, training = charter.aggregation, charter.training
    match policy.strategy:
        case "fedavg":
            return FedAvg()
        case "fedprox":
            return FedAvg(proximal_mu=training.proximal_mu)
        case "scaffold":
            from swarm.learning.strategies.scaffold import Scaffold

            return Scaffold()
        case "per_fedavg":
            from swarm.learning.strategies.per_fedavg import PerFedAvg

            return PerFedAvg(inner_rate=charter.personalisation.learning_rate)
        case "ifca":
            from swarm.learning.strategies.ifca import Ifca

            return Ifca(clusters=policy.clusters, seed=charter.seed)
        case name if name in _OUTER:
            return FedAvg(outer=outer_of(name, rate=policy.server_rate or None))
        case name:
            raise ValueError(f'no strategy "{name}"')
