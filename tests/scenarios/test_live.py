"""What one sees while a run goes on."""

import io

import pytest
from rich.console import Console

from scenarios.live import LiveTable, PlainLines, bytes_text, choose_progress, progress_view
from scenarios.view import NodeView

STATUS = {
    "phase": "collect",
    "round": 3,
    "rounds": 20,
    "agreed_round": 2,
    "auc": 0.98765,
    "bytes_sent": 123_456,
    "bytes_received": 9_876_543,
    "waiting_for": "County Hospital's update",
    "running": True,
    "members": [
        {"name": "City Hospital", "self": True, "connected": None},
        {"name": "County Hospital", "self": False, "connected": False},
        {"name": "Rural Practice", "self": False, "connected": True},
    ],
}


def console(*, terminal: bool, width: int = 80) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, force_terminal=terminal, width=width), text


def test_a_status_becomes_a_view_and_gaps_are_no_error() -> None:
    view = NodeView.of("City Hospital", STATUS)
    assert (view.peers, view.peers_max, view.round, view.agreed_round) == (1, 2, 3, 2)
    assert view.auc == 0.98765
    assert view.waiting_for == "County Hospital's update"
    empty = NodeView.of("City Hospital", {"auc": None, "agreed_round": None, "members": None})
    assert (empty.phase, empty.auc, empty.agreed_round, empty.peers_max) == ("starting", None, 0, 0)
    assert view.left().phase == "left"
    assert view.left().bytes_sent == 123_456


def test_plain_lines_come_when_something_changes_and_not_before() -> None:
    out, text = console(terminal=False)
    progress = choose_progress(out)
    assert isinstance(progress, PlainLines)
    view = NodeView.of("City Hospital", STATUS)
    with progress:
        progress.note("starting [not markup]")
        for at in range(20):
            progress.update([view], elapsed_s=at / 4)
        progress.update([view.left()], elapsed_s=5.0)
        progress.update([view.left()], elapsed_s=15.1)
    lines = text.getvalue().splitlines()
    assert lines[0] == "starting [not markup]"
    assert lines[1] == "   0.0 s  agreed  2/20  City Hospital AUC 0.988"
    assert len(lines) == 4
    assert "\x1b" not in text.getvalue()


def test_before_the_first_evaluation_a_line_tells_phase_and_peers() -> None:
    out, text = console(terminal=False)
    view = NodeView.of("City Hospital", {**STATUS, "auc": None, "agreed_round": None})
    PlainLines(out).update([view], elapsed_s=1.0)
    assert "agreed  0/20  City Hospital collect, 1 peers" in text.getvalue()


def test_a_terminal_gets_a_table_of_80_columns() -> None:
    out, text = console(terminal=True)
    progress = choose_progress(out)
    assert isinstance(progress, LiveTable)
    with progress:
        progress.note("hello")
        progress.update([NodeView.of("City Hospital", STATUS)], elapsed_s=2.0)
    shown = text.getvalue()
    for word in ("City Hospital", "collect", "3/20", "1/2", "0.988", "123 kB", "9.9 MB"):
        assert word in shown
    assert "…" not in shown


def test_a_wide_terminal_also_says_why_a_hospital_waits() -> None:
    out, text = console(terminal=False, width=140)
    out.print(progress_view([NodeView.of("City Hospital", STATUS)], elapsed_s=1.0, width=140))
    assert "County Hospital's update" in text.getvalue()


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (99_460, "99.5 kB"),
        (123_456, "123 kB"),
        (999_600, "1.0 MB"),
        (2_500_000_000, "2.5 GB"),
        (7_000_000_000_000, "7.0 TB"),
    ],
)
def test_bytes_are_short(count: int, text: str) -> None:
    assert bytes_text(count) == text
