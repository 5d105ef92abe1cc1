"""A member that signs two records for one slot, among real nodes in a simulated swarm."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from ledger.bundle import export_bundle
from ledger.record import Kind
from ledger.report import Report
from ledger.store import Store
from ledger.verify import verify_bundles
from node.network_memory import MemoryHub
from scenarios.simulation.swarm import VIRTUAL_S_MAX, Faults, Swarm
from tests.equivocation import LIAR, WithLiar, in_round, tiny_swarm

SEED = 11
HONEST = (0, 1, 2)
ROUNDS = 4


async def until_honest_end(swarm: Swarm) -> None:
    for index in HONEST:
        await swarm.ended[index].wait()
    if not swarm.ended[LIAR].is_set():
        await swarm.kill(LIAR)


def play(
    directory: Path,
    *,
    kind: Kind,
    round_: int = 2,
    faults: Faults = until_honest_end,
    fooled: Sequence[int] = (1, 2),
    rounds: int = ROUNDS,
    **lies: bool,
) -> Swarm:
    charter, sites = tiny_swarm(rounds)
    hub = MemoryHub(seed=SEED)
    world = WithLiar(
        hub,
        directory,
        charter,
        sites[LIAR].identity.ledger(),
        is_forked=in_round(kind, round_),
        fooled=fooled,
        **lies,
    )
    swarm = Swarm(charter, sites, directory, hub, SEED, world)
    swarm.run_to_end(faults, virtual_s_max=VIRTUAL_S_MAX)
    assert world.liar is not None
    assert world.liar.twin is not None, "the liar never forked"
    return swarm


def assert_honest_members_agree(swarm: Swarm, *, after: int) -> None:
    services = [swarm.services[index] for index in HONEST]
    assert swarm.failures == []
    for service in services:
        assert set(service.journal.forks.slots) == {(LIAR, 0)}
        assert set(service.book.agreed_rounds()) >= set(range(after, ROUNDS + 1))
    assert len({service.machine.model for service in services}) == 1
    heads = [
        {log: head for log, head in service.journal.heads().items() if log[0] in HONEST}
        for service in services
    ]
    assert heads[0] == heads[1] == heads[2], "every honest log is complete everywhere"


def assert_bundles_verify(directory: Path, swarm: Swarm, members: Sequence[int] = HONEST) -> Report:
    """Every one alone, all together in any order, in several processes and at the quick level."""
    charter = swarm.charter
    bundles = []
    for index in members:
        with Store.open(directory / f"{index}.db", read_only=True) as store:
            bundles.append(export_bundle(store, charter.source_bytes, directory / f"b{index}"))
    reports = [
        verify_bundles(some, charter.source_bytes, charter.digest_hex)
        for some in (*([one] for one in bundles), bundles, bundles[::-1])
    ]
    for report in reports:
        assert report.verdict == "VERIFIED", report.to_text()
        (fork,) = report.forks
        assert (fork.author, fork.epoch) == (LIAR, 0)
    together, reversed_ = reports[-2:]
    assert (together.forks, together.logs) == (reversed_.forks, reversed_.logs)
    assert together.counts == reversed_.counts
    jobs = verify_bundles(bundles, charter.source_bytes, charter.digest_hex, jobs=2)
    assert jobs.to_json() == together.to_json()
    quick = verify_bundles(bundles, charter.source_bytes, charter.digest_hex, quick=True)
    assert (quick.verdict, quick.forks) == ("VERIFIED", together.forks)
    return together


@pytest.mark.parametrize("kind", [Kind.CONTRIBUTION, Kind.AGGREGATION, Kind.METRICS])
@pytest.mark.parametrize("fooled", [(2,), (1, 2)])
def test_honest_members_go_on_whoever_was_shown_what(
    tmp_path: Path, kind: Kind, fooled: tuple[int, ...]
) -> None:
    swarm = play(tmp_path, kind=kind, fooled=fooled)
    assert_honest_members_agree(swarm, after=3)
    report = assert_bundles_verify(tmp_path, swarm)
    assert report.void > 0


@pytest.mark.parametrize("kind", [Kind.CONTRIBUTION, Kind.METRICS])
def test_a_liar_that_falls_silent_after_its_lie_stops_nobody(tmp_path: Path, kind: Kind) -> None:
    swarm = play(tmp_path, kind=kind, fooled=(2,), silent_afterwards=True)
    assert_honest_members_agree(swarm, after=3)
