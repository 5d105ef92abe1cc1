"""`swarm-node leave` between real nodes: the others hear the goodbye and need no deadline."""

import json
import subprocess
import time
from pathlib import Path

import pytest
from site_factory import SWARM_NODE, Site, make_federation, run_command

NAMES = ("Anna", "Berta", "Carla")
LATE_S = 60


def start(command: str, config: Path, *more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [SWARM_NODE, command, "--config", config, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def round_of(site: Site) -> int:
    done = run_command("status", str(site.directory), "--json")
    return int(json.loads(done.stdout)["round"]) if done.returncode == 0 else 0


@pytest.mark.processes
def test_a_site_leaves_for_good_and_the_others_finish(tmp_path: Path) -> None:
    sites = make_federation(
        tmp_path, NAMES, rounds=25, settings=("rounds.deadline_min_s=20", "rounds.members_min=2")
    )
    nodes = [start("run", site.config) for site in sites]
    leaver, stayer = sites[2], sites[0]
    try:
        ends = time.monotonic() + LATE_S
        while round_of(leaver) < 2:
            assert time.monotonic() < ends, "the rounds do not begin"
            time.sleep(0.3)
        done = run_command("leave", "--yes", "--config", str(leaver.config))
        assert done.returncode != 0, "its node still runs"
        assert "another process" in done.stderr
        nodes[2].terminate()
        assert nodes[2].wait(timeout=30) == 0
        left = run_command("leave", "--yes", "--json", "--config", str(leaver.config))
        assert left.returncode == 0, left.stderr
        assert json.loads(left.stdout)["phase"] == "left"
        for node in nodes[:2]:
            assert node.wait(timeout=LATE_S) == 0, "the others wait for who has left"
    finally:
        for node in nodes:
            node.kill()
            node.communicate()
    shown = run_command("status", str(stayer.directory))
    assert "Carla has left for good" in shown.stdout
    again = run_command("run", "--linger", "1", "--config", str(leaver.config), "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["phase"] == "left"


@pytest.mark.parametrize("answer", ["n\n", ""])
def test_leaving_is_asked_for_twice(tmp_path: Path, answer: str) -> None:
    site = make_federation(tmp_path)[0]
    done = subprocess.run(
        [SWARM_NODE, "leave", "--config", site.config],
        input=answer, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 130
    assert "Anna leaves for good? [y/N]:" in done.stderr
    assert not (site.directory / "ledger.db").exists()
