"""Whole nodes that stop by their charter, and whole nodes that wait for a buffer: audited, one killed."""

from pathlib import Path

import trio

from ledger.record import Aggregation, Kind, Record, decode_record
from ledger.store import Store
from scenarios.simulation.swarm import Swarm
from swarm.protocol.phases import Phase
from tests.node.test_rounds_live import assert_every_bundle_verifies, run
from tests.simulated import fresh, swarm_of

SHORT = {"deadline_min_s": 1.0, "deadline_max_s": 8.0, "grace_s": 1.0}
NO_GAIN_COUNTS = "[stopping]\npatience = 2\ndelta_min = 100"
SLOW, SLOW_S = 3, 4.0


def test_all_stop_in_one_round_and_keep_the_best_model_though_one_was_killed(
    tmp_path: Path,
) -> None:
    """With a gain that nobody reaches, round 1 stays the best: round 3 is judged after round 4."""
    charter, sites = swarm_of(4, rounds=12, aggregation=f'rule = "mean"\n{NO_GAIN_COUNTS}', **SHORT)

    async def trouble(swarm: Swarm) -> None:
        await trio.sleep(3.0)
        await swarm.kill(2)
        await trio.sleep(1.0)
        swarm.start(2)

    swarm, _ = run(charter, sites, tmp_path, faults=trouble)
    assert swarm.failures == []
    for service in swarm.services.values():
        assert service.machine.phase is Phase.DONE
        assert service.machine.round == 4
        best = service.machine.released
        assert best is not None
        assert best.round == 1
        assert service.transfer.blobs.get(best.proposal.result) is not None, "the janitor kept it"
    assert_every_bundle_verifies(tmp_path, charter, 4)


def merges(directory: Path, member: int) -> list[Record]:
    with Store.open(directory / f"{member}.db", read_only=True) as store:
        values = [decode_record(signed.record_bytes) for signed in store.records()]
    records = [Record.from_value(one) for one in values if one[7] == Kind.AGGREGATION]
    return [one for one in records if one.author == member and one.round > 0]


def test_a_buffer_goes_on_without_the_slow_and_merges_it_as_old_as_it_is(tmp_path: Path) -> None:
    buffered = 'averaging = "gossip"\ntopology = "full"\nbuffer = 2'
    charter, sites = swarm_of(5, rounds=14, aggregation=buffered, staleness_max=12, **SHORT)
    directory = fresh(tmp_path / "slow")
    swarm, _ = run(charter, sites, directory, train_s={SLOW: SLOW_S})
    assert swarm.failures == []
    assert all(one.machine.phase is Phase.DONE for one in swarm.services.values())
    fast, slow = merges(directory, 0), merges(directory, SLOW)
    assert len(fast) > 2 * len(slow) > 0
    ages = []
    for record in fast:
        assert isinstance(record.body, Aggregation)
        offers = [swarm.services[0].book.offer(one.id) for one in record.body.inputs]
        ages += [record.round - one.round for one in offers if one and one.author == SLOW]
    assert ages, "the slow one is merged"
    assert max(ages) > 0, "and not as if it were new"
    assert_every_bundle_verifies(directory, charter, 5)
