"""Sites and charter of real nodes, as a scenario asks for them."""

from dataclasses import replace
from pathlib import Path

from node.config import load_site
from scenarios.main_job import Job, make_charter, make_sites
from scenarios.spec import load_spec


def test_sites_and_charter_are_what_the_scenario_says(tmp_path: Path) -> None:
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


def test_run_directories_never_overwrite_each_other(tmp_path: Path) -> None:
    spec = load_spec("four-hospitals")
    jobs = [Job.prepare(spec, data=None, out=tmp_path, keep=True) for _ in range(3)]
    names = [job.directory.name for job in jobs]
    assert names == ["four-hospitals-1", "four-hospitals-2", "four-hospitals-3"]
    assert jobs[0].report == replace(jobs[0], keep=False).report
