"""After a run: what goes to auditors, and the model that leaves the site. A real node, a swarm of one."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from site_factory import (
    SWARM_NODE,
    Site,
    assert_one_line_error,
    make_federation,
    run_command,
    write_patients,
)

from ledger.canonical import UINT_MAX
from ledger.record import MetricId, MetricValue
from node.cli import call
from node.model_files import Measured


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """One hospital alone agrees with itself: the whole path through real commands."""
    settings = ("training.learning_rate=0.5", "training.local_epochs=10")
    (site,) = make_federation(tmp_path_factory.mktemp("swarm"), rounds=3, settings=settings)
    done = run_command("run", "--config", site.config, "--linger", "0")
    assert done.returncode == 0, done.stderr
    return site


@pytest.fixture(scope="module")
def exported(trained: Site) -> Path:
    file = trained.directory / "model.safetensors"
    assert call(["model", "export", str(file), "--config", str(trained.config)]) == 0
    return file


def status_of(site: Site, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert call(["status", str(site.directory), "--json"]) == 0
    status: dict[str, Any] = json.loads(capsys.readouterr().out)
    return status


def test_the_model_says_where_it_comes_from(
    trained: Site, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = status_of(trained, capsys)
    with safe_open(exported, framework="np") as opened:
        metadata = opened.metadata()
        names = set(opened.keys())
    assert metadata["round"] == "3"
    assert metadata["digest"] == status["result_digest"]
    assert (status["phase"], status["waiting_for"]) == ("done", "")
    assert metadata["federation"] == "test"
    assert metadata["charter_digest"] == status["charter_digest"]
    (participant,) = json.loads(metadata["participants"])
    assert (participant["name"], participant["weight_micro"]) == ("Anna", 1_000_000)
    assert names == {"model.linear.weight", "model.linear.bias", "moments"}


def test_the_exported_model_measures_as_the_node_measured_it(
    trained: Site, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.numpy import load_file

    from node.config import load_site, load_site_charter
    from node.data import load_site_data
    from swarm.learning.task import LearningTask

    config = load_site(trained.config)
    charter = load_site_charter(config)
    data = load_site_data(config.data, charter.schema, directory=config.directory, allow=())
    task = LearningTask(charter, data, allow=(), seed=0, threads=1)
    again = task.evaluate(task.from_tensors(load_file(exported)))
    assert again[0].micro / 1_000_000 == status_of(trained, capsys)["auc"]


def test_evaluate_on_new_patients_gives_intervals(
    trained: Site, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_patients(tmp_path / "new.csv", rows=80, seed=99)
    arguments = ["model", "evaluate", str(exported), "--data", str(data)]
    arguments += ["--config", str(trained.config)]
    capsys.readouterr()
    assert call([*arguments, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["rows"], shown["round"]) == (80, 3)
    auc = shown["metrics"]["auc"]
    assert 0.7 < auc["low"] < auc["value"] < auc["high"] <= 1
    assert call(arguments) == 0
    assert "95 % interval" in capsys.readouterr().out


def test_evaluate_refuses_what_does_not_fit(
    trained: Site, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_patients(tmp_path / "new.csv")
    wrong = tmp_path / "wrong.csv"
    wrong.write_text(data.read_text().replace("age", "years"))
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(exported.read_bytes()[:100])
    (other,) = make_federation(tmp_path / "other")
    for file, table, config, words in (
        (exported, wrong, trained.config, ("column",)),
        (exported, tmp_path / "none.csv", trained.config, ("none.csv",)),
        (damaged, data, trained.config, ("damaged.safetensors",)),
        (tmp_path / "none.safetensors", data, trained.config, ("does not exist",)),
        (exported, data, other.config, ("another charter",)),
    ):
        capsys.readouterr()
        arguments = ["model", "evaluate", str(file), "--data", str(table), "--config", str(config)]
        assert call(arguments) == 2
        assert_one_line_error(capsys.readouterr().err, *words)


def test_a_metric_beyond_what_a_ledger_holds_is_shown_as_a_bound() -> None:
    most = UINT_MAX
    at_most = MetricValue(metric=MetricId.MSE, micro=most, low_micro=most, high_micro=most, count=9)
    assert Measured.of(at_most).is_bound
    below = MetricValue(
        metric=MetricId.MSE, micro=most - 1_000, low_micro=0, high_micro=most, count=9
    )
    assert not Measured.of(below).is_bound


def test_evaluate_asks_for_no_patient_column_since_nothing_is_split(
    trained: Site, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = trained.config.read_text()
    new = write_patients(tmp_path / "new.csv", rows=80, seed=99)
    own = trained.patients.read_text()
    try:
        trained.edit("# group =", "group =")
        lines = own.splitlines()
        numbered = [f"{'patient_id' if at == 0 else at},{line}" for at, line in enumerate(lines)]
        trained.patients.write_text("\n".join(numbered))
        arguments = ["model", "evaluate", str(exported), "--data", str(new)]
        assert call([*arguments, "--config", str(trained.config)]) == 0
        assert "80 rows" in capsys.readouterr().out
    finally:
        trained.config.write_text(before)
        trained.patients.write_text(own)


def test_a_model_goes_into_a_file_not_into_a_folder(
    trained: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (".", str(tmp_path)):
        capsys.readouterr()
        assert call(["model", "export", folder, "--config", str(trained.config)]) == 2
        assert_one_line_error(capsys.readouterr().err, "is a folder")


def test_a_model_whose_payload_is_gone_is_said_so(
    trained: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = status_of(trained, capsys)["result_digest"]
    (payload,) = (trained.directory / "blobs").glob(f"{digest}.*")
    content = payload.read_bytes()
    try:
        payload.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        file = tmp_path / "m.safetensors"
        assert call(["model", "export", str(file), "--config", str(trained.config)]) == 1
        assert_one_line_error(capsys.readouterr().err, "round 3", "not stored here")
        assert not file.exists()
    finally:
        payload.write_bytes(content)


def test_the_bundle_that_is_exported_verifies(
    trained: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    assert call(["export", str(bundle), "--config", str(trained.config), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (bundle / "charter.toml").read_bytes() == trained.charter.read_bytes()
    everything = b"".join(path.read_bytes() for path in bundle.rglob("*") if path.is_file())
    assert trained.seed.read_bytes() not in everything
    audit = SWARM_NODE.with_name("swarm-audit")
    done = subprocess.run(
        [audit, "verify", bundle, "--charter", bundle / "charter.toml",
         "--charter-digest", shown["charter_digest"]],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "VERIFIED" in done.stdout


def test_the_log_is_json_lines_for_the_owner_alone(trained: Site) -> None:
    log = trained.directory / "node.log"
    assert log.stat().st_mode & 0o077 == 0
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"time", "level", "event", "site"} <= set(events[0])
    assert [e["round"] for e in events if e["event"] == "round_closed"] == [1, 2, 3]


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[tuple[Site, subprocess.Popen[str]]]:
    """A node that waits for a second hospital which does not come."""
    (site, _) = make_federation(tmp_path, ("Anna", "Berta"))
    arguments = [SWARM_NODE, "run", "--config", site.config]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline_s = time.monotonic() + 30
            while not (site.directory / "node.sock").exists():
                assert process.poll() is None
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
            yield site, process
        finally:
            if process.poll() is None:
                process.kill()


def test_a_running_node_answers_keeps_its_port_and_leaves_cleanly(
    waiting: tuple[Site, subprocess.Popen[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    site, process = waiting
    status = status_of(site, capsys)
    assert (status["running"], status["pid"]) == (True, process.pid)
    assert call(["doctor", "--offline", "--config", str(site.config)]) == 0
    assert "held by this site's running node" in capsys.readouterr().out
    second = run_command("run", "--config", site.config)
    assert second.returncode == 1
    assert_one_line_error(second.stderr, "another process")
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in stderr
    assert not (site.directory / "node.sock").exists()


def test_the_doctor_of_another_site_dials_a_running_node_and_compares_clocks(
    waiting: tuple[Site, subprocess.Popen[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    site, process = waiting
    berta = site.directory.parent / "berta" / "site.toml"
    capsys.readouterr()
    done = run_command("doctor", "--config", berta)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok    dial: Anna answers" in done.stdout
    assert "ok    clock: agrees with Anna's" in done.stdout
    assert done.stderr == ""
    assert process.poll() is None
    assert not (berta.parent / "ledger.db").exists()


def test_the_doctor_tells_that_a_running_node_holds_another_charter(
    waiting: tuple[Site, subprocess.Popen[str]],
) -> None:
    site, _ = waiting
    berta = Site(site.directory.parent / "berta", 0)
    before = berta.charter.read_text()
    try:
        berta.charter.write_text(before + "# one byte is enough\n")
        done = run_command("doctor", "--config", berta.config)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "FAIL  dial: Anna: it holds another charter — both: compare" in done.stdout
    finally:
        berta.charter.write_text(before)


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    import socket

    (site, *_) = make_federation(tmp_path, ("Anna", "Berta"))
    with socket.create_server(("127.0.0.1", site.port)):
        done = run_command("run", "--config", site.config, "--log-level", "error")
        assert done.returncode == 2
        assert_one_line_error(done.stderr, str(site.port), "in use")


def test_of_several_models_a_site_exports_the_one_that_suits_its_patients(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = (
        "aggregation.strategy=ifca", "training.class_weights=federated", "training.local_epochs=3",
    )  # fmt: skip
    (site,) = make_federation(tmp_path, rounds=2, settings=settings)
    done = run_command("run", "--config", site.config, "--linger", "0")
    assert done.returncode == 0, done.stderr
    file = tmp_path / "model.safetensors"
    assert call(["model", "export", str(file), "--config", str(site.config)]) == 0
    with safe_open(file, framework="np") as opened:
        assert set(opened.keys()) == {"model.linear.weight", "model.linear.bias", "moments"}
        weight = opened.get_tensor("model.linear.weight")
        assert opened.get_tensor("moments").size == 3 * (weight.shape[1] + 2), "columns and classes"
    patients = tmp_path / "elsewhere.csv"
    write_patients(patients, seed=5)
    capsys.readouterr()
    command = [
        "model",
        "evaluate",
        str(file),
        "--data",
        str(patients),
        "--config",
        str(site.config),
    ]
    assert call([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metrics"]["auc"]["value"] > 0.7
