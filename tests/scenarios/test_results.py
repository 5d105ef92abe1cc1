"""From real bundles to the outcome and to the JSON that the main job promises."""

import json
import shutil
from pathlib import Path

import pytest

from ledger.errors import VerificationError
from scenarios.audit import audit
from scenarios.outcome import Measured, weighted
from scenarios.results import read_own_logs, read_roster, to_json
from tests.scenarios.finished import MEMBERS, ROUNDS, Finished, digest_of, finish, played


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finish(tmp_path_factory.mktemp("run"), played())


def test_the_json_has_exactly_the_promised_keys(run: Finished) -> None:
    value = json.loads(json.dumps(to_json(run.outcome)))
    assert list(value) == [
        "scenario", "seed", "wall_s", "rounds", "rounds_agreed", "members", "auc_alone",
        "auc_swarm", "auc_pooled", "ledger", "result_digests", "failures",
    ]  # fmt: skip
    for member in value["members"]:
        assert list(member) == [
            "name", "auc_alone", "auc_swarm", "auc_pooled", "auc_swarm_low", "auc_swarm_high",
            "samples", "weight_micro", "bytes_sent", "bytes_received",
        ]  # fmt: skip
    assert list(value["ledger"]) == [
        "verdict", "records", "final", "anchored", "bundles", "charter", "charter_digest",
    ]  # fmt: skip
    assert len(value["ledger"]["bundles"]) == len(value["result_digests"]) == MEMBERS


def test_rounds_weights_and_metrics_come_from_the_hospitals_own_records(run: Finished) -> None:
    outcome = run.outcome
    assert outcome.rounds_agreed == outcome.rounds == ROUNDS
    assert {h.result_digest for h in outcome.hospitals} == {digest_of(f"model {ROUNDS} 0").hex()}
    assert [h.samples for h in outcome.hospitals] == [100, 150, 200, 250]
    assert [h.weight_micro for h in outcome.hospitals] == [142857, 214285, 285714, 357142]
    assert [len(h.auc) for h in outcome.hospitals] == [ROUNDS] * MEMBERS
    swarm = outcome.hospitals[2].swarm.auc
    assert swarm == Measured(value=0.952, low=0.932, high=0.962, count=30)
    assert all(merge.unanimous and not merge.left_out for merge in outcome.merges)


def test_the_auditor_counts_kinds_and_finality(run: Finished) -> None:
    ledger = run.outcome.ledger
    assert (ledger.verdict, ledger.exit_status, ledger.findings) == ("VERIFIED", 0, ())
    assert ledger.records == sum(count for count, _ in ledger.kinds.values())
    assert ledger.final == sum(final for _, final in ledger.kinds.values())
    assert ledger.kinds["OPEN"] == (MEMBERS, MEMBERS)
    assert 0 < ledger.final < ledger.records
    assert ledger.anchored == 0, "these bundles bring no checkpoint"


def test_who_was_left_out_is_told_with_its_reason(tmp_path: Path) -> None:
    hospitals = played(rounds=ROUNDS - 1)
    hospitals.play(ROUNDS, absent=2)
    merge = finish(tmp_path, hospitals).outcome.merges[-1]
    assert merge.agreed
    assert sorted(merge.merged) == [0, 1, 3]
    assert merge.left_out == {2: "its update was not received in time"}


def test_a_round_without_a_quorum_of_equal_results_is_not_agreed(tmp_path: Path) -> None:
    hospitals = played(rounds=ROUNDS - 1)
    hospitals.play(ROUNDS, results=2)
    outcome = finish(tmp_path, hospitals).outcome
    assert outcome.rounds_agreed == ROUNDS - 1
    assert not outcome.merges[-1].agreed
    assert not outcome.merges[-1].unanimous


def test_a_flipped_bit_in_a_bundle_is_refused_by_reader_and_auditor(
    run: Finished, tmp_path: Path
) -> None:
    bundle = shutil.copytree(run.bundles[1], tmp_path / "bundle")
    log = bundle / "logs" / "0000-0000.log"
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(data)
    with pytest.raises(VerificationError):
        read_own_logs([bundle], read_roster([bundle], run.charter))
    ledger = audit(
        [bundle, *run.bundles[2:]],
        charter=Path(run.outcome.ledger.charter),
        charter_digest=run.charter.digest_hex,
    )
    assert (ledger.verdict, ledger.exit_status) == ("REFUTED", 1)
    assert "step " in ledger.findings[0]


def test_the_overall_value_is_weighted_by_samples_and_skips_what_is_undefined() -> None:
    one = Measured(value=0.8, low=0.7, high=0.9, count=10)
    three = Measured(value=1.0, low=0.9, high=1.0, count=30)
    overall = weighted([one, None, three], [100, 500, 300])
    assert overall is not None
    assert overall.value == pytest.approx(0.95)
    assert overall.low == pytest.approx(0.95 - (0.25**2 * 0.01 + 0.75**2 * 0.01) ** 0.5)
    assert overall.count == 40
    assert weighted([None, None], [1, 2]) is None
