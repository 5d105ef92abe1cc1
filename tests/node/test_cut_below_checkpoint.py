"""A cut below what a quorum has cosigned, and a member that joins after it: nodes and auditors go on."""

from dataclasses import replace
from pathlib import Path

from test_roster_live import (
    SEED,
    admin,
    agreed,
    cut_at,
    signed,
    submit,
    until,
    versions,
)

from ledger.bundle import export_bundle, read_bundle
from ledger.checkpoint_files import finished_key, read_unchecked
from ledger.roster_store import store_update
from ledger.roster_update import Add, Remove
from ledger.store import Store
from ledger.verify import Brought, verify_bundles
from scenarios.simulator import SimulatedSite, Swarm, identity_of, simulate
from tests.simulated import swarm_of

LEFT, JOINED = 3, 4
ROUNDS = 6


def finished(path: Path, author: int) -> bytes | None:
    """The newest checkpoint of a log that a quorum has cosigned, as one member's store has it."""
    with Store.open(path, read_only=True) as store:
        return store.state_get(finished_key((author, 0)))


def test_a_cut_below_a_finished_checkpoint_and_a_late_joiner(tmp_path: Path) -> None:
    charter, sites = swarm_of(4, rounds=ROUNDS)
    identity = identity_of(1, JOINED)
    pin, kept = tmp_path / "pin", 0

    async def faults(swarm: Swarm) -> None:
        nonlocal kept
        await until(lambda: agreed(swarm, 0) >= 2 and finished(tmp_path / "0.db", LEFT) is not None)
        await swarm.kill(LEFT)
        note = finished(tmp_path / "0.db", LEFT) or b""
        pin.write_bytes(note)
        kept = read_unchecked(note).size - 1
        with Store.open(tmp_path / "0.db", read_only=True) as store:
            head = next(iter(store.records(author=LEFT, from_seq=kept - 1, limit=1)))
        cut = replace(cut_at(swarm, 0, LEFT), kept=kept, head_id=head.id)
        roster = swarm.services[0].journal.roster
        gone = signed(roster, sites, Remove(author=LEFT), cut)
        await submit(swarm, 0, gone)
        await until(lambda: versions(swarm, range(3)) == {1})
        after = swarm.services[0].journal.roster
        newcomer = Add(
            name="hospital-e",
            role="hospital",
            ledger_key=identity.ledger().public_key,
            witness_key=identity.witness().public_key,
            admin_key=admin(identity).public_key,
            network_key=identity.network_key,
            addresses=(),
        )
        comes = signed(after, sites, newcomer)
        with Store.open(tmp_path / f"{JOINED}.db") as store:
            store_update(store, store_update(store, roster, gone), comes)
        swarm.sites = [*sites, SimulatedSite(identity=identity, learner=sites[0].learner)]
        await submit(swarm, 1, comes)
        swarm.start(JOINED)
        await until(lambda: versions(swarm, (0, 1, 2, JOINED)) == {2})
        await swarm.ended[JOINED].wait()

    outcome = simulate(charter=charter, sites=sites, directory=tmp_path, seed=SEED, faults=faults)
    assert not outcome.failures, outcome.failures
    bundles = []
    for index in (0, 1, 2, JOINED):
        with Store.open(tmp_path / f"{index}.db", read_only=True) as store:
            bundles.append(export_bundle(store, charter.source_bytes, tmp_path / f"bundle{index}"))
    for bundle in bundles:
        report = verify_bundles([bundle], charter.source_bytes, charter.digest_hex)
        assert (report.verdict, report.exit_status) == ("VERIFIED", 0), report.to_text()
        logs = {(one.author, one.epoch): one for one in report.logs}
        assert logs[LEFT, 0].records == kept
        assert logs[JOINED, 0].anchored == logs[JOINED, 0].records
        shown = read_bundle(bundle).checkpoints.get((LEFT, 0))
        assert shown is None or read_unchecked(shown[1]).size <= kept, "none of what was cut"
    assert (LEFT, 0) not in read_bundle(bundles[-1]).checkpoints, (
        "a newcomer has none of a log that ended"
    )
    pinned = verify_bundles(
        bundles, charter.source_bytes, charter.digest_hex, brought=Brought(pins=[pin])
    )
    assert pinned.verdict == "VERIFIED", pinned.to_text()
    assert any("the log was cut off" in note for note in pinned.notes)
