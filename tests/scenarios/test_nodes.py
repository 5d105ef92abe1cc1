"""The watcher of node processes, with small programs in place of nodes: what ends, ends for good."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from scenarios import processes
from scenarios.commands import ScenarioError
from scenarios.live import PlainLines
from scenarios.processes import Nodes, Site


def sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripts: Sequence[str]) -> list[Site]:
    """Make a site for each shell script; `swarm-node run --config DIR/site.toml` runs DIR/node."""
    runner = tmp_path / "swarm-node"
    runner.write_text('#!/bin/sh\nexec sh "$(dirname "$3")/node"\n', encoding="utf-8")
    runner.chmod(0o755)
    monkeypatch.setattr(processes, "program", lambda _name: str(runner))
    made = []
    for at, script in enumerate(scripts):
        directory = tmp_path / f"hospital-{at}"
        directory.mkdir()
        (directory / "node").write_text(script, encoding="utf-8")
        made.append(Site(name=f"Hospital {at}", directory=directory))
    return made


def quiet() -> PlainLines:
    return PlainLines(Console(quiet=True))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_nodes_that_leave_by_themselves_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sites(tmp_path, monkeypatch, ["exit 0", "sleep 0.3; exit 0"])
    with Nodes(made) as nodes:
        views = nodes.follow(quiet(), wall_s_max=10.0)
        assert [view.name for view in views] == ["Hospital 0", "Hospital 1"]
        assert {view.phase for view in nodes.views} == {"left"}


def test_a_death_is_reported_with_the_tail_of_its_log_and_ends_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sites(
        tmp_path, monkeypatch, ["exec sleep 60", "echo warming up; echo no such file >&2; exit 1"]
    )
    with Nodes(made) as nodes:
        pids = nodes.pids
        with pytest.raises(ScenarioError) as raised:
            nodes.follow(quiet(), wall_s_max=30.0)
    text = str(raised.value)
    assert "the node of Hospital 1" in text
    assert "with exit status 1" in text
    assert text.endswith("warming up\n    no such file")
    assert not any(map(is_alive, pids))


def test_what_takes_too_long_is_stopped_and_says_where_everybody_stood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sites(tmp_path, monkeypatch, ["exec sleep 60", "exec sleep 60"])
    with Nodes(made) as nodes:
        pids = nodes.pids
        with pytest.raises(ScenarioError, match="not done after 0 s: Hospital 0: starting"):
            nodes.follow(quiet(), wall_s_max=0.4)
    assert not any(map(is_alive, pids))


def test_a_node_that_ignores_ctrl_c_is_ended_anyway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STOP_WAIT_S", 0.3)
    made = sites(tmp_path, monkeypatch, ["trap '' INT; while :; do sleep 0.05; done"])
    with Nodes(made) as nodes:
        pids = nodes.pids
        time.sleep(0.2)
    assert not any(map(is_alive, pids))
