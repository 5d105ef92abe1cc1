"""One calm swarm on two processes: one history, the same at both ends, and the same each time."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scenarios.cli import app
from scenarios.simulation.halves import run_in_halves
from scenarios.simulation.plan import Size, draw_plan
from scenarios.simulation.soak import LARGE_MEMBERS_MIN, Settings

CALM = Size(members=7, rounds=3, averaging="gossip", calm=True)


def test_two_halves_are_one_swarm_and_one_seed_one_history() -> None:
    first, second = (run_in_halves(draw_plan(5, CALM)) for _ in range(2))
    assert first.result.violations == ()
    assert first.are_alike, "all seven hold the same records"
    assert first.result.records >= 7 * (2 + 3 * 3), "everybody opened, took part and closed"
    assert (first.result.heads, first.result.steps, first.result.virtual_s) == (
        second.result.heads,
        second.result.steps,
        second.result.virtual_s,
    )


def test_only_a_calm_plan_is_run_in_halves() -> None:
    with pytest.raises(ValueError, match="calm"):
        run_in_halves(draw_plan(3))


def test_a_large_swarm_is_calm_and_run_in_halves_by_the_command(tmp_path: Path) -> None:
    size = Size(members=LARGE_MEMBERS_MIN, rounds=3, averaging="gossip", calm=True)
    options = ["--members", str(LARGE_MEMBERS_MIN), "--rounds", "3", "--averaging", "gossip"]
    report = tmp_path / "report.json"
    done = CliRunner().invoke(
        app, ["simulate", "--start", "5", "--seeds", "1", *options, "--json", str(report)]
    )
    assert done.exit_code == 0, done.output
    assert "nobody fails or lies; --faults" in done.output.splitlines()[0]
    heads = run_in_halves(draw_plan(5, size)).result.heads
    assert json.loads(report.read_text())["heads"] == {"5": heads}
    assert not Settings(size=replace(size, calm=False)).is_halved


def test_whoever_only_merges_or_simulates_needs_no_torch() -> None:
    program = "import sys, scenarios.simulation.halves, swarm.learning.merging; print('torch' in sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert said.stdout == "False\n"
