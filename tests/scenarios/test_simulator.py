"""The same service as in a hospital, whole swarms of it, under virtual time."""

from pathlib import Path

import pytest
import trio

from node.network_memory import Conditions, MemoryNetwork
from scenarios.simulator import Swarm, simulate
from tests.simulated import fresh, swarm_of

SEED = 11


def test_four_hospitals_agree_on_every_round_bit_for_bit(tmp_path: Path) -> None:
    charter, sites = swarm_of(4, rounds=4)
    outcome = simulate(charter=charter, sites=sites, directory=tmp_path, seed=SEED)
    assert outcome.failures == ()
    assert outcome.rounds_agreed == (4, 4, 4, 4)
    assert len(set(outcome.results)) == 1
    assert len(set(outcome.heads)) == 1


def test_one_seed_twice_writes_equal_ledgers(tmp_path: Path) -> None:
    charter, sites = swarm_of(4, rounds=3)
    rough = Conditions(loss=0.1, delay_s=0.05, jitter_s=0.2, duplicate=0.1)
    outcomes = [
        simulate(
            charter=charter,
            sites=sites,
            directory=fresh(tmp_path / name),
            seed=SEED,
            conditions=rough,
        )
        for name in ("first", "second")
    ]
    assert outcomes[0].heads == outcomes[1].heads
    assert outcomes[0].results == outcomes[1].results
    assert outcomes[0].virtual_s == outcomes[1].virtual_s


def test_another_seed_is_another_history(tmp_path: Path) -> None:
    charter, sites = swarm_of(4, rounds=2)
    rough = Conditions(loss=0.1, delay_s=0.05, jitter_s=0.2)
    heads = {
        simulate(
            charter=charter,
            sites=sites,
            directory=fresh(tmp_path / str(seed)),
            seed=seed,
            conditions=rough,
        ).heads
        for seed in (1, 2)
    }
    assert len(heads) == 2


@pytest.mark.parametrize("victim", range(4))
@pytest.mark.parametrize("after_s", [1.0, 3.3, 5.1])
def test_one_death_at_any_time_costs_the_others_nothing(
    tmp_path: Path, victim: int, after_s: float
) -> None:
    charter, sites = swarm_of(4, rounds=6)

    async def kill_and_restart(swarm: Swarm) -> None:
        await trio.sleep(after_s)
        await swarm.kill(victim)
        await trio.sleep(12)
        swarm.start(victim)

    outcome = simulate(
        charter=charter, sites=sites, directory=tmp_path, seed=SEED, faults=kill_and_restart
    )
    assert outcome.failures == ()
    assert set(outcome.rounds_agreed) == {6}, outcome
    assert len(set(outcome.results)) == 1, outcome


def test_a_swarm_that_hears_no_gossip_converges_by_comparing_heads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody_hears(_network: MemoryNetwork, _message: bytes) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(MemoryNetwork, "broadcast", nobody_hears)
    charter, sites = swarm_of(3, rounds=2)
    outcome = simulate(charter=charter, sites=sites, directory=tmp_path, seed=SEED)
    assert outcome.failures == ()
    assert len(set(outcome.heads)) == 1
    assert len(set(outcome.results)) == 1
    assert set(outcome.rounds_agreed) == {2}


def test_a_partition_heals_without_a_human(tmp_path: Path) -> None:
    charter, sites = swarm_of(4, rounds=8)

    async def cut_and_heal(swarm: Swarm) -> None:
        await trio.sleep(4)
        swarm.hub.partition([[0, 1], [2, 3]])
        await trio.sleep(60)
        swarm.hub.heal()

    outcome = simulate(
        charter=charter, sites=sites, directory=tmp_path, seed=SEED, faults=cut_and_heal
    )
    assert outcome.failures == ()
    assert len(set(outcome.results)) == 1, outcome
    assert len(set(outcome.heads)) == 1, outcome


def test_a_finished_hospital_that_starts_again_alone_does_not_wait_to_join(tmp_path: Path) -> None:
    charter, sites = swarm_of(3, rounds=2)
    left_s: list[float] = []

    async def start_again(swarm: Swarm) -> None:
        for ended in list(swarm.ended.values()):
            await ended.wait()
        before_s = trio.current_time()
        swarm.start(0)
        await swarm.ended[0].wait()
        left_s.append(trio.current_time() - before_s)

    outcome = simulate(
        charter=charter, sites=sites, directory=tmp_path, seed=SEED, faults=start_again
    )
    assert outcome.failures == ()
    assert left_s[0] < 1.0
