"""A real node takes an update from its inbox while it runs, and goes on under the new roster."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from site_factory import SWARM_NODE, Site, make_federation, run_command

from node.cli import call

NAMES = ("Anna", "Berta", "Carla", "Dora")


def until(condition: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends, f"waited a minute for {what}"
        time.sleep(0.3)


def members(site: Site) -> list[str]:
    done = run_command("status", str(site.directory), "--json")
    status = json.loads(done.stdout) if done.returncode == 0 else {}
    return [one["name"] for one in status["members"]] if status.get("running") else []


@pytest.mark.processes
def test_a_running_node_starts_anew_under_a_submitted_roster(tmp_path: Path) -> None:
    sites = make_federation(tmp_path, NAMES)
    anna = sites[0]
    emma, file = tmp_path / "emma", tmp_path / "r.update"
    assert call(["init", str(emma), "--name", "Emma"]) == 0
    node = subprocess.Popen(
        [SWARM_NODE, "run", "--config", anna.config], stderr=subprocess.PIPE, text=True
    )
    try:
        until(lambda: members(anna) == list(NAMES), "the node to run")
        config = ["--config", str(anna.config)]
        propose = ["roster", "propose", "add", "--member", str(emma / "member.toml")]
        assert call([*propose, "--out", str(file), *config]) == 0
        for site in sites[:3]:
            seed = str(site.directory / "keys" / "admin.seed")
            assert call(["roster", "sign", str(file), "--admin-seed", seed, *config]) == 0
        done = run_command("roster", "submit", str(file), "--json", *config)
        assert json.loads(done.stdout)["stored"] is False
        until(lambda: members(anna) == [*NAMES, "Emma"], "the new roster")
        assert node.poll() is None
        node.send_signal(signal.SIGTERM)
        assert node.wait(timeout=30) == 0
    finally:
        node.kill()
        node.communicate()
