"""A hospital leaves for good: nobody waits for it, its log ends with a goodbye, and the others go on."""

from pathlib import Path

import trio

from ledger.bundle import export_bundle
from ledger.record import Close, CloseReason, open_record
from ledger.store import Store
from ledger.verify import verify_bundles
from node.network_memory import Conditions
from scenarios.simulator import Swarm, simulate
from swarm.protocol.round import Phase
from tests.simulated import swarm_of

LEAVER = 3


def last_body(path: Path, swarm: Swarm, author: int) -> object:
    with Store.open(path, read_only=True) as store:
        own = [
            open_record(one, roster=swarm.services[0].book.roster) for one in store.records(author)
        ]
    return own[-1].value.body


def test_who_leaves_is_waited_for_by_nobody_and_everybody_knows(tmp_path: Path) -> None:
    charter, sites = swarm_of(4, rounds=6, inactive_after_rounds=3)
    seen: dict[str, Swarm] = {}

    async def faults(swarm: Swarm) -> None:
        seen["swarm"] = swarm
        while not (first := swarm.services.get(0)) or first.machine.round < 3:  # noqa: ASYNC110
            await trio.sleep(0.25)
        await swarm.kill(LEAVER)
        swarm.leaving.add(LEAVER)
        swarm.start(LEAVER)
        await swarm.ended[LEAVER].wait()
        assert swarm.services[LEAVER].machine.phase is Phase.DONE
        assert swarm.services[0].machine.phase < Phase.LINGER, "the others have not even finished"
        own = swarm.services[LEAVER].journal.counts()[LEAVER, 0]
        swarm.leaving.discard(LEAVER)
        swarm.start(LEAVER)  # a service manager brings it back: it signs nothing, and ends
        await swarm.ended[LEAVER].wait()
        assert swarm.services[LEAVER].journal.counts()[LEAVER, 0] == own

    outcome = simulate(charter=charter, sites=sites, directory=tmp_path, seed=5, faults=faults)

    assert not outcome.failures, outcome.failures
    swarm = seen["swarm"]
    assert outcome.rounds_agreed[:3] == (6, 6, 6), "three of four are a quorum"
    assert outcome.virtual_s < charter.rounds.deadline_min_s * 6, "no deadline was waited for"
    for index in range(3):
        goodbye = last_body(tmp_path / f"{index}.db", swarm, LEAVER)
        assert goodbye == Close(reason=CloseReason.LEFT)
        assert last_body(tmp_path / f"{index}.db", swarm, index) == Close(reason=CloseReason.DONE)
        with Store.open(tmp_path / f"{index}.db", read_only=True) as store:
            bundle = export_bundle(store, charter.source_bytes, tmp_path / f"bundle{index}")
        report = verify_bundles([bundle], charter.source_bytes, charter.digest_hex)
        assert report.verdict == "VERIFIED", report.to_text()


def test_a_goodbye_that_nobody_heard_is_told_at_the_next_start(tmp_path: Path) -> None:
    charter, sites = swarm_of(4, rounds=8)

    async def faults(swarm: Swarm) -> None:
        while not (first := swarm.services.get(0)) or first.machine.round < 2:  # noqa: ASYNC110
            await trio.sleep(0.25)
        await swarm.kill(LEAVER)
        swarm.leaving.add(LEAVER)
        swarm.start(LEAVER)
        before = swarm.services[LEAVER]
        while (leaver := swarm.services[LEAVER]) is before or leaver.machine.phase < Phase.LINGER:
            await trio.lowlevel.checkpoint()
        for other in range(3):
            swarm.hub.block(LEAVER, other)
        while LEAVER not in leaver.book.left:
            await trio.lowlevel.checkpoint()
        await swarm.kill(LEAVER)
        assert LEAVER not in first.book.left, "nobody has heard it"
        swarm.hub.heal()
        swarm.hub.conditions = Conditions(reconnect_s=1.0)
        swarm.start(LEAVER)
        await swarm.ended[LEAVER].wait()
        assert LEAVER in first.book.left

    outcome = simulate(charter=charter, sites=sites, directory=tmp_path, seed=6, faults=faults)
    assert not outcome.failures, outcome.failures
    assert len(set(outcome.heads[:3])) == 1
