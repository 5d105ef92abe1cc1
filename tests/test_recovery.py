"""A hospital that lost its ledger comes back in a new key epoch: real processes, real files."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.frames import read_frames
from ledger.record import Kind, decode_record, split_envelope
from node.cli import call
from scenarios.audit import audit
from scenarios.commands import program
from scenarios.main_job import export_bundles
from scenarios.processes import Site
from tests.test_processes import Hospitals, final_status

pytestmark = pytest.mark.processes
ROUNDS = 4
LOST_AFTER_ROUND = 2
WAIT_S_MAX = 60.0


@pytest.fixture
def hospitals(tmp_path: Path) -> Iterator[Hospitals]:
    """Every round needs all four, so the others wait for the one that is away."""
    made = Hospitals(tmp_path, ROUNDS, **{"rounds.members_min": 4, "training.local_steps": 20})
    yield made
    made.stop()


def refused_start(site: Site) -> str:
    """Start a node that must not start; return the line that it says."""
    done = subprocess.run(
        [program("swarm-node"), "run", "--config", str(site.config)],
        capture_output=True, text=True, check=False, timeout=WAIT_S_MAX,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    (line,) = (one for one in done.stderr.splitlines() if one.startswith("swarm-node:"))
    return line


def kinds_of(log: Path) -> list[Kind]:
    return [Kind(decode_record(split_envelope(one)[0])[7]) for one in read_frames(log)]


def lose_the_database(site: Site) -> None:
    lost = site.directory / "lost"
    lost.mkdir()
    for path in site.directory.glob("ledger.db*"):
        path.rename(lost / path.name)
    assert (site.directory / "ledger.mark").exists()


def test_a_hospital_that_lost_its_ledger_comes_back_in_a_new_epoch(
    hospitals: Hospitals, tmp_path: Path
) -> None:
    """As docs/howto/operate.md, "A lost ledger", says, step by step."""
    anna, *others = hospitals.job.sites
    for site in hospitals.job.sites:
        hospitals.start(site)
    hospitals.wait_for_round(anna, LOST_AFTER_ROUND)
    hospitals.processes[anna.name].send_signal(signal.SIGINT)
    assert hospitals.processes[anna.name].wait(timeout=WAIT_S_MAX) == 0
    lose_the_database(anna)
    line = refused_start(anna)
    assert "holds 0 of them" in line
    assert "ask the federation for a key rotation (`swarm-node roster propose rotate`)" in line

    bundle, update = str(tmp_path / "bundle-of-another"), str(tmp_path / "r.update")
    another, own = ["--config", str(others[0].config)], ["--config", str(anna.config)]
    assert call(["export", bundle, *another]) == 0
    rotate = ["roster", "propose", "rotate", anna.name]
    assert call([*rotate, "--bundle", bundle, "--out", update, *own]) == 0
    for site in others:
        seed = str(site.directory / "keys" / "admin.seed")
        assert call(["roster", "sign", update, "--admin-seed", seed, "--bundle", bundle]) == 0
    assert call(["roster", "submit", update, *another]) == 0
    assert call(["roster", "submit", update, *own]) == 0
    hospitals.start(anna)
    assert set(hospitals.wait_for_the_end().values()) == {0}, anna.console.read_text()[-2000:]

    statuses = [final_status(site) for site in hospitals.job.sites]
    assert {status["agreed_round"] for status in statuses} == {ROUNDS}
    assert len({status["result_digest"] for status in statuses}) == 1
    bundles = export_bundles(hospitals.job)
    for one in bundles:
        assert Kind.CONTRIBUTION in kinds_of(one / "logs" / "0000-0001.log"), "it takes part again"
        alone = audit([one], charter=hospitals.job.charter, charter_digest=hospitals.digest)
        assert (alone.verdict, alone.exit_status) == ("VERIFIED", 0), alone
    ledger = audit(bundles, charter=hospitals.job.charter, charter_digest=hospitals.digest)
    assert (ledger.verdict, ledger.exit_status) == ("VERIFIED", 0), ledger
