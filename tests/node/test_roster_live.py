"""Running nodes live through a change of the roster: joining, leaving, starting anew."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import trio

from ledger.bundle import export_bundle
from ledger.charter import Charter
from ledger.errors import PeerError
from ledger.fork import Cut
from ledger.keys import Signer, derive
from ledger.record import NO_ID
from ledger.roster import Roster
from ledger.roster_store import load_roster, store_update
from ledger.roster_update import Add, Operation, Remove, Rotate, SignedUpdate, Update, sign_update
from ledger.store import Store
from ledger.verify import verify_bundles
from node.identity import Identity
from node.network_memory import MemoryHub
from scenarios.simulation.rosters import rotation
from scenarios.simulation.swarm import VIRTUAL_S_MAX, Calm
from scenarios.simulator import SimulatedSite, Swarm, identity_of, simulate
from swarm.protocol.rosters import (
    decode_roster_reply,
    decode_roster_request,
    encode_roster_reply,
    encode_roster_request,
)
from tests.simulated import swarm_of

SEED = 11


def admin(identity: Identity) -> Signer:
    return Signer(derive(identity.seed, "admin"))


def signed(
    roster: Roster, sites: Sequence[SimulatedSite], operation: Operation, *cuts: Cut
) -> SignedUpdate:
    update = Update(
        net=roster.net,
        version=roster.version + 1,
        previous=roster.digest,
        operation=operation,
        cuts=cuts,
    ).to_bytes()
    who = [member.index for member in roster.active][: roster.q]
    return SignedUpdate(
        update, tuple((index, sign_update(update, admin(sites[index].identity))) for index in who)
    )


def cut_at(swarm: Swarm, at: int, author: int, epoch: int = 0) -> Cut:
    head = swarm.services[at].journal.heads().get((author, epoch))
    return Cut(
        author=author,
        epoch=epoch,
        kept=head.next_seq if head else 0,
        head_id=head.prev_id if head else NO_ID,
    )


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for sets no event
        await trio.sleep(0.25)


async def submit(swarm: Swarm, at: int, update: SignedUpdate) -> None:
    """What a node does with a file in its inbox."""
    await swarm.services[at].rosters._take(update, source="test")


def assert_every_bundle_verifies(directory: Path, charter: Charter, members: Sequence[int]) -> None:
    for index in members:
        with Store.open(directory / f"{index}.db", read_only=True) as store:
            bundle = export_bundle(store, charter.source_bytes, directory / f"bundle{index}")
        report = verify_bundles([bundle], charter.source_bytes, charter.digest_hex)
        assert report.verdict == "VERIFIED", report.to_text()


def versions(swarm: Swarm, members: Sequence[int]) -> set[int]:
    return {
        swarm.services[index].journal.roster.version if index in swarm.services else -1
        for index in members
    }


def agreed(swarm: Swarm, at: int) -> int:
    if at not in swarm.services:
        return -1
    latest = swarm.services[at].book.latest_agreed()
    return latest.round if latest else -1


def test_a_new_hospital_joins_a_running_swarm_and_is_merged(tmp_path: Path) -> None:
    charter, sites = swarm_of(4, rounds=6)
    identity = identity_of(1, 4)
    seen = {}

    async def faults(swarm: Swarm) -> None:
        await until(lambda: agreed(swarm, 0) >= 1)
        roster = swarm.services[0].journal.roster
        update = signed(
            roster,
            sites,
            Add(
                name="hospital-e",
                role="hospital",
                ledger_key=identity.ledger().public_key,
                witness_key=identity.witness().public_key,
                admin_key=admin(identity).public_key,
                network_key=identity.network_key,
                addresses=(),
            ),
        )
        with Store.open(tmp_path / "4.db") as store:
            store_update(store, roster, update)
        learner = sites[0].learner
        swarm.sites = [*sites, SimulatedSite(identity=identity, learner=learner)]
        await submit(swarm, 2, update)
        swarm.start(4)
        seen["swarm"] = swarm
        await until(lambda: versions(swarm, range(5)) == {1})
        await swarm.ended[4].wait()

    outcome = simulate(charter=charter, sites=sites, directory=tmp_path, seed=SEED, faults=faults)
    assert not outcome.failures, outcome.failures
    swarm = seen["swarm"]
    merged = {
        one.author
        for round_ in swarm.services[0].book.agreed_rounds()
        if (agreed_ := swarm.services[0].book.agreed(round_)) is not None
        for one in agreed_.proposal.inputs
    }
    assert merged == {0, 1, 2, 3, 4}
    assert {service.machine.model for service in swarm.services.values()} == {
        swarm.services[0].machine.model
    }
    assert_every_bundle_verifies(tmp_path, charter, range(5))


def test_a_removed_member_is_not_waited_for_and_its_records_stay(tmp_path: Path) -> None:
    charter, sites = swarm_of(4, rounds=5)
    seen = {}

    async def faults(swarm: Swarm) -> None:
        await until(lambda: agreed(swarm, 0) >= 1)
        await swarm.kill(3)
        update = signed(
            swarm.services[0].journal.roster, sites, Remove(author=3), cut_at(swarm, 0, 3)
        )
        await submit(swarm, 0, update)
        await until(lambda: versions(swarm, range(3)) == {1})
        seen["swarm"] = swarm

    outcome = simulate(charter=charter, sites=sites, directory=tmp_path, seed=SEED, faults=faults)
    assert not outcome.failures, outcome.failures
    assert outcome.rounds_agreed[:3] == (5,) * 3
    assert_every_bundle_verifies(tmp_path, charter, range(3))


def test_a_removed_member_that_comes_back_is_told_so_by_its_own_node(tmp_path: Path) -> None:
    charter, sites = swarm_of(4, rounds=4)

    async def faults(swarm: Swarm) -> None:
        await until(lambda: agreed(swarm, 0) >= 1)
        update = signed(
            swarm.services[0].journal.roster, sites, Remove(author=3), cut_at(swarm, 0, 3)
        )
        await submit(swarm, 3, update)

    outcome = simulate(charter=charter, sites=sites, directory=tmp_path, seed=SEED, faults=faults)
    assert len(outcome.failures) == 1
    assert '"hospital-d" was removed from the federation by roster 1' in outcome.failures[0]
    assert outcome.rounds_agreed[:3] == (4,) * 3


@pytest.mark.parametrize("lost", [False, True], ids=["same directory", "lost ledger"])
def test_a_rotated_member_goes_on_in_its_next_epoch(tmp_path: Path, *, lost: bool) -> None:
    charter, sites = swarm_of(4, rounds=6)

    async def faults(swarm: Swarm) -> None:
        await until(lambda: agreed(swarm, 0) >= 1)
        await swarm.kill(3)
        roster = swarm.services[0].journal.roster
        before = roster.member(3)
        update = signed(
            roster,
            sites,
            Rotate(
                author=3,
                epoch=1,
                ledger_key=sites[3].identity.ledger(1).public_key,
                witness_key=before.witness_key,
                network_key=before.network_key,
                addresses=before.addresses,
            ),
            cut_at(swarm, 0, 3),
        )
        if lost:
            for name in ("3.db", "3.db-wal", "3.db-shm", "3.db.lock", "3.mark"):
                await trio.Path(tmp_path / name).unlink(missing_ok=True)
        with Store.open(tmp_path / "3.db") as store:
            store_update(store, load_roster(store, charter), update)
        await submit(swarm, 1, update)
        await until(lambda: versions(swarm, range(3)) == {1})
        swarm.start(3)
        await until(lambda: (3, 1) in swarm.services[0].journal.heads())

    outcome = simulate(charter=charter, sites=sites, directory=tmp_path, seed=SEED, faults=faults)
    assert not outcome.failures, outcome.failures
    assert len(set(outcome.results)) == 1
    assert_every_bundle_verifies(tmp_path, charter, range(4))


def test_who_hears_of_an_unknown_roster_asks_for_it_at_once(tmp_path: Path) -> None:
    """The update lies on one disk only, and nobody compares anything for an hour."""
    charter, sites = swarm_of(4, rounds=6)
    hub = MemoryHub(seed=SEED)
    swarm = Swarm(charter, sites, tmp_path, hub, SEED, Calm(hub, tmp_path), sync_interval_s=3_600.0)

    async def faults(swarm: Swarm) -> None:
        await until(lambda: agreed(swarm, 0) >= 1)
        await swarm.kill(3)
        with Store.open(tmp_path / "3.db") as store:
            before = load_roster(store, charter)
            head = store.heads().get((3, 0))
            assert store_update(store, before, rotation(before, sites, 3, head)).version == 1
        swarm.start(3)
        with trio.fail_after(10.0):
            await until(lambda: versions(swarm, range(4)) == {1})
        for index in range(4):
            await swarm.ended[index].wait()

    swarm.run_to_end(faults, virtual_s_max=VIRTUAL_S_MAX)
    assert swarm.failures == []
    assert_every_bundle_verifies(tmp_path, charter, range(4))


def test_messages_about_the_roster_are_read_strictly() -> None:
    assert decode_roster_request(encode_roster_request(bytes(32))) == bytes(32)
    assert decode_roster_reply(encode_roster_reply([b"a", b"b"])) == (b"a", b"b")
    for data in (b"", b"\x93\x01\x01\x01", b"\x92\x02\xc4\x01a", encode_roster_reply([b"a"])):
        with pytest.raises(PeerError):
            decode_roster_request(data)
