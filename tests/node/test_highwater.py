"""The mark: durable, whole, never behind what was shown, and a refusal wherever it does not fit."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from site_factory import assert_one_line_error, make_federation, run_command

from ledger.errors import ConfigError, StoreError
from ledger.record import NO_ID, Kind, Record, Rejection, Verified
from ledger.store import Store
from node.highwater import HighWater, LostHistoryError, Mark
from node.one_copy import only_copy
from tests.ledger.ledger_factory import Federation, digest_of

COUNT = 5


@pytest.fixture
def federation() -> Federation:
    federation = Federation(2)
    federation.open(0)
    for number in range(COUNT - 1):
        body = Rejection(target_id=digest_of(str(number)), reason=1)
        federation.write(0, Kind.REJECTION, 1, body)
    return federation


def checked(path: Path, federation: Federation, *, epoch: int = 0) -> HighWater:
    with Store.open(path / "ledger.db") as store:
        return HighWater.checked(store, net=federation.roster.net, author=0, epoch=epoch)


def fill(path: Path, records: list[Verified[Record]]) -> None:
    with Store.open(path / "ledger.db") as store:
        store.append(records)


def begin(path: Path, federation: Federation, count: int = COUNT) -> Path:
    """A site that has signed ``count`` records; return its mark's path."""
    checked(path, federation)
    fill(path, federation.logs[0][:count])
    checked(path, federation)
    return path / "ledger.mark"


def lose(path: Path) -> None:
    for file in path.glob("ledger.db*"):
        file.unlink()


def refused(path: Path, federation: Federation, said: str, *, epoch: int = 0) -> None:
    before = (path / "ledger.mark").read_bytes() if (path / "ledger.mark").exists() else None
    for _ in range(2):  # the second start is no wiser
        with pytest.raises(LostHistoryError, match=said) as caught:
            checked(path, federation, epoch=epoch)
        assert len(str(caught.value).splitlines()) == 1
        assert "ledger.mark" in str(caught.value)
    assert before == ((path / "ledger.mark").read_bytes() if before is not None else None)


def test_a_new_site_is_marked_before_it_signs(tmp_path: Path, federation: Federation) -> None:
    water = checked(tmp_path, federation)
    assert water.read() == Mark(federation.roster.net, 0, 0, NO_ID)
    assert (tmp_path / "ledger.mark").stat().st_mode & 0o077 == 0
    checked(tmp_path, federation)


def test_the_mark_follows_the_log(tmp_path: Path, federation: Federation) -> None:
    mark = begin(tmp_path, federation)
    water = HighWater(mark, federation.roster.net)
    last = federation.logs[0][-1]
    assert water.read() == Mark(federation.roster.net, 0, COUNT, last.id)
    assert [one.name for one in tmp_path.iterdir() if "partial" in one.name] == []


def test_a_mark_one_step_behind_is_brought_up(tmp_path: Path, federation: Federation) -> None:
    mark = begin(tmp_path, federation, COUNT - 1)
    fill(tmp_path, federation.logs[0])
    assert checked(tmp_path, federation).read() == HighWater(mark, federation.roster.net).read()
    assert f"next_seq {COUNT}\n" in mark.read_text()


@pytest.mark.parametrize("kept", range(COUNT))
def test_a_database_that_holds_less_than_was_signed_is_refused(
    tmp_path: Path, federation: Federation, kept: int
) -> None:
    begin(tmp_path, federation)
    lose(tmp_path)
    fill(tmp_path, federation.logs[0][:kept])
    refused(tmp_path, federation, rf"signed {COUNT} records, .* holds {kept} of them.*key rotation")


def test_another_history_of_the_same_length_is_refused(
    tmp_path: Path, federation: Federation
) -> None:
    begin(tmp_path, federation)
    lose(tmp_path)
    other = Federation(2)
    other.clock_ms += 77
    other.open(0)
    for number in range(COUNT):
        other.write(0, Kind.REJECTION, 1, Rejection(target_id=digest_of(str(number)), reason=2))
    fill(tmp_path, other.logs[0])
    refused(tmp_path, federation, "two copies of this directory have signed.*key rotation")


def test_records_without_a_mark_are_refused(tmp_path: Path, federation: Federation) -> None:
    begin(tmp_path, federation).unlink()
    refused(tmp_path, federation, "is missing.*key rotation")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (rb"(?s).*", b""),
        (rb"\n\Z", b""),
        (rb"\Z", b"x"),
        (b"next_seq 5", b"next_seq five"),
        (b"/v1", b"/v2"),
        (b"[0-9a-f]{8}", bytes(8)),
    ],
)
def test_a_damaged_mark_is_not_guessed(
    tmp_path: Path, federation: Federation, old: bytes, new: bytes
) -> None:
    mark = begin(tmp_path, federation)
    mark.write_bytes(re.sub(old, new, mark.read_bytes(), count=1))
    refused(tmp_path, federation, "is damaged.*key rotation")


def test_a_new_key_epoch_begins_a_new_mark_and_the_old_one_never_comes_back(
    tmp_path: Path, federation: Federation
) -> None:
    begin(tmp_path, federation)
    lose(tmp_path)  # what a rotation is for
    assert checked(tmp_path, federation, epoch=1).read() == Mark(federation.roster.net, 1, 0, NO_ID)
    refused(tmp_path, federation, "has signed in key epoch 1.*only epoch 0")


def test_a_mark_of_another_federation_is_not_mixed_in(
    tmp_path: Path, federation: Federation
) -> None:
    other = Federation(3)
    begin(tmp_path, federation)
    refused(tmp_path, other, "another federation's")
    lose(tmp_path)
    assert checked(tmp_path, other).read() == Mark(other.roster.net, 0, 0, NO_ID)


def test_a_mark_that_cannot_be_written_stops_the_node(
    tmp_path: Path, federation: Federation
) -> None:
    (tmp_path / ".ledger.mark.partial").mkdir()
    with pytest.raises(StoreError, match=r"ledger\.mark: Is a directory"):
        checked(tmp_path, federation)


def test_one_key_runs_once_on_a_machine_wherever_its_directory_lies() -> None:
    key, other = digest_of("a key"), digest_of("another key")
    held = "import sys, node.one_copy as c\nwith c.only_copy(bytes.fromhex(sys.argv[1])):\n"
    with only_copy(key), only_copy(other):
        with pytest.raises(ConfigError, match="copied directory must never run") as caught:
            only_copy(key).__enter__()
        assert len(str(caught.value).splitlines()) == 1
    # Another process, ended with kill -9: the name is free again.
    with subprocess.Popen(
        [sys.executable, "-c", held + "    print('held', flush=True); input()", key.hex()],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent.parent,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError):
            only_copy(key).__enter__()
        process.kill()
        process.wait()
    with only_copy(key):
        pass


def test_a_site_whose_database_is_lost_does_not_start(tmp_path: Path) -> None:
    """The real command on a real site: it runs, loses ledger.db, and refuses with status 2."""
    (site,) = make_federation(tmp_path)
    run = ("run", "--config", site.config, "--linger", "0", "--set", "run.log_level=error")
    first = run_command(*run)
    assert first.returncode == 0, first.stderr
    assert (site.directory / "ledger.mark").exists()
    lose(site.directory)
    second = run_command(*run)
    assert second.returncode == 2, second.stderr
    assert_one_line_error(second.stderr, "ledger.mark", "holds 0 of them", "key rotation")
