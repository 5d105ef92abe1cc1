"""Every attack is refused with its own code; nothing changed or cut goes unnoticed."""

import os
from pathlib import Path
from typing import Any

import pytest
from ledger_cases import CASES, Case, small
from ledger_factory import Federation

from ledger.audit_log import LogAudit
from ledger.report import Report
from ledger.verify import STEPS, Brought, verify_bundles


def write(case: Case, directory: Path) -> list[Path]:
    bundles = []
    for number, files in enumerate(case.bundles):
        bundle = directory / f"bundle{number}"
        for name, data in files.items():
            path = bundle / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        bundles.append(bundle)
    return bundles


def brought(case: Case, directory: Path) -> Brought:
    """Write what the auditor brings besides bundles."""
    arguments: dict[str, Any] = {}
    for name, files in (("pins", case.pins), ("tokens", case.tokens)):
        arguments[name] = [directory / f"{name}{number}" for number in range(len(files))]
        for path, data in zip(arguments[name], files, strict=True):
            path.write_bytes(data)
    return Brought(**arguments)


def found(report: Report) -> list[tuple[int, str]]:
    return sorted((finding.step, finding.error.code) for finding in report.findings)


@pytest.mark.parametrize("name", CASES)
def test_each_case_gets_its_own_verdict_and_code(name: str, tmp_path: Path) -> None:
    case = CASES[name]()
    bundles = write(case, tmp_path)
    report = verify_bundles(bundles, case.charter, case.digest, brought=brought(case, tmp_path))
    assert found(report) == sorted(case.expected), report.to_text()
    assert report.verdict == ("REFUTED" if case.expected else "VERIFIED")
    assert case.expected or len(report.missing) == case.missing
    assert report.exit_status == (1 if case.expected else 3 if case.missing else 0)
    assert (report.anchored, report.timestamped) == (case.anchored, case.timestamped)


@pytest.mark.parametrize("name", CASES)
def test_the_quick_look_and_the_steps_agree(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]()
    bundles = write(case, tmp_path)
    more = brought(case, tmp_path)
    quick = verify_bundles(bundles, case.charter, case.digest, brought=more)
    monkeypatch.setattr(LogAudit, "_accepts", lambda *_: False)
    slow = verify_bundles(bundles, case.charter, case.digest, brought=more)
    assert slow.to_json() == quick.to_json()


@pytest.mark.parametrize("name", CASES)
def test_each_case_is_the_same_every_time(name: str) -> None:
    assert CASES[name]() == CASES[name]()


def test_every_code_of_the_list_has_a_case() -> None:
    shown = {pair for build in CASES.values() for pair in build().expected}
    listed = {(step.number, code) for step in STEPS for code in step.codes}
    # Payload files are not in a bundle: tests/ledger/test_ledger_recompute.py has step 20.
    # A claimed reputation is not either: tests/ledger/test_ledger_reputation_cli.py has step 19.
    assert shown == {pair for pair in listed if pair[0] not in (19, 20)}


def test_every_flipped_bit_of_every_file_is_found(tmp_path: Path) -> None:
    federation = Federation(1)
    federation.open(0)
    bundle = federation.bundle(tmp_path / "bundle")
    assert verify_bundles([bundle], federation.charter_bytes).verdict == "VERIFIED"
    for path in sorted(bundle.rglob("*.*")):
        good = path.read_bytes()
        for position in range(len(good)):
            for bit in range(8):
                bad = bytearray(good)
                bad[position] ^= 1 << bit
                path.write_bytes(bad)
                report = verify_bundles([bundle], federation.charter_bytes)
                assert report.exit_status == 1, f"{path.name} byte {position} bit {bit}"
        path.write_bytes(good)


def test_every_changed_byte_of_three_members_logs_is_found(tmp_path: Path) -> None:
    federation = small()
    bundle = federation.bundle(tmp_path / "bundle")
    digest = federation.charter.digest_hex
    for path in sorted(bundle.rglob("*.*")):
        good = path.read_bytes()
        for position in range(len(good)):
            path.write_bytes(
                good[:position] + bytes([good[position] ^ 0x41]) + good[position + 1 :]
            )
            # The charter is checked by its digest alone: nothing else was supplied.
            report = verify_bundles([bundle], None, digest)
            assert report.exit_status == 1, f"{path.name} byte {position}"
            assert report.findings[0].error.file in (str(path), None)
        path.write_bytes(good)


def test_a_flipped_charter_bit_is_found_without_anything_supplied(tmp_path: Path) -> None:
    federation = Federation(1)
    federation.open(0)
    bundle = federation.bundle(tmp_path / "bundle")
    path = bundle / "charter.toml"
    good = path.read_bytes()
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        assert verify_bundles([bundle]).exit_status == 1, f"byte {position}"


def test_every_truncation_of_every_file_is_found(tmp_path: Path) -> None:
    federation = small()
    bundle = federation.bundle(tmp_path / "bundle")
    for path in sorted(bundle.rglob("*.*")):
        good = path.read_bytes()
        for length in range(len(good)):
            os.truncate(path, length)
            report = verify_bundles([bundle], federation.charter_bytes)
            assert report.exit_status == 1, f"{path.name} cut to {length}"
            path.write_bytes(good)


def test_a_removed_log_that_somebody_acked_is_found(tmp_path: Path) -> None:
    federation = Federation(4)
    federation.play(1)
    for author in range(4):
        bundle = federation.bundle(tmp_path / f"without{author}")
        (bundle / "logs" / f"000{author}-0000.log").unlink()
        assert verify_bundles([bundle], federation.charter_bytes).exit_status == 1
