"""A status reads at a glance, running or not."""

import json
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from node.status_view import ago, headline, render, show, show_forever, size


def status(**changes: Any) -> dict[str, Any]:
    member = {
        "name": "[red]Anna", "index": 0, "self": True, "registered": True, "configured": True,
        "training": False, "merged": True, "reached": None, "connected": None, "last_seen_s": None,
        "round": 6, "samples": 1400, "weight_micro": 625_000,
    }  # fmt: skip
    other = {
        **member, "name": "Berta", "index": 1, "self": False, "configured": False,
        "reached": "via Clara", "connected": True, "last_seen_s": 300.0, "round": None, "samples": None,
        "weight_micro": None, "merged": False,
    }  # fmt: skip
    return {
        "site": "Anna", "federation": "sepsis", "charter_digest": "ab" * 32, "running": True,
        "pid": 17, "phase": "catch_up", "round": 7, "rounds": 20, "agreed_round": 6,
        "waiting_for": "Berta's update", "result_digest": "cd" * 32, "auc": 0.9123,
        "members": [member, other], "bytes_sent": 1_234_567, "bytes_received": 999,
        "rounds_agreed": 6, "peak_memory_mb": 301, **changes,
    }  # fmt: skip


def test_the_four_words_the_wait_and_the_traffic_are_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(status())
    shown = capsys.readouterr().out
    for expected in (
        "Anna: catch up, round 7 of 20, 6 agreed, AUC 0.912, waits: Berta's update",
        "registered", "configured", "training", "merged",
        "[red]Anna (this site)", "62.5 %", "1,400", "5 min", "cd" * 32,
        "sent 1.2 MB, received 999 B, memory 301 MB",
    ):  # fmt: skip
        assert expected in shown


def test_transfers_and_what_payloads_take_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    update = {
        "member": "Berta", "digest": "ef" * 32, "bytes_held": 41_900_000, "bytes_count": 100_000_000,
        "mb_s": 12.34, "sources": 3,
    }  # fmt: skip
    model = {**update, "member": None, "bytes_count": None, "sources": 1, "mb_s": 0.0}
    show(
        status(transfers=[update, model], payload_bytes=2_500_000, payload_bytes_max=20_000_000_000)
    )
    shown = capsys.readouterr().out
    for expected in (
        "fetching the update of Berta: 41.9 MB of 100.0 MB, 12.3 MB/s, 3 sources",
        "fetching the model efefefefefefefef: asked for, 0.0 MB/s, 1 source\n",
        "models on disk 2.5 MB of 20.0 GB",
    ):
        assert expected in shown


def test_a_narrow_terminal_cuts_nothing_off() -> None:
    console = Console(width=80, record=True, markup=False, highlight=False, file=StringIO())
    console.print(render(status(), width=console.width))
    shown = console.export_text()
    assert "…" not in shown
    assert "0  [red]Anna (this site): registered, configured, not training, merged" in shown
    assert "1  Berta: registered, not configured, not training, not merged, via Clara" in shown
    assert "seen –, round 6, patients 1,400, weight 62.5 %" in shown


def test_what_is_not_known_is_a_dash_not_a_zero(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = {"bytes_sent": None, "bytes_received": None, "peak_memory_mb": None, "auc": None}
    show(status(running=False, pid=None, result_digest=None, **nothing))
    shown = capsys.readouterr().out
    assert "not running" in shown
    assert "AUC" not in shown
    assert "0 B" not in shown
    assert render(status())


def test_sizes_and_ages_are_spelt_short() -> None:
    assert [size(n) for n in (None, 0, 1_500, 2_500_000, 7_200_000_000)] == [
        "–", "0 B", "1.5 kB", "2.5 MB", "7.2 GB",
    ]  # fmt: skip
    assert [ago(s) for s in (None, 3.2, 300, 86_400)] == ["–", "3 s", "5 min", "24 h"]


@pytest.mark.parametrize("as_json", [False, True])
def test_watching_without_a_terminal_prints_changes_only(
    *, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    rounds = iter([1, 1, 2, 2, 2, 3])

    def read() -> dict[str, Any]:
        return status(round=next(rounds, None) or stop())

    def stop() -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        show_forever(read, as_json=as_json, interval_s=0, sleep=lambda _: None)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    if as_json:
        assert [json.loads(line)["round"] for line in lines] == [1, 2, 3]
    else:
        assert lines[2] == headline(status(round=3))


def test_who_sent_what_its_digest_does_not_name_is_named() -> None:
    quiet = status()
    console = Console(width=200, file=StringIO())
    console.print(render(quiet))
    assert "other bytes than" not in console.file.getvalue()  # type: ignore[attr-defined]
    quiet["members"][1]["corrupted"] = 3
    console.print(render(quiet))
    assert "Berta has sent other bytes than a digest names, 3 times" in console.file.getvalue()  # type: ignore[attr-defined]
