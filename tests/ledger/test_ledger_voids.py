"""What is void stays void at every level of an audit, and in what is printed of it. docs/ledger.md §8, §12.4."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from checkpoint_cases import with_checkpoint
from checkpoint_factory import cosigned
from fork_cases import LIAR, Forking
from ledger_cases import CASES, Case, files_of
from ledger_factory import Federation
from roster_cases import exported_before, young
from roster_factory import Files, write_files
from test_ledger_jobs import Counter
from token_factory import imprint, info, token

from ledger import audit, cli
from ledger.audit_jobs import Block, LogFiles, check_blocks
from ledger.record import Kind
from ledger.report import Report
from ledger.verify import Brought, verify_bundles

NAMES = sorted(name for name in CASES if CASES[name]().forks or "before_a_cut" in name)


def written(case: Case, directory: Path) -> list[Path]:
    return [
        write_files(directory / str(number), files) for number, files in enumerate(case.bundles)
    ]


@contextmanager
def here(
    logs: list[LogFiles], _: int
) -> Iterator[Callable[[], dict[Block, bytes]]]:  # the other processes' work, done in this one
    yield lambda: check_blocks(logs, Counter())


def facts(report: Report) -> dict[str, Any]:
    """What no level may change."""
    found = report.to_json()
    names = ("verdict", "records", "final", "logs", "forks", "void", "contested", "cut_away")
    codes = sorted((one.step, one.error.code) for one in report.findings)
    return {name: found[name] for name in names} | {"codes": codes}


@pytest.mark.parametrize("name", NAMES)
def test_every_level_says_the_same_of_what_is_void(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]()
    bundles = written(case, tmp_path)
    full = verify_bundles(bundles, case.charter, case.digest)
    assert (full.verdict == "VERIFIED") == (not case.expected), full.to_text()
    monkeypatch.setattr(audit, "signature_jobs", here)
    assert verify_bundles(bundles, case.charter, case.digest, jobs=2).to_json() == full.to_json()
    quick = verify_bundles(bundles, case.charter, case.digest, quick=True)
    if (8, "E_SIGNATURE") not in case.expected:  # which is what it leaves out
        assert facts(quick) == facts(full)
    (tmp_path / "payloads").mkdir()
    brought = Brought(payloads=tmp_path / "payloads")
    recomputed = verify_bundles(bundles, case.charter, case.digest, brought=brought)
    assert facts(recomputed) == facts(full)


def before_and_after(directory: Path, kept: int) -> tuple[Federation, list[Path]]:
    federation, before = exported_before(kept)
    files: list[Files] = [before, federation.files()]
    return federation, [write_files(directory / str(n), one) for n, one in enumerate(files)]


@pytest.mark.parametrize("kept", [0, 1])
def test_an_honest_bundle_from_before_a_cut_is_counted_and_not_refuted(
    kept: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation, bundles = before_and_after(tmp_path, kept)
    reports = [
        verify_bundles(order, federation.charter_bytes, federation.charter.digest_hex)
        for order in (bundles, bundles[::-1])
    ]
    assert facts(reports[0]) == facts(reports[1])
    assert reports[0].verdict == "VERIFIED", reports[0].to_text()
    assert reports[0].cut_away == 3 - kept
    assert any("behind a cut" in note for note in reports[0].notes)
    alone = verify_bundles(bundles[1:], federation.charter_bytes, federation.charter.digest_hex)
    assert (alone.records, alone.final) == (reports[0].records, reports[0].final), "void is nothing"
    if kept:
        (tmp_path / "charter.toml").write_bytes(federation.charter_bytes)
        status = cli.main(["show", "1/0/2", *map(str, bundles), "--charter",
                           str(tmp_path / "charter.toml"), "--json"])  # fmt: skip
        assert status == 3
        assert json.loads(capsys.readouterr().out)["state"] == "VOID"


@pytest.mark.parametrize("kept", [0, 1])
def test_a_pin_from_before_a_cut_is_no_rollback(kept: int, tmp_path: Path) -> None:
    federation, before = exported_before(kept)
    old = young()
    old.write(1, Kind.METRICS, 1, old.metrics_body(1))
    pin = tmp_path / "pin"
    pin.write_bytes(cosigned(old, 1, (0, 2, 3)))
    bundles = [write_files(tmp_path / "0", federation.files()), write_files(tmp_path / "1", before)]
    for some in (bundles[:1], bundles):
        report = verify_bundles(
            some,
            federation.charter_bytes,
            federation.charter.digest_hex,
            brought=Brought(pins=[pin]),
        )
        assert report.verdict == "VERIFIED", report.to_text()


def test_acks_of_a_record_that_is_refused_at_the_very_end_make_nothing_final(
    tmp_path: Path,
) -> None:
    """What 2/0/1 refers to is in no bundle, so its ack of 0/0/1 does not count either."""
    federation = Federation(3)
    federation.open_all()
    one = federation.write(0, Kind.METRICS, 1, federation.metrics_body(1))
    gone = federation.write(1, Kind.METRICS, 1, federation.metrics_body(1))
    federation.write(2, Kind.METRICS, 1, federation.metrics_body(1), with_acks=True)
    files = files_of(federation)
    whole = verify_bundles([write_files(tmp_path / "whole", files)])
    federation.logs[1].remove(gone)
    report = verify_bundles([write_files(tmp_path / "cut", files_of(federation))])
    finals = [{log.author: log.final_seq for log in each.logs}[0] for each in (whole, report)]
    assert one.value.seq == 1
    assert report.verdict == "REFUTED"
    assert finals == [1, -1]


def twice(tmp_path: Path) -> tuple[Forking, list[Path]]:
    forking = Forking()
    one, other = forking.branch(3), forking.branch(3)
    for member in (0, 1):
        forking.ack(member, one)
    forking.ack(2, other)
    forking.prove()
    return forking, [write_files(tmp_path / str(n), forking.bundle(n)) for n in (0, 1)]


def test_show_names_only_those_who_acknowledged_this_branch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, bundles = twice(tmp_path)
    for order in (bundles, bundles[::-1]):
        cli.main(["show", f"{LIAR}/0/1", *map(str, order), "--json"])
        shown = json.loads(capsys.readouterr().out)
        assert shown["state"] == "FINAL"
        assert [one["member"] for one in shown["acked_by"]] == [0, 1]


def test_a_token_of_a_void_checkpoint_stamps_nothing_and_refutes_nothing(tmp_path: Path) -> None:
    forking, bundles = twice(tmp_path)
    federation = forking.federation
    void = cosigned(federation, LIAR, (0, 2, 3), 3)  # of the second branch, which was written last
    bundles[1] = write_files(tmp_path / "void", with_checkpoint(federation, void, LIAR))
    stamp = tmp_path / "token"
    stamp.write_bytes(token(info(of=imprint(hashlib.sha256(void).digest()))))
    report = verify_bundles(
        bundles, federation.charter_bytes, federation.charter.digest_hex,
        brought=Brought(tokens=[stamp]),
    )  # fmt: skip
    assert report.verdict == "VERIFIED", report.to_text()
    assert report.timestamped == 0
    assert any("void" in note and str(stamp) in note for note in report.notes)
