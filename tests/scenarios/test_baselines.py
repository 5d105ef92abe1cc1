"""Alone and pooled are measured through the sites' own files, in a process beside the nodes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from node.config import load_site
from scenarios.baselines import BaselineProcess, levels_from_json, levels_to_json
from scenarios.commands import ScenarioError
from scenarios.main_job import Job, make_charter, make_sites
from scenarios.outcome import Level, Measured
from scenarios.spec import load_spec


def test_each_hospital_gets_both_levels_on_its_own_validation_patients(tmp_path: Path) -> None:
    spec = load_spec("four-hospitals").override(rounds=3, seed=5)
    job = Job.prepare(spec, data=None, out=tmp_path, keep=True)
    make_sites(job)
    charter, digest = make_charter(job)
    assert charter.digest_hex == digest
    assert (charter.rounds.rounds, charter.seed) == (3, 5)
    assert [member.name for member in charter.members] == [h.name for h in spec.hospitals]
    for site in job.sites:
        config = load_site(site.config)
        assert config.charter_digest == digest
        assert config.data.split_seed == 5
    with BaselineProcess([site.config for site in job.sites], job.directory) as process:
        levels = process.result()
    assert sorted(levels) == [0, 1, 2, 3]
    counts = []
    for alone, pooled in levels.values():
        assert alone.auc is not None
        assert pooled.auc is not None
        assert alone.auc.low <= alone.auc.value <= alone.auc.high
        assert alone.auc.count == pooled.auc.count
        counts.append(alone.auc.count)
    assert sum(counts) == pytest.approx(0.3 * 569, abs=4)
    assert levels_from_json(json.loads(json.dumps(levels_to_json(levels)))) == levels


def test_an_undefined_level_survives_the_way_through_json() -> None:
    level = Level(auc=None, loss=Measured(value=0.5, low=0.4, high=0.6, count=3))
    assert levels_from_json(levels_to_json({2: (level, level)})) == {2: (level, level)}


def test_baselines_that_fail_say_why(tmp_path: Path) -> None:
    with (
        BaselineProcess([tmp_path / "none.toml"], tmp_path) as process,
        pytest.raises(ScenarioError, match=r"baselines ended with exit status 1: .*none\.toml"),
    ):
        process.result()


def test_run_directories_never_overwrite_each_other(tmp_path: Path) -> None:
    spec = load_spec("four-hospitals")
    jobs = [Job.prepare(spec, data=None, out=tmp_path, keep=True) for _ in range(3)]
    names = [job.directory.name for job in jobs]
    assert names == ["four-hospitals-1", "four-hospitals-2", "four-hospitals-3"]
    assert jobs[0].report == replace(jobs[0], keep=False).report
