"""Real processes, real sockets: one hospital's death costs the others nothing."""

import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from node.config import socket_path
from node.status import ask
from scenarios.audit import audit
from scenarios.commands import command, program
from scenarios.main_job import Job, export_bundles, make_charter, make_sites
from scenarios.processes import Site
from scenarios.spec import load_spec

pytestmark = pytest.mark.processes

ROUNDS = 14
WALL_S_MAX = 240.0


class Hospitals:
    """Four sites made and run exactly as hospitals do, killed as hospitals' machines are."""

    def __init__(self, directory: Path, rounds: int = ROUNDS, **settings: object) -> None:
        spec = load_spec("four-hospitals")
        # Long enough rounds that a death falls into the middle of one; short patience.
        slow = {
            "model.name": "mlp",
            "training.local_steps": 400,
            "rounds.deadline_min_s": 4.0,
            "rounds.deadline_max_s": 20.0,
            "rounds.grace_s": 2.0,
            "rounds.inactive_after_rounds": 2,
        }
        charter = dict(spec.charter) | (settings or slow)
        site = dict(spec.site) | {"run.linger_s": 60.0}
        spec = replace(spec, rounds=rounds, charter=charter, site=site)
        self.job = Job.prepare(spec, data=None, out=directory, keep=True)
        make_sites(self.job)
        self.charter, self.digest = make_charter(self.job)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, site: Site) -> None:
        with site.console.open("ab") as console:
            self.processes[site.name] = subprocess.Popen(
                [program("swarm-node"), "run", "--config", str(site.config)],
                stdout=console,
                stderr=subprocess.STDOUT,
            )

    def kill(self, site: Site) -> None:
        self.processes[site.name].send_signal(signal.SIGKILL)
        self.processes[site.name].wait()

    def wait_for_round(self, site: Site, round_: int) -> None:
        deadline_s = time.monotonic() + WALL_S_MAX
        while time.monotonic() < deadline_s:
            status = ask(socket_path(site.directory))
            if status is not None and status["round"] >= round_:
                return
            assert self.processes[site.name].poll() is None, site.console.read_text()[-2000:]
            time.sleep(0.02)
        pytest.fail(f"{site.name} never reached round {round_}")

    def wait_for_the_end(self) -> dict[str, int]:
        deadline_s = time.monotonic() + WALL_S_MAX
        return {
            name: process.wait(timeout=max(1.0, deadline_s - time.monotonic()))
            for name, process in self.processes.items()
        }

    def stop(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture
def hospitals(tmp_path: Path) -> Iterator[Hospitals]:
    made = Hospitals(tmp_path)
    yield made
    made.stop()


def final_status(site: Site) -> dict[str, object]:
    import json

    _, printed = command("swarm-node", "status", "--config", site.config, "--json")
    status: dict[str, object] = json.loads(printed)
    return status


def test_the_others_finish_without_the_dead_one_which_catches_up_from_those_who_linger(
    hospitals: Hospitals,
) -> None:
    *others, victim = hospitals.job.sites
    for site in hospitals.job.sites:
        hospitals.start(site)
    hospitals.wait_for_round(victim, 3)
    hospitals.kill(victim)
    for site in others:
        hospitals.wait_for_round(site, ROUNDS)
    hospitals.start(victim)
    assert set(hospitals.wait_for_the_end().values()) == {0}
    statuses = [final_status(site) for site in hospitals.job.sites]
    assert len({status["result_digest"] for status in statuses}) == 1
    assert {status["rounds_agreed"] for status in statuses} == {ROUNDS}
    ledger = audit(
        export_bundles(hospitals.job),
        charter=hospitals.job.charter,
        charter_digest=hospitals.digest,
    )
    assert ledger.verdict == "VERIFIED"
    assert ledger.anchored == ledger.records


def test_ctrl_c_leaves_cleanly_and_the_next_start_goes_on_where_it_was(
    hospitals: Hospitals,
) -> None:
    sites = hospitals.job.sites
    for site in sites:
        hospitals.start(site)
    hospitals.wait_for_round(sites[0], 2)
    for site in sites:
        hospitals.processes[site.name].send_signal(signal.SIGINT)
    assert set(hospitals.wait_for_the_end().values()) == {0}
    before = final_status(sites[0])
    assert before["running"] is False
    assert before["phase"] == "stopped"
    for site in sites:
        assert "Traceback" not in site.console.read_text()
        hospitals.start(site)
    assert set(hospitals.wait_for_the_end().values()) == {0}
    assert {final_status(site)["rounds_agreed"] for site in sites} == {ROUNDS}
