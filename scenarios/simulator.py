"""The simulator by its short name: one calm swarm. What can go wrong is in scenarios/simulation/."""

from scenarios.simulation.swarm import (
    EPOCH_MS,
    LINGER_S,
    SYNC_INTERVAL_S,
    TRAIN_S,
    VIRTUAL_S_MAX,
    Faults,
    Outcome,
    SimulatedSite,
    Swarm,
    identity_of,
    simulate,
)
from scenarios.simulation.swarm import Silent as _Silent

__all__ = [
    "EPOCH_MS",
    "LINGER_S",
    "SYNC_INTERVAL_S",
    "TRAIN_S",
    "VIRTUAL_S_MAX",
    "Faults",
    "Outcome",
    "SimulatedSite",
    "Swarm",
    "_Silent",
    "identity_of",
    "simulate",
]
