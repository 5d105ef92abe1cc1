"""Simulated hospitals learn what real ones learn, and a study of them says what it saw."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from ledger.cli import main as audit_main
from scenarios.engine_simulated import SeedJob, charter_of, run_seed
from scenarios.main_job import Job, run_job
from scenarios.patients import data_table, find_sources, read_patients
from scenarios.seed_run import SeedRun
from scenarios.spec import ScenarioSpec, load_spec
from scenarios.study import VariantRuns, failures, variant_json
from tests.learning import SHARED
from tests.scenarios.test_scenario_cli import swarm_scenario

IST = SHARED / "ist"
needs_ist = pytest.mark.skipif(
    not (IST / "external.csv").is_file(),
    reason="needs the folder ist of the shared data (SWARM_DATA)",
)


def small_stroke(rounds: int, hospitals: int) -> ScenarioSpec:
    spec = load_spec("stroke").found_in(IST).first(hospitals).override(rounds=rounds)
    return replace(spec, variants=(), site={"run.linger_s": 2.0})


def simulated(spec: ScenarioSpec, directory: Path, data: Path | None) -> SeedRun:
    sources = find_sources(spec, data)
    table = data_table(spec, sources)
    patients = read_patients(spec, charter_of(spec, table).schema, sources, data)
    job = SeedJob(spec=spec, variant="main", directory=directory, patients=patients, table=table)
    return run_seed(job, lambda _: None)


@needs_ist
def test_real_nodes_and_simulated_ones_agree_on_the_same_models_in_every_round(
    tmp_path: Path,
) -> None:
    spec = small_stroke(rounds=3, hospitals=5)
    run = simulated(spec, tmp_path / "simulated", IST)
    job = Job.prepare(spec, data=IST, out=tmp_path, keep=True)
    real = run_job(job, Console(quiet=True))
    assert real.digests == run.digests
    assert sorted(run.digests) == [1, 2, 3]
    merges = real.outcome.merges
    assert {merge.round for merge in merges if merge.unanimous} == {1, 2, 3}
    # Both judge the models alike, too.
    for one, other in zip(real.outcome.hospitals, run.outcome.hospitals, strict=True):
        assert (one.alone, one.swarm, one.pooled) == (other.alone, other.swarm, other.pooled)
    assert real.external == run.external
    assert (real.test_swarm, real.test_pooled) == (run.test_swarm, run.test_pooled)
    assert (real.released, real.reached, real.gaps) == (run.released, run.reached, run.gaps)
    assert (real.bytes_payloads, real.bytes_float32) == (run.bytes_payloads, run.bytes_float32)


@needs_ist
def test_hospitals_of_a_study_score_each_other_where_the_charter_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = small_stroke(rounds=5, hospitals=8)
    spec = replace(spec, charter=dict(spec.charter) | {"reputation.mode": "score"})
    simulated(spec, tmp_path / "run", IST)
    bundles = sorted(map(str, (tmp_path / "run" / "bundles").iterdir()))
    assert audit_main(["reputation", *bundles, "--json"]) == 3  # no charter from elsewhere
    found = json.loads(capsys.readouterr().out)["signals"]
    assert [one["member"] for one in found if any("own" in line for line in one["timeline"])] == [
        *range(8)
    ]
    assert [one["member"] for one in found if one["doubts"]] == []


@needs_ist
def test_a_scenario_names_strategy_rule_and_codec_in_its_charter(tmp_path: Path) -> None:
    spec = small_stroke(rounds=2, hospitals=4)
    chosen = {
        "aggregation.strategy": "fedadam",
        "aggregation.rule": "trimmed_mean",
        "aggregation.neighbour_mixing": True,
        "aggregation.codec": "top_k_int8",
    }
    run = simulated(replace(spec, charter=dict(spec.charter) | chosen), tmp_path / "run", IST)
    assert run.outcome.ledger.verdict == "VERIFIED"
    assert sorted(run.digests) == [1, 2]
    assert run.external is not None
    assert run.external.pooled.auc is not None
    assert run.external.released.auc is not None
    plain = simulated(spec, tmp_path / "plain", IST)
    assert run.bytes_payloads < plain.bytes_payloads
    assert run.external.pooled == plain.external.pooled, "the baseline is the same"


@needs_ist
def test_hospitals_that_took_no_part_gain_from_the_swarm(tmp_path: Path) -> None:
    spec = small_stroke(rounds=2, hospitals=4)
    run = simulated(spec, tmp_path / "run", IST)
    assert run.external is not None
    assert run.external.released.count == 5_590
    assert run.external.released.auc is not None
    assert run.outcome.ledger.verdict == "VERIFIED"
    found = variant_json(VariantRuns(name="main", spec=spec, runs=(run,)))
    assert found["auc_external_swarm"] > found["auc_external_alone"] + 0.03
    assert found["bytes_traffic_total"] > found["bytes_sent_total"] > 0
    assert found["bytes_sent_total"] == found["bytes_float32_total"]
    assert found["rounds_to_99_worst"] >= found["rounds_to_99"] >= 1
    assert 0 < found["ece_swarm"] < 0.2


@needs_ist
def test_a_missed_bar_is_a_failure_that_says_both_numbers(tmp_path: Path) -> None:
    spec = small_stroke(rounds=1, hospitals=2)
    hard = replace(spec, targets=replace(spec.targets, external_over_alone_min=0.4))
    run = simulated(hard, tmp_path / "run", IST)
    lines = failures(VariantRuns(name="main", spec=hard, runs=(run,)))
    assert any("auc_external_swarm: 0." in line and "need >= 1." in line for line in lines), lines


def test_variants_and_seeds_are_compared_in_one_table_file_and_figure(tmp_path: Path) -> None:
    done = swarm_scenario(
        "compare", "four-hospitals", "--seeds", "2", "--rounds", "2", "--out", tmp_path,
        "--variant", "k1=training.local_steps=1", "--json", tmp_path / "found.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert [one["name"] for one in found["variants"]] == ["main", "k1"]
    assert found["seeds"] == [7, 8]
    main, short = found["variants"]
    assert main["auc_swarm"] != short["auc_swarm"]
    for one in found["variants"]:
        for digests in one["result_digests_by_seed"]:
            assert len(set(digests)) == 1
        assert one["verdicts"] == ["VERIFIED", "VERIFIED"]
        bounds = one["intervals"]["auc_swarm"]
        assert bounds["low"] <= one["auc_swarm"] <= bounds["high"]
    figure = (tmp_path / "four-hospitals-compare-1" / "comparison.svg").read_text(encoding="utf-8")
    assert figure.startswith("<svg ")
    assert "k1" in figure
    report = (tmp_path / "four-hospitals-compare-1" / "report.html").read_text(encoding="utf-8")
    assert "Over all seeds" in report
    assert "k1" in done.stdout
