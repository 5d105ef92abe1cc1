"""`swarm-scenario` as one types it: usage errors are one line and status 2."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from scenarios.commands import program
from scenarios.spec import scenario_names


def swarm_scenario(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("swarm-scenario"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def test_list_names_every_scenario_on_a_line() -> None:
    done = swarm_scenario("list")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(scenario_names())


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"]])
def test_help_has_examples_and_exit_statuses_and_starts_light(arguments: list[str]) -> None:
    best_s = 9.0
    for _ in range(3):
        started_s = time.monotonic()
        done = swarm_scenario(*arguments)
        best_s = min(best_s, time.monotonic() - started_s)
        assert done.returncode == 0
    assert "Examples:" in done.stdout
    assert "Exit status: 0 every check holds" in done.stdout
    assert best_s < 1.5  # torch alone takes longer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "five"], 'there is no scenario "five"; choose from: '),
        (["run", "heart"], "--data: heart needs a folder with cleveland.csv, hungarian.csv"),
        (["run", "heart", "--data", "/nowhere"], "--data /nowhere: there is no such folder"),
        (["run", "four-hospitals", "--data", "."], "four-hospitals brings its own patients"),
        (["run", "stroke"], "--data: stroke needs a folder with external.csv"),
        (["compare", "heart"], "heart names no variants: give --variant, like k50="),
        (["compare", "stroke", "--variant", "k50"], "write it as NAME=KEY=VALUE"),
        (["run", "four-hospitals", "--json", "/nowhere/x.json"], "there is no folder /nowhere"),
        (["fly"], "No such command 'fly': see `swarm-scenario --help`"),
        (["run"], "Missing argument 'NAME': see `swarm-scenario run --help`"),
        (["run", "heart", "--rounds", "0"], "'--rounds': Input should be greater than or equal"),
        (["faults", "--case"], "Option '--case' requires an argument: see `swarm-scenario"),
        (["simulate", "--seed", "3"], "No such option: --seed"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(arguments: list[str], message: str) -> None:
    done = swarm_scenario(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("swarm-scenario: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_folder_without_a_hospitals_table_names_the_file(tmp_path: Path) -> None:
    for name in ("cleveland.csv", "hungarian.csv", "va.csv"):
        (tmp_path / name).write_text("age\n1\n", encoding="utf-8")
    done = swarm_scenario("run", "heart", "--data", tmp_path)
    assert done.returncode == 2
    assert "switzerland.csv not found there" in done.stderr


def test_real_nodes_run_several_seeds_and_give_what_simulated_ones_give(tmp_path: Path) -> None:
    done = swarm_scenario(
        "run", "four-hospitals", "--hospitals", "2", "--seeds", "2", "--rounds", "2", "--out", tmp_path,
        "--json", tmp_path / "found.json",
    )  # fmt: skip
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["seeds"] == [7, 8]
    assert found["rounds_agreed"] == 2
    assert found["verdicts"] == ["VERIFIED", "VERIFIED"]
    for name in ("rounds_to_99", "bytes_sent_total", "ece_swarm", "auc_test_pooled"):
        assert found[name] is not None
        assert len(found["intervals"][name]["per_seed"]) == 2
    assert found["bytes_float32_total"] == found["bytes_sent_total"] > 0
    assert found["auc_external_swarm"] is None
    assert done.returncode == (1 if found["failures"] else 0), done.stdout + done.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [
        f"four-hospitals-{number}" for number in (1, 2, 3)
    ]
