"""A whole swarm of which some accept no connection: the same rounds, the same model, in virtual time."""

import itertools
from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from ledger.charter import Charter
from ledger.store import Store
from node.blobs import BlobStore
from node.compute import Compute
from node.forwarding import ForwardingNetwork
from node.network import EventLog, Network
from node.network_memory import Conditions, MemoryHub
from node.sealed import Sealer
from node.service import Service
from scenarios.simulation.swarm import Calm, SimulatedSite, Swarm, heads_digest
from tests.simulated import swarm_of

ROUNDS = 2


@dataclass
class Forwarded:
    """Calm surroundings, but every network forwards, as that of `swarm-node run` does."""

    hub: MemoryHub
    directory: Path
    charter: Charter
    sites: list[SimulatedSite]
    networks: dict[int, ForwardingNetwork] = field(default_factory=dict)
    carried: dict[int, set[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.calm = Calm(self.hub, self.directory)

    def network(self, index: int) -> Network:
        members = self.charter.members
        self.networks[index] = ForwardingNetwork(
            self.hub.network(index),
            names={one.index: one.name for one in members},
            sealer=Sealer(
                own=index,
                network_seed=self.sites[index].identity.network_seed,
                keys={one.index: one.network_key for one in members},
                net=self.charter.net,
            ),
            log=self.calm.log(index),
            uniform=Random(index).random,
        )
        return self.networks[index]

    def inbox(self, index: int) -> Path | None:
        return self.calm.inbox(index)

    def files(self, index: int) -> AbstractContextManager[tuple[Store, BlobStore]]:
        return self.calm.files(index)

    def compute(self, index: int) -> Compute:
        return self.calm.compute(index)

    def disk(self, index: int) -> Compute:
        return self.calm.disk(index)

    def time_ms(self, index: int) -> int:
        return self.calm.time_ms(index)

    def log(self, index: int) -> EventLog:
        return self.calm.log(index)

    def started(self, index: int, service: Service) -> None:
        self.calm.started(index, service)

    def ended(self, index: int, error: BaseException) -> bool:
        return self.calm.ended(index, error)


@pytest.mark.parametrize(
    ("outbound_only", "duplicate"),
    [({3}, 0.0), ({2, 3}, 0.1), ({1, 2, 3}, 0.0)],
    ids=["one", "two, with copies", "three"],
)
def test_every_round_is_agreed_by_all_four(
    tmp_path: Path, outbound_only: Collection[int], duplicate: float
) -> None:
    charter, sites = swarm_of(4, rounds=ROUNDS)
    conditions = Conditions(duplicate=duplicate, delay_s=0.02, jitter_s=0.02)
    hub = MemoryHub(seed=5, conditions=conditions)

    async def none_accepts(swarm: Swarm) -> None:
        for a, b in itertools.permutations(sorted(outbound_only), 2):
            swarm.hub.block(a, b)

    around = Forwarded(hub, tmp_path, charter, sites)
    swarm = Swarm(charter, sites, tmp_path, hub, 5, around)
    swarm.run_to_end(none_accepts, virtual_s_max=1000)
    services = [swarm.services[index] for index in range(4)]
    assert not swarm.failures
    for service in services:
        agreed = [service.book.agreed(number) for number in range(1, ROUNDS + 1)]
        assert [len(one.proposal.inputs) for one in agreed if one is not None] == [4] * ROUNDS
    assert len({service.machine.model for service in services}) == 1
    assert len({heads_digest(service) for service in services}) == 1
    carried = sum(network.carrier.carried_bytes for network in around.networks.values())
    assert (carried > 0) == (len(outbound_only) > 1)
