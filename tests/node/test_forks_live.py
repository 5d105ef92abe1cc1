"""A member that signs two records for one slot, among real nodes in a simulated swarm."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from ledger.bundle import export_bundle
from ledger.errors import UnavailableError
from ledger.fork import Cut
from ledger.record import Kind, Record, Verified, open_record, sign_record
from ledger.report import Report
from ledger.roster import Roster
from ledger.roster_store import store_update
from ledger.roster_update import Rotate
from ledger.store import Store
from ledger.verify import verify_bundles
from node.compute import InlineCompute
from node.highwater import LostHistoryError
from node.journal import Journal
from node.network_memory import MemoryHub
from node.service import Service
from scenarios.simulation.swarm import VIRTUAL_S_MAX, Calm, Faults, Swarm, heads_digest
from swarm.protocol.messages import encode_gossip
from tests.equivocation import LIAR, WithLiar, in_round, tiny_swarm
from tests.node.test_roster_live import signed, submit, until
from tests.simulated import fresh

SEED = 11
HONEST = (0, 1, 2)
ROUNDS = 4


class Deaf:
    """Hears nothing and answers nothing."""

    async def on_gossip(self, _peer: int, _message: bytes) -> None:
        """Not listening."""

    async def on_request(self, _peer: int, _protocol: str, _body: bytes) -> bytes:
        raise UnavailableError("not now")


def honest(swarm: Swarm) -> list[Service]:
    return [swarm.services[index] for index in HONEST]


def all_know(swarm: Swarm) -> bool:
    return len(swarm.services) == 4 and all(one.journal.forks.slots for one in honest(swarm))


def holds_opening(swarm: Swarm, index: int) -> bool:
    return index in swarm.services and (LIAR, 0) in swarm.services[index].journal.counts()


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
    services = honest(swarm)
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
    quick = verify_bundles(bundles, charter.source_bytes, charter.digest_hex, quick=True)
    assert (quick.verdict, quick.forks) == ("VERIFIED", together.forks)
    return together


@pytest.mark.parametrize(
    ("kind", "round_", "fooled"),
    [
        (Kind.CONTRIBUTION, 0, (2,)),
        (Kind.CONTRIBUTION, 2, (1, 2)),
        (Kind.AGGREGATION, 2, (2,)),
        (Kind.METRICS, 2, (1, 2)),
    ],
)
def test_honest_members_go_on_whoever_was_shown_what(
    tmp_path: Path, kind: Kind, round_: int, fooled: tuple[int, ...]
) -> None:
    swarm = play(tmp_path, kind=kind, round_=round_, fooled=fooled)
    assert_honest_members_agree(swarm, after=3)
    report = assert_bundles_verify(tmp_path, swarm)
    assert report.void > 0


def test_a_liar_that_falls_silent_after_its_lie_stops_nobody(tmp_path: Path) -> None:
    swarm = play(tmp_path, kind=Kind.CONTRIBUTION, fooled=(2,), silent_afterwards=True)
    assert_honest_members_agree(swarm, after=3)


def test_several_processes_say_the_same_of_a_forked_log(tmp_path: Path) -> None:
    swarm = play(tmp_path, kind=Kind.METRICS, fooled=(2,), rounds=2, round_=1)
    report = assert_bundles_verify(tmp_path, swarm)
    charter, bundles = swarm.charter, [tmp_path / f"b{index}" for index in HONEST]
    jobs = verify_bundles(bundles, charter.source_bytes, charter.digest_hex, jobs=2)
    assert jobs.to_json() == report.to_json()


def lower_twins(swarm: Swarm, *, below: int) -> list[Verified[Record]]:
    """Third branches: other records for every slot of the liar's log, highest first."""
    signer = swarm.sites[LIAR].identity.ledger()
    with Store.open(swarm.directory / "0.db", read_only=True) as store:
        log = list(store.records(author=LIAR, limit=below))
    roster = swarm.services[0].journal.roster
    records = [open_record(signed, roster=roster).value for signed in log]
    return [
        sign_record(replace(record, time_ms=record.time_ms + 1), signer)
        for record in reversed(records)
    ]


def test_third_branches_at_ever_lower_slots_stop_nobody_and_cost_one_record_each(
    tmp_path: Path,
) -> None:
    async def faults(swarm: Swarm) -> None:
        await until(lambda: all_know(swarm))
        await swarm.kill(LIAR)
        network = swarm.hub.network(LIAR)
        async with trio.open_nursery() as nursery:
            await nursery.start(network.run, Deaf())
            for twin in lower_twins(swarm, below=6):
                await network.broadcast(encode_gossip([twin.signed.envelope()]))
                await trio.sleep(0.3)
            nursery.cancel_scope.cancel()
        await until_honest_end(swarm)

    swarm = play(tmp_path, kind=Kind.METRICS, fooled=(2,), faults=faults)
    assert_honest_members_agree(swarm, after=3)
    assert {service.journal.forks.slots[LIAR, 0] for service in honest(swarm)} == {0}
    assert_bundles_verify(tmp_path, swarm)
    with Store.open(tmp_path / "0.db", read_only=True) as store:
        proofs = list(store.records(kind=Kind.FORK_PROOF))
    assert 1 <= len(proofs) <= len(HONEST), "one for each member at most"


def test_a_rotation_ends_a_fork_and_the_new_epoch_takes_part(tmp_path: Path) -> None:
    """The cut keeps the branch that some hold; the others change to it."""

    async def faults(swarm: Swarm) -> None:
        await until(lambda: all_know(swarm))
        roster = swarm.services[0].journal.roster
        ledger = swarm.sites[LIAR].identity.ledger(1)
        witness = swarm.sites[LIAR].identity.witness()
        held = [swarm.services[i].journal.heads()[LIAR, 0] for i in HONEST]
        kept = held[keep]
        update = signed(
            roster,
            swarm.sites,
            Rotate(
                author=LIAR, epoch=1, ledger_key=ledger.public_key,
                witness_key=witness.public_key,
                network_key=swarm.sites[LIAR].identity.network_key, addresses=(),
            ),
            Cut(author=LIAR, epoch=0, kept=kept.next_seq, head_id=kept.prev_id),
        )  # fmt: skip
        assert len({head.prev_id for head in held}) == 2, "they hold different branches"
        await swarm.kill(LIAR)
        # The site starts anew: what it has signed in the old epoch is the roster's to say.
        for path in swarm.directory.glob(f"{LIAR}.*"):
            path.unlink() if path.is_file() else shutil.rmtree(path)
        with Store.open(swarm.directory / f"{LIAR}.db") as store:
            store_update(store, roster, update)
        for index in HONEST:
            await submit(swarm, index, update)
        await until(lambda: all(swarm.services[i].journal.roster.version for i in HONEST))
        swarm.start(LIAR)
        for index in range(4):
            await swarm.ended[index].wait()

    for keep in (0, 2):
        directory = fresh(tmp_path / str(keep))
        swarm = play(directory, kind=Kind.METRICS, fooled=(2,), faults=faults, rounds=5)
        assert swarm.failures == []
        services = [swarm.services[index] for index in range(4)]
        assert len({service.machine.model for service in services}) == 1
        assert len({heads_digest(service) for service in services}) == 1, "also of the old log"
        assert all(LIAR in service.book.offers(5) for service in services), "it takes part again"
        assert_bundles_verify(directory, swarm, range(4))


def test_two_live_copies_of_a_site_are_stopped_and_the_others_go_on(tmp_path: Path) -> None:
    """Site 4 is site 3 on a second machine, with a disk of its own."""
    charter, sites = tiny_swarm(ROUNDS)
    hub = MemoryHub(seed=SEED)
    swarm = Swarm(charter, [*sites, sites[LIAR]], tmp_path, hub, SEED, Calm(hub, tmp_path))

    async def faults(swarm: Swarm) -> None:
        while len(hub._networks) < 5:
            await trio.lowlevel.checkpoint()
        hub.partition([[0, 1, LIAR], [2, 4]])
        await until(lambda: all(holds_opening(swarm, index) for index in (0, 2)))
        hub.heal()
        for index in range(5):
            await swarm.ended[index].wait()

    swarm.run_to_end(faults, virtual_s_max=VIRTUAL_S_MAX)
    assert set(swarm.errors) == {LIAR, 4}
    for error in swarm.errors.values():
        assert isinstance(error, LostHistoryError)
        assert "key rotation" in str(error)
        assert len(str(error).splitlines()) == 1
    swarm.failures.clear()
    assert_honest_members_agree(swarm, after=2)
    assert_bundles_verify(tmp_path, swarm)
    with (
        Store.open(tmp_path / f"{LIAR}.db") as store,
        pytest.raises(LostHistoryError, match="key rotation"),
    ):
        site = sites[LIAR].identity
        Journal(
            store=store, roster=Roster.from_charter(charter), own=LIAR, signer=site.ledger(),
            disk=InlineCompute(), time_ms=lambda: 1,
        )  # fmt: skip
