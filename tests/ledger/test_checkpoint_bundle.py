"""Checkpoints in bundles: written with what they cover, and no changed bit of them goes unnoticed."""

import json
import os
from pathlib import Path

import pytest
from checkpoint_cases import QUORUM, played, token_for
from checkpoint_factory import cosigned, signed
from ledger_cases import files_of
from ledger_factory import Federation

from ledger import cli
from ledger.bundle import export_bundle, read_bundle
from ledger.checkpoint_files import checkpoint_name, finished_key, log_of_name
from ledger.errors import ConfigError, VerificationError
from ledger.store import Store
from ledger.verify import Brought, verify_bundles

LOG = (2, 0)
NAME = "checkpoints/0002-0000.txt"


@pytest.fixture
def federation() -> Federation:
    return played()


def bundle_of(federation: Federation, path: Path, data: bytes) -> Path:
    for name, content in (files_of(federation) | {NAME: data}).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def stored(federation: Federation, path: Path, state: dict[str, bytes]) -> Path:
    database = path / "ledger.db"
    with Store.open(database) as store:
        records = sorted(federation.records(), key=lambda one: one.value.lamport)
        store.append(records, state=state)
    return database


def exported(federation: Federation, path: Path, state: dict[str, bytes]) -> Path:
    with Store.open(stored(federation, path, state), read_only=True) as store:
        return export_bundle(store, federation.charter_bytes, path / "bundle")


def test_an_export_brings_the_finished_checkpoints_along(
    federation: Federation, tmp_path: Path
) -> None:
    data = cosigned(federation, 2, QUORUM, 3)
    bundle = exported(federation, tmp_path, {finished_key(LOG): data, "checkpoint/own": b"x"})
    assert [path.name for path in sorted((bundle / "checkpoints").iterdir())] == ["0002-0000.txt"]
    assert read_bundle(bundle).checkpoints[LOG] == (bundle / NAME, data)
    report = verify_bundles([bundle], federation.charter_bytes, federation.charter.digest_hex)
    assert (report.verdict, report.anchored, report.exit_status) == ("VERIFIED", 3, 0)
    assert [log.anchored for log in report.logs] == [0, 0, 3, 0]


def test_an_export_without_checkpoints_has_no_directory_for_them(
    federation: Federation, tmp_path: Path
) -> None:
    assert not (exported(federation, tmp_path, {}) / "checkpoints").exists()


def test_a_checkpoint_of_more_than_is_exported_stays_behind(tmp_path: Path) -> None:
    federation = played()
    data = cosigned(federation, 2, QUORUM, 4)
    federation.logs[2].pop()
    bundle = exported(federation, tmp_path, {finished_key(LOG): data})
    assert not (bundle / "checkpoints").exists()


def opened() -> Federation:
    federation = Federation(4)
    federation.open_all()
    return federation


def test_every_flipped_bit_of_a_checkpoint_is_found(tmp_path: Path) -> None:
    federation = opened()
    good = cosigned(federation, 2, (0, 1, 2, 3))  # one more than the quorum: no line may be lost
    bundle = bundle_of(federation, tmp_path / "bundle", good)
    assert verify_bundles([bundle], federation.charter_bytes).verdict == "VERIFIED"
    path = bundle / NAME
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1 << position % 8
        path.write_bytes(bad)
        report = verify_bundles([bundle], federation.charter_bytes)
        assert report.exit_status == 1, f"byte {position}"
        assert report.findings[0].error.file == str(path)


def test_every_cut_but_one_at_a_line_above_the_quorum_is_found(tmp_path: Path) -> None:
    federation = opened()
    good = cosigned(federation, 2, (0, 1, 2, 3))
    bundle = bundle_of(federation, tmp_path / "bundle", good)
    whole = len(good) - len(good.splitlines(keepends=True)[-1])
    for length in (*range(0, len(good), 3), whole):
        os.truncate(bundle / NAME, length)
        report = verify_bundles([bundle], federation.charter_bytes)
        assert report.exit_status == (3 if length == whole else 1), f"cut to {length}"
        (bundle / NAME).write_bytes(good)


def test_links_directories_and_an_empty_directory_are_refused(
    federation: Federation, tmp_path: Path
) -> None:
    data = cosigned(federation, 2, QUORUM)
    for number in range(4):
        bundle = bundle_of(federation, tmp_path / str(number), data)
        path = bundle / NAME
        path.unlink()
        if number == 0:
            (tmp_path / "elsewhere").write_bytes(data)
            path.symlink_to(tmp_path / "elsewhere")
        elif number == 1:
            path.mkdir()
        elif number == 2:
            path.parent.rmdir()
            path.parent.write_bytes(data)
        with pytest.raises(VerificationError, match="E_BUNDLE"):
            read_bundle(bundle)


@pytest.mark.parametrize(
    "name", ["2-0.txt", "00002-0000.txt", "0002-0000.TXT", "0002-0000.checkpoint", "0002-0000.txt~"]
)
def test_other_names_are_refused(federation: Federation, tmp_path: Path, name: str) -> None:
    bundle = bundle_of(federation, tmp_path / "bundle", cosigned(federation, 2, QUORUM))
    (bundle / "checkpoints" / name).touch()
    assert log_of_name(name) is None
    with pytest.raises(VerificationError, match="E_BUNDLE"):
        read_bundle(bundle)


@pytest.mark.parametrize("log", [(0, 0), (65535, 70000)])
def test_names_lead_back_to_their_logs(log: tuple[int, int]) -> None:
    assert log_of_name(checkpoint_name(log)) == log


def test_pins_and_tokens_on_the_command_line(
    federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = cosigned(federation, 2, QUORUM)
    bundle = bundle_of(federation, tmp_path / "bundle", data)
    pin, token = tmp_path / "pin.txt", tmp_path / "token.tsr"
    pin.write_bytes(signed(federation, 1, 2))
    token.write_bytes(token_for(data))
    arguments = [
        "verify", str(bundle), "--charter", str(bundle / "charter.toml"),
        "--charter-digest", federation.charter.digest_hex, "--pin", str(pin),
        "--token", str(token), "--json",
    ]  # fmt: skip
    assert cli.main(arguments) == 3
    report = json.loads(capsys.readouterr().out)
    assert (report["anchored"], report["timestamped"]) == (4, 4)
    assert report["supplied"] == ["1 bundle", "charter", "charter digest", "1 pin", "1 token"]
    assert report["missing"] == [
        "the authority's signature of 1 token was not checked: openssl ts -verify"
    ]
    assert [log["timestamped"] for log in report["logs"]] == [0, 0, 4, 0]
    pin.unlink()
    assert cli.main(arguments) == 2
    with pytest.raises(ConfigError, match="No such file"):
        verify_bundles([bundle], federation.charter_bytes, brought=Brought(pins=[pin]))


def test_two_roots_for_one_size_are_shown_with_both_files(tmp_path: Path) -> None:
    from checkpoint_cases import two_histories_each_with_its_checkpoint

    case = two_histories_each_with_its_checkpoint()
    for number, files in enumerate(case.bundles):
        for name, content in files.items():
            path = tmp_path / str(number) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    report = verify_bundles([tmp_path / "0", tmp_path / "1"], case.charter, case.digest)
    (split,) = [one for one in report.findings if one.error.code == "E_INCONSISTENT"]
    assert split.proof == tuple(files[NAME] for files in case.bundles)
