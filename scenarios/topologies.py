"""How fast each graph of `gossip` mode mixes: spectral gap, expected rounds, payloads moved.

Room: scenarios. Plain linear algebra over the very weights that nodes use (ledger/topology.py).
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ledger.topology import MICRO, TOPOLOGIES, Topology

PERIOD: Final = 24
"""Rounds over which graphs that change are averaged; what takes longer is extrapolated."""
EXACT: Final = 1e-5
"""Weights are whole millionths: differences that are smaller are none."""
TARGET: Final = 0.01
"""Members have met when they differ by this part of what they differed by at first."""
NET: Final = bytes(32)
Matrix = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """One graph at one size."""

    topology: str
    members: int
    payloads: float
    """Pulled by each member in each round, on average."""
    spectral_gap: float
    """1 − the factor by which differences shrink each round; 1: gone after one."""
    rounds: float | None
    """Expected until members differ by 1 % of what they differed by; None: never."""

    def to_json(self) -> dict[str, Any]:
        """As the command prints it."""
        return asdict(self)


def mixing_of(name: str, members: int, *, degree: int = 4) -> Mixing:
    """Measure one graph. Raises ValueError for a name that is none, or the charter's own edges."""
    if name not in TOPOLOGIES or name == "edges":
        drawn = ", ".join(one for one in TOPOLOGIES if one != "edges")
        raise ValueError(f'no topology "{name}"; there are {drawn}')
    topology = Topology(name=name, net=NET, degree=degree)
    product = np.eye(members)
    mean = np.full((members, members), 1 / members)
    pulled, left, met, turns = 0, 1.0, None, 0
    while turns < PERIOD and left > EXACT:
        product = weights(topology, members, turns) @ product
        pulled += sum(len(topology.senders(range(members), at, turns)) for at in range(members))
        left = max(float(np.linalg.norm(product - mean, ord=2)), EXACT)
        turns += 1
        if met is None and left <= TARGET:
            met = float(turns)
    factor = left ** (1 / turns)
    if met is None and factor < 1 - EXACT:
        met = round(math.log(TARGET) / math.log(factor), 1)
    return Mixing(
        topology=name,
        members=members,
        payloads=round(pulled / members / turns, 2),
        spectral_gap=round(1 - factor, 4),
        rounds=met,
    )


def weights(topology: Topology, members: int, round_: int) -> Matrix:
    """Row i: what member i's average is made of, (n, n)."""
    table = np.zeros((members, members))
    for author in range(members):
        for other, weight in topology.mixing_micro(range(members), author, round_):
            table[author, other] = weight / MICRO
    return table
