"""Logs are events with fields; nobody's values get into them."""

import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from node import telemetry
from node.telemetry import get_log, logging_to


def events(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_event_is_a_json_line_and_a_short_one(tmp_path: Path) -> None:
    terminal = io.StringIO()
    with logging_to(tmp_path / "node.log", "info", terminal):
        get_log(site="St. Anna").info(
            "round_closed", round=7, peers=frozenset({3, 1}), digest=b"\1" * 32
        )
        get_log().debug("not_now")
    (event,) = events(tmp_path / "node.log")
    assert event.pop("time")
    assert event == {
        "level": "info", "event": "round_closed", "site": "St. Anna", "round": 7,
        "peers": [1, 3], "digest": "01" * 8,
    }  # fmt: skip
    assert 'round closed  site="St. Anna" round=7 peers=1,3' in terminal.getvalue()


def test_values_of_patients_cannot_slip_into_a_log(tmp_path: Path) -> None:
    secret = 61234.5
    with logging_to(tmp_path / "node.log", "debug", io.StringIO()):
        get_log().info(
            "oops",
            array=np.full((3, 4), secret),
            row={"age": secret},
            values=[secret, secret],
            many=list(range(61234, 61334)),
            nested=((61234,),),
            text="x" * 10_000,
        )
    line = (tmp_path / "node.log").read_text()
    assert "61234" not in line
    assert '"array": "<ndarray of 3>"' in line
    assert len(line) < 1_000


def test_other_libraries_speak_in_the_file_only_and_only_in_warnings(tmp_path: Path) -> None:
    terminal = io.StringIO()
    with logging_to(tmp_path / "node.log", "info", terminal):
        logging.getLogger("somebody.else").warning("heard %s", 5)
        logging.getLogger("somebody.else").info("chatter")
    assert [e["event"] for e in events(tmp_path / "node.log")] == ["heard 5"]
    assert terminal.getvalue() == ""


def test_a_failure_keeps_its_trace(tmp_path: Path) -> None:
    with logging_to(tmp_path / "node.log", "info", io.StringIO()):
        try:
            int("broken")
        except ValueError as error:
            get_log().exception("failed", error=error)
    (event,) = events(tmp_path / "node.log")
    assert event["error"] == "ValueError: invalid literal for int() with base 10: 'broken'"
    assert "Traceback" in str(event["exception"])


def test_the_log_rotates_and_stays_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "LOG_BYTES_MAX", 2_000)
    monkeypatch.setattr(telemetry, "LOG_FILES_KEPT", 2)
    with logging_to(tmp_path / "node.log", "info", io.StringIO()):
        for number in range(200):
            get_log().info("tick", number=number)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["node.log", "node.log.1", "node.log.2"]
    for path in tmp_path.iterdir():
        assert path.stat().st_size <= 2_000
        assert path.stat().st_mode & 0o077 == 0


def test_logging_ends_where_it_began(tmp_path: Path) -> None:
    own, root = logging.getLogger("swarm"), logging.getLogger()
    before = (list(own.handlers), list(root.handlers), own.level, own.propagate)
    with logging_to(tmp_path / "node.log", "debug", io.StringIO()):
        pass
    assert (list(own.handlers), list(root.handlers), own.level, own.propagate) == before
    get_log().error("nobody_listens")
