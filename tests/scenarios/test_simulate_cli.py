"""`swarm-scenario simulate` as it is typed: exit statuses, JSON, replay, a log to go on from."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from scenarios.cli import app
from scenarios.simulation.liars import ATTACKS
from scenarios.simulation.plan import Size, draw_plan
from scenarios.simulation.plan_file import plan_of_json, plan_to_json
from scenarios.simulation.plants import PLANTS
from scenarios.simulation.soak import Settings

SEEDS = 3


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["simulate", *map(str, arguments)])


def test_json_has_the_head_of_every_seed_and_another_process_writes_the_same(
    tmp_path: Path,
) -> None:
    done = call("--seeds", SEEDS, "--start", 40, "--json", tmp_path / "here.json")
    assert done.exit_code == 0, done.output
    # Python leaves SIGINT ignored where whoever started the tests did, as a shell does for what it runs behind.
    program = "import signal, scenarios.cli as cli; signal.signal(2, signal.default_int_handler); cli.main()"
    command = [sys.executable, "-c", program, "simulate", "--seeds", str(SEEDS), "--start", "40"]
    subprocess.run(
        [*command, "--jobs", "2", "--json", tmp_path / "there.json"],
        check=True, capture_output=True, env=os.environ | {"PYTHONHASHSEED": "77"},
    )  # fmt: skip
    here, there = (
        json.loads((tmp_path / name).read_text()) for name in ("here.json", "there.json")
    )
    assert here["seeds"] == SEEDS
    assert here["failed"] == []
    assert list(here["heads"]) == ["40", "41", "42"]
    assert all(len(heads) == 64 for heads in here["heads"].values())
    assert here["heads"] == there["heads"], "two runs of one seed differ"
    assert here["virtual_s"] == there["virtual_s"]


def test_a_failure_prints_its_plan_and_the_command_that_shows_it_again(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = call("--seeds", 2, "--calm", "--plant", "weights-equal", "--json", report)
    assert done.exit_code == 1, done.output
    first, second = json.loads(report.read_text())["failed"]
    assert first["invariant"] == "bundles-verify"
    assert first["violations"][0].startswith("bundles-verify: ")
    assert first["replay"] == (
        "swarm-scenario simulate --replay 0 --calm --plant weights-equal --trace"
    )
    for one in (first, second):
        assert one["replay"] in done.output
        assert f"  seed {one['seed']}: " in done.output, "its plan"
    again = call(*first["replay"].split()[2:])
    assert again.exit_code == 1
    assert "FAILED bundles-verify" in again.output
    assert "round_closed" in again.output, "the trace"


def test_a_run_that_was_cut_off_goes_on_where_it_was(tmp_path: Path) -> None:
    log = tmp_path / "soak.log"
    assert call("--seeds", 2, "--log", log).exit_code == 0
    lines = log.read_text().splitlines()
    assert len(lines) == 3
    done = call("--seeds", 3, "--log", log)
    assert done.exit_code == 0, done.output
    assert "2 seeds are in the log already" in done.output
    assert log.read_text().splitlines()[:3] == lines
    assert len(log.read_text().splitlines()) == 4
    assert call("--seeds", 3, "--members", 5, "--log", log).exit_code == 2
    head, rest = log.read_text().split("\n", 1)
    log.write_text(json.dumps(json.loads(head) | {"program": "another"}) + "\n" + rest)
    done = call("--seeds", 3, "--log", log)
    assert done.exit_code == 2
    assert "other program files" in done.output


@pytest.mark.parametrize(("jobs", "number"), [(1, signal.SIGINT), (2, signal.SIGTERM)])
def test_ctrl_c_ends_it_in_one_line_and_the_log_goes_on(
    tmp_path: Path, jobs: int, number: signal.Signals
) -> None:
    log = tmp_path / "soak.log"
    # Python leaves SIGINT ignored where whoever started the tests did, as a shell does for what it runs behind.
    program = "import signal, scenarios.cli as cli; signal.signal(2, signal.default_int_handler); cli.main()"
    command = [
        sys.executable,
        "-c",
        program,
        "simulate",
        "--seeds",
        "500",
        "--jobs",
        str(jobs),
        "--log",
        log,
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        try:
            while run.poll() is None and (
                not log.exists() or len(log.read_text().splitlines()) < 3
            ):
                time.sleep(0.05)
            os.killpg(run.pid, number)  # as a terminal does: everybody hears it
            out, err = run.communicate(timeout=60)
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode == 130, (out, err)
    assert len(err.splitlines()) == 1, err
    assert err.startswith("swarm-scenario: interrupted after ")
    assert str(log) in err
    assert out == ""
    results = [json.loads(line) for line in log.read_text().splitlines()[1:]]
    assert 2 <= len(results) < 500
    with log.open("a") as file:
        file.write('{"seed": 499, "viol')  # and a power cut in the middle of a line
    done = call("--seeds", 2, "--log", log)
    assert done.exit_code == 0, done.output
    assert f"{len(results)} seeds are in the log already" in done.output


@pytest.mark.parametrize("foreign", [b"ward 7: 3 beds", b"one\ntwo", b'{"program":1}\n{"se'])
def test_a_file_that_is_no_log_is_refused_and_stays_as_it_is(
    tmp_path: Path, foreign: bytes
) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(foreign)
    assert call("--seeds", 1, "--log", path).exit_code == 2
    assert path.read_bytes() == foreign


@pytest.mark.parametrize(
    "wrong",
    [
        ["--plant", "no-such-bug"],
        ["--averaging", "sideways"],
        ["--averaging", "sideways", "--members", "30"],
        ["--replay", "3", "--json", "seeds.json"],
        ["--replay", "3", "--log", "seeds.log"],
        ["--json", "no-such-folder/seeds.json"],
    ],
)
def test_wrong_usage_is_one_line_and_exit_status_2(wrong: list[str]) -> None:
    done = call("--seeds", 1, *wrong)
    assert (done.exit_code, len(done.output.splitlines())) == (2, 1), done.output


def test_no_seeds_at_all_are_refused() -> None:
    assert call("--seeds", 0).exit_code == 2


def test_a_calm_swarm_of_two_processes_is_repeated_by_running_its_seed_again() -> None:
    settings = Settings(size=Size(members=30, averaging="gossip", calm=True))
    assert settings.replay(7) == (
        "swarm-scenario simulate --start 7 --seeds 1 --calm --members 30 --averaging gossip"
    )
    assert Settings(size=Size(members=30)).replay(7) == (
        "swarm-scenario simulate --replay 7 --faults --members 30 --trace"
    )


def test_every_bug_that_can_be_planted_is_named() -> None:
    done = call("--plant", "list")
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.output.splitlines()] == list(PLANTS)
    assert len(PLANTS) >= 10
    assert len(ATTACKS) >= 10


def test_a_plan_in_a_file_is_run_however_seeds_are_drawn(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    plan = draw_plan(3, Size(members=4, rounds=3))
    file.write_text(plan_to_json(plan))
    done = call("--plan", file)
    assert done.exit_code == 0, done.output
    assert done.output.startswith(plan.lines()[0])
    assert f"of {len(plan.faults)} faults began" in done.output


@pytest.mark.parametrize("text", ["", "{}", '{"is": "Plan"}', '{"is": "Path"}', "[1", '"Plan"'])
def test_what_is_no_plan_is_said_in_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text(text)
    done = call("--plan", file)
    assert done.exit_code == 2
    assert len(done.output.splitlines()) == 1
    assert "not a plan" in done.output
    assert "No such file" in call("--plan", tmp_path / "none").output


@pytest.mark.parametrize("change", [{"members": "x"}, {"faults": 3}, {"network": None}])
def test_a_plan_with_a_wrong_value_is_none(tmp_path: Path, change: dict[str, object]) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(json.loads(plan_to_json(draw_plan(3))) | change))
    done = call("--plan", file)
    assert (done.exit_code, len(done.output.splitlines())) == (2, 1)
    assert next(iter(change)) in done.output


def test_the_json_of_a_run_that_went_on_names_what_failed_before(tmp_path: Path) -> None:
    log, file = tmp_path / "soak.log", tmp_path / "seeds.json"
    options = ("--calm", "--plant", "weights-equal", "--log", log)
    assert call("--seeds", 1, *options).exit_code == 1
    done = call("--seeds", 1, *options, "--json", file)
    assert done.exit_code == 1
    assert "1 seeds are in the log already" in done.output
    told = json.loads(file.read_text())
    (failed,) = told["failed"]
    assert (told["seeds"], list(told["heads"]), failed["seed"]) == (1, ["0"], 0)
    assert plan_of_json(failed["plan"], source="it") == draw_plan(0, Size(calm=True))
    assert told["faults"] == {"begun": 0, "planned": 0}
