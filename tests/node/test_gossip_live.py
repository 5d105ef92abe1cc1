"""Whole nodes that average with neighbours: nobody is held up, everybody learns, every bundle verifies."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import trio

from ledger.record import Kind, decode_record
from ledger.store import Store
from node.network_memory import MemoryHub
from scenarios.simulation.swarm import EPOCH_MS, Swarm, simulate
from swarm.learning.payload import HEADER
from swarm.protocol.phases import Phase
from tests.node.test_rounds_live import assert_every_bundle_verifies, run
from tests.simulated import fresh, swarm_of

MEMBERS = 8
RING = 5
SHORT = {"deadline_min_s": 1.0, "deadline_max_s": 8.0, "grace_s": 1.0}
SLOW = 3
EIGHT_TIMES_S = 4.0


def gossip(topology: str) -> str:
    return f'averaging = "gossip"\ntopology = "{topology}"'


def models(swarm: Swarm, digests: Sequence[bytes]) -> np.ndarray:
    rows = []
    for index, digest in enumerate(digests):
        payload = swarm.services[index].transfer.blobs.get(digest)
        assert payload is not None
        rows.append(np.frombuffer(payload, dtype="<f4", offset=HEADER.size))
    return np.stack(rows)


def spread(rows: np.ndarray) -> float:
    return float(np.linalg.norm(rows - rows.mean(axis=0), axis=1).mean())


def evaluated_s(directory: Path, member: int) -> list[float]:
    """When a member wrote METRICS, by its own clock, which is right."""
    with Store.open(directory / f"{member}.db", read_only=True) as store:
        values = [decode_record(signed.record_bytes) for signed in store.records()]
    times = [one[10] for one in values if one[2] == member and one[7] == Kind.METRICS]
    return [(time_ms - EPOCH_MS) / 1000 for time_ms in times]


@pytest.mark.parametrize("topology", ["static_exponential", "epidemic"])
def test_everybody_learns_and_models_stay_together(tmp_path: Path, topology: str) -> None:
    charter, sites = swarm_of(MEMBERS, rounds=4, aggregation=gossip(topology), **SHORT)
    swarm, _ = run(charter, sites, tmp_path)
    assert swarm.failures == []
    services = [swarm.services[index] for index in range(MEMBERS)]
    assert all(one.machine.phase is Phase.DONE for one in services)
    own = [one.book.offers(4)[index].digest for index, one in enumerate(services)]
    apart = spread(models(swarm, own))
    together = spread(models(swarm, [one.machine.model for one in services]))
    assert together < 0.9 * apart, (together, apart)
    auc = [value.micro / 1e6 for one in services for value in one.metrics if value.metric == 1]
    assert np.mean(auc) > 0.95, auc
    assert_every_bundle_verifies(tmp_path, charter, MEMBERS)


def test_a_slow_site_holds_up_nobody_and_is_merged(tmp_path: Path) -> None:
    charter, sites = swarm_of(RING, rounds=8, aggregation=gossip("ring"), **SHORT)
    swarm, _ = run(charter, sites, fresh(tmp_path / "calm"))
    assert swarm.failures == []
    usual_s = max(evaluated_s(tmp_path / "calm", 0))
    directory = fresh(tmp_path / "slow")
    swarm, _ = run(charter, sites, directory, train_s={SLOW: EIGHT_TIMES_S})
    assert swarm.failures == []
    others = [max(evaluated_s(directory, i)) for i in range(RING) if i != SLOW]
    assert max(others) < 1.3 * usual_s, (others, usual_s)
    assert 1 < len(evaluated_s(directory, SLOW)) < 6, "it skips rounds"
    book = swarm.services[SLOW].book
    neighbours = {book.offer(i.id) for r in range(1, 9) for i in book.votes(r)[SLOW + 1].inputs}
    assert SLOW in {offer.author for offer in neighbours if offer}
    assert_every_bundle_verifies(directory, charter, RING)


def test_killed_and_parted_members_come_back_by_themselves(tmp_path: Path) -> None:
    charter, sites = swarm_of(MEMBERS, rounds=10, aggregation=gossip("static_exponential"), **SHORT)
    hub: list[MemoryHub] = []

    async def trouble(swarm: Swarm) -> None:
        hub.append(swarm.hub)
        for victim in (1, 6):
            await trio.sleep(3.0)
            await swarm.kill(victim)
            await trio.sleep(1.5)
            swarm.start(victim)
        for one in range(4):
            for other in range(4, MEMBERS):
                swarm.hub.block(one, other)
                swarm.hub.block(other, one)
        await trio.sleep(4.0)
        swarm.hub.heal()

    swarm, _ = run(charter, sites, tmp_path, faults=trouble)
    assert swarm.failures == []
    for service in swarm.services.values():
        assert service.machine.phase is Phase.DONE
        assert service.machine.round == 10
    assert_every_bundle_verifies(tmp_path, charter, MEMBERS)


def test_one_seed_writes_the_same_ledgers_twice(tmp_path: Path) -> None:
    charter, sites = swarm_of(5, rounds=3, aggregation=gossip("epidemic"), **SHORT)
    first, again = (
        simulate(charter=charter, sites=sites, directory=fresh(tmp_path / name), seed=4)
        for name in ("first", "again")
    )
    assert first.failures == ()
    assert first.heads == again.heads
    assert first.results == again.results
    assert first.rounds_agreed == (0,) * 5, "nothing is agreed, also not by chance"
