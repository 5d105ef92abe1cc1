"""Whole swarms: every log ends under a checkpoint of a quorum, and nobody's silence costs a round."""

from collections.abc import Sequence
from pathlib import Path

import trio
import trio.lowlevel

from ledger.bundle import export_bundle, read_bundle
from ledger.charter import Charter
from ledger.checkpoint import open_checkpoint
from ledger.record import Kind, open_record
from ledger.report import Report
from ledger.roster import Roster
from ledger.store import Store
from ledger.verify import verify_bundles
from node.network import CHECKPOINT_PROTOCOL
from node.network_memory import Conditions
from node.witness import SETTLE_S
from scenarios.simulator import Outcome, Swarm, simulate
from swarm.protocol.checkpoints import decode_request, encode_share_reply
from tests.simulated import fresh, swarm_of

SEED = 23
ROUNDS = 3


def audits(directory: Path, charter: Charter, members: Sequence[int] = range(4)) -> list[Report]:
    """Each member's bundle alone, as its own auditor sees it."""
    reports = []
    for index in members:
        with Store.open(directory / f"{index}.db", read_only=True) as store:
            bundle = export_bundle(store, charter.source_bytes, directory / f"bundle{index}")
        reports.append(verify_bundles([bundle], charter.source_bytes, charter.digest_hex))
    return reports


def last_metrics_ms(directory: Path, charter: Charter) -> int:
    """When the last round was over for everybody, by the records."""
    roster = Roster.from_charter(charter)
    with Store.open(directory / "0.db", read_only=True) as store:
        records = [open_record(one, roster=roster).value for one in store.records()]
    return max(record.time_ms for record in records if record.kind == Kind.METRICS)


def assert_all_anchored(report: Report) -> None:
    assert report.verdict == "VERIFIED", report.to_text()
    assert report.anchored == report.records, report.to_text()
    assert report.exit_status == 0, report.to_text()


def cosigners(directory: Path, charter: Charter, index: int) -> set[int]:
    """Who cosigned anything in one member's bundle."""
    found = read_bundle(directory / f"bundle{index}").checkpoints.values()
    roster = Roster.from_charter(charter)
    return {
        member
        for _, data in found
        for member in open_checkpoint(data, roster=roster, only_members=True).cosigned_s
    }


def test_every_log_ends_anchored_at_every_member(tmp_path: Path) -> None:
    charter, sites = swarm_of(4, rounds=ROUNDS)
    outcome = simulate(charter=charter, sites=sites, directory=tmp_path, seed=SEED)
    assert outcome.failures == ()
    for report in audits(tmp_path, charter):
        assert_all_anchored(report)


def test_two_hospitals_anchor_each_other(tmp_path: Path) -> None:
    charter, sites = swarm_of(2, rounds=2)
    simulate(charter=charter, sites=sites, directory=tmp_path, seed=SEED)
    for report in audits(tmp_path, charter, range(2)):
        assert_all_anchored(report)


def test_a_lossy_network_delays_checkpoints_and_spoils_none(tmp_path: Path) -> None:
    charter, sites = swarm_of(4, rounds=ROUNDS)
    rough = Conditions(loss=0.1, delay_s=0.05, jitter_s=0.2, duplicate=0.1)
    outcome = simulate(
        charter=charter, sites=sites, directory=tmp_path, seed=SEED, conditions=rough
    )
    assert outcome.failures == ()
    for report in audits(tmp_path, charter):
        assert report.verdict == "VERIFIED"
        assert {(log.author, log.anchored > 0) for log in report.logs} == {
            (author, True) for author in range(4)
        }


def test_a_witness_that_dies_and_starts_again_anchors_with_the_others(tmp_path: Path) -> None:
    charter, sites = swarm_of(4, rounds=6)

    async def kill_and_restart(swarm: Swarm) -> None:
        await trio.sleep(4.1)
        await swarm.kill(1)
        await trio.sleep(6)
        swarm.start(1)

    outcome = simulate(
        charter=charter, sites=sites, directory=tmp_path, seed=SEED, faults=kill_and_restart
    )
    assert outcome.failures == ()
    for report in audits(tmp_path, charter):
        assert_all_anchored(report)


def silenced(directory: Path, members: Sequence[int], *, withholding: bool) -> tuple[Outcome, int]:
    """Run a swarm whose ``members`` never cosign; return the outcome and when its rounds were over."""
    charter, sites = swarm_of(4, rounds=ROUNDS)

    async def silent(_peer: int, body: bytes) -> bytes:
        decode_request(body)
        if withholding:
            return encode_share_reply([])
        await trio.sleep_forever()
        raise AssertionError

    async def silence(swarm: Swarm) -> None:
        while len(swarm.services) < len(sites):
            await trio.lowlevel.checkpoint()
        for member in members:
            exchange = swarm.services[member].exchange
            exchange._answers = {**exchange._answers, CHECKPOINT_PROTOCOL: silent}

    outcome = simulate(
        charter=charter, sites=sites, directory=fresh(directory), seed=SEED, faults=silence
    )
    assert outcome.failures == ()
    assert outcome.rounds_agreed == (ROUNDS,) * 4
    return outcome, last_metrics_ms(directory, charter)


def test_a_silent_or_withholding_witness_delays_no_round_and_no_checkpoint(
    tmp_path: Path,
) -> None:
    charter, _ = swarm_of(4, rounds=ROUNDS)
    _, usual_ms = silenced(tmp_path / "usual", (), withholding=False)
    for withholding in (False, True):
        directory = tmp_path / f"withholding-{withholding}"
        outcome, over_ms = silenced(directory, (3,), withholding=withholding)
        assert abs(over_ms - usual_ms) < 500
        (report,) = audits(directory, charter, (0,))
        assert_all_anchored(report)
        assert cosigners(directory, charter, 0) == {0, 1, 2, 3}, "it cosigned its own log at least"
        assert outcome.virtual_s < 60


def test_without_a_quorum_of_witnesses_the_rounds_go_on_and_nothing_is_anchored(
    tmp_path: Path,
) -> None:
    charter, _ = swarm_of(4, rounds=ROUNDS)
    usual, usual_ms = silenced(tmp_path / "usual", (), withholding=False)
    outcome, over_ms = silenced(tmp_path / "two", (2, 3), withholding=False)
    assert abs(over_ms - usual_ms) < 500
    assert outcome.virtual_s <= usual.virtual_s + SETTLE_S + 1
    (report,) = audits(tmp_path / "two", charter, (0,))
    assert report.verdict == "VERIFIED"
    logs = {log.author: log.anchored for log in report.logs}
    assert logs[0] == logs[1] == 0, "nobody cosigns for them but they themselves"
    assert {logs[2], logs[3]} <= {13, 14}, (
        "0 and 1 do cosign for the silent; three confirm round zero"
    )
