"""`swarm-scenario faults` from its command line to its verdict: real nodes, killed for good."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scenarios.commands import program

pytestmark = pytest.mark.processes

MEMBERS = 4
ROUNDS = 30
"""Six deaths take twenty; without --rounds there are 70."""
PHASES = ("train", "commit", "collect", "agree", "aggregate", "evaluate")
WALL_S_MAX = 400.0
STOP_WAIT_S = 30.0


@contextmanager
def started(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A command that, asked to end, ends the nodes that it has started."""
    with subprocess.Popen(
        [program("swarm-scenario"), *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=STOP_WAIT_S)


def test_four_hospitals_die_in_every_phase_and_nothing_completed_is_lost(tmp_path: Path) -> None:
    with started(
        "faults", "--case", "kill", "--members", str(MEMBERS), "--rounds", str(ROUNDS),
        "--json", tmp_path / "faults.json", "--out", tmp_path / "runs",
    ) as command:  # fmt: skip
        said, _ = command.communicate(timeout=WALL_S_MAX)
    assert command.returncode == 0, said
    found = json.loads((tmp_path / "faults.json").read_text(encoding="utf-8"))
    assert (found["ok"], found["skipped"], found["broken"]) == (True, [], [])
    (case,) = found["cases"]
    assert (case["name"], case["members"], case["failures"]) == ("kill", MEMBERS, [])
    assert (case["rounds_lost"], case["rounds_over_deadline"]) == (0, 0)
    assert (case["rounds_agreed"], case["verdict"]) == (ROUNDS, "VERIFIED")
    (digest,) = case["digests"]
    assert len(bytes.fromhex(digest)) == 32
    back_s = [case["figures"][f"killed_in_{phase}_s"] for phase in PHASES]
    assert case["recovered_s"] == max(back_s) >= min(back_s) > 0
    assert case["rounds_judged"] > ROUNDS, "most rounds of most members"
    assert list((tmp_path / "runs" / "faults-1").iterdir()) == [], "it passed, so nothing is kept"
