"""What append returned is on the disk, one process writes, and readers never disturb it."""

import hashlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_cases import close, small
from ledger_factory import Federation

from ledger.bundle import export_bundle
from ledger.errors import StoreError, VerificationError
from ledger.record import Kind, open_record, sign_record
from ledger.store import Store
from ledger.verify import verify_bundles

HERE = Path(__file__).parent


def start_writer(path: Path, file_bytes_max: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, HERE / "store_writer.py", path, str(file_bytes_max)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=HERE.parent.parent,
        env={**os.environ, "PYTHONPATH": str(HERE.parent.parent)},
    )


@pytest.fixture
def federation() -> Federation:
    federation = Federation(3)
    federation.play(2)
    return federation


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "ledger.db") as store:
        yield store


def test_what_was_appended_comes_back_as_bytes(store: Store, federation: Federation) -> None:
    records = federation.records()
    assert store.append(records) == records
    assert list(store.records()) == [record.signed for record in records]
    assert store.heads() == {(a, 0): head for a, head in enumerate(federation.heads)}
    for record in records:
        assert store.get(record.id) == record.signed
        assert open_record(record.signed, roster=federation.roster) == record
    assert store.get(bytes(32)) is None


def test_filters(store: Store, federation: Federation) -> None:
    store.append(federation.records())
    log = [record.signed for record in federation.logs[1]]
    assert list(store.records(author=1)) == log
    assert list(store.records(author=1, from_seq=3)) == log[3:]
    assert list(store.records(author=1, from_seq=2, limit=2)) == log[2:4]
    assert list(store.records(author=1, epoch=1)) == []
    assert list(store.records(limit=0)) == []
    assert len(list(store.records(round=2))) == 9
    assert len(list(store.records(round=2, kind=Kind.METRICS))) == 3
    assert len(list(store.records(kind=Kind.OPEN))) == 3


def test_long_logs_are_read_page_by_page(store: Store) -> None:
    federation = Federation(1)
    federation.open(0)
    for _ in range(1_100):
        close(federation)
    store.append(federation.logs[0])
    assert list(store.records()) == [record.signed for record in federation.logs[0]]
    assert len(list(store.records(limit=600))) == 600
    reading = store.records()
    next(reading)
    store.append([close(federation)])
    assert sum(1 for _ in reading) == 1_101


def test_appending_again_changes_nothing(store: Store, federation: Federation) -> None:
    records = federation.records()
    store.append(records[:9])
    assert store.append(records) == records[9:]
    assert store.append(records) == []


def test_a_record_twice_in_one_group_is_stored_once(store: Store, federation: Federation) -> None:
    log = federation.logs[0]
    assert store.append([log[0], log[1], log[0], log[1], log[2]]) == log[:3]
    assert list(store.records()) == [record.signed for record in log[:3]]


@pytest.mark.parametrize(("code", "drop"), [("E_GAP", 1), ("E_GAP", 0)])
def test_a_group_with_a_gap_is_refused_whole(
    store: Store, federation: Federation, code: str, drop: int
) -> None:
    log = list(federation.logs[0])
    del log[drop]
    with pytest.raises(VerificationError, match=code):
        store.append([*federation.logs[1], *log])
    assert store.heads() == {}
    assert list(store.records()) == []


def test_a_second_record_for_a_slot_is_refused(store: Store) -> None:
    federation = small()
    store.append(federation.records())
    for seq in (0, 1):
        other = replace(federation.logs[0][seq].value, time_ms=federation.clock_ms + 9)
        forked = sign_record(other, federation.signers[0])
        with pytest.raises(VerificationError, match="E_FORK") as caught:
            store.append([forked])
        assert (caught.value.author, caught.value.seq) == (0, seq)
    assert store.heads()[0, 0] == federation.heads[0]


def test_state_is_kept_with_the_records_or_not_at_all(tmp_path: Path) -> None:
    federation = small()
    path = tmp_path / "ledger.db"
    with Store.open(path) as store:
        assert store.state_get("round") is None
        store.state_put("round", b"1")
        store.append(federation.logs[0], state={"round": b"2"})
        with pytest.raises(VerificationError):
            store.append(federation.logs[1][1:], state={"round": b"3"})
    with Store.open(path) as store:
        assert store.state_get("round") == b"2"
        assert store.heads()[0, 0] == federation.heads[0]


def test_a_second_writer_is_turned_away_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Store.open(path):
        with pytest.raises(StoreError) as caught, Store.open(path):
            pass
        assert str(path) in str(caught.value)
        assert "another process" in str(caught.value)
        assert "\n" not in str(caught.value)
    with Store.open(path):
        pass


def test_a_second_writing_process_is_turned_away(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with start_writer(path) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(StoreError, match="another process"), Store.open(path):
            pass
        writer.kill()
    with Store.open(path) as store:
        assert store.heads()[0, 0].next_seq > 0


def test_readers_read_while_another_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    federation = Federation(1)
    with start_writer(path) as writer:
        assert writer.stdout is not None
        for _ in range(5):
            committed = int(writer.stdout.readline())
            with Store.open(path, read_only=True) as reader:
                assert reader.heads()[0, 0].next_seq >= committed
                for signed in reader.records():
                    open_record(signed, roster=federation.roster)
                assert int(reader.state_get("phase") or 0) >= committed
                with pytest.raises(StoreError, match="reading only"):
                    reader.state_put("x", b"")
                with pytest.raises(StoreError, match="reading only"):
                    reader.append([])
        writer.kill()


def test_what_a_roster_update_cuts_is_not_missed_at_the_next_start(
    tmp_path: Path, federation: Federation
) -> None:
    path = tmp_path / "ledger.db"
    with Store.open(path) as store:
        store.append(federation.records())
        store.cut({(1, 0): 2}, state={"roster": b"1"})
        before = store.heads()
        assert before[1, 0].next_seq == 2
    for read_only in (True, False):
        with Store.open(path, read_only=read_only) as store:
            assert store.heads() == before
            assert store.state_get("roster") == b"1"
    with Store.open(path) as store:
        assert len(store.append(federation.logs[1])) == 5


def test_a_full_disk_is_a_store_error_and_loses_nothing(tmp_path: Path) -> None:
    with start_writer(tmp_path / "ledger.db", file_bytes_max=300_000) as writer:
        output = writer.communicate()[0].splitlines()
    assert writer.returncode == 0
    *counts, full, again = output
    word, count, message = full.split(" ", 2)
    assert (word, count) == ("full", counts[-1])
    assert "ledger.db" in message
    assert again == f"again {int(count) + 3}"


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(StoreError, match=r"nowhere.*No such file"),
        Store.open(tmp_path / "nowhere" / "ledger.db"),
    ):
        pass


def test_a_reader_creates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with (
        pytest.raises(StoreError, match="there is no ledger here"),
        Store.open(path, read_only=True),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("read_only", [True, False])
def test_foreign_files_are_refused_in_one_line(tmp_path: Path, *, read_only: bool) -> None:
    text, foreign, newer = (tmp_path / name for name in ("text", "foreign", "newer"))
    text.write_bytes(b"Dear auditor, " * 1_000)
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE patients (name TEXT)")
    connection.close()
    with Store.open(newer):
        pass
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    for path, said in (
        (text, "not a database"),
        (foreign, "not a ledger"),
        (newer, "install the newer program"),
    ):
        with pytest.raises(StoreError, match=said) as caught, Store.open(path, read_only=read_only):
            pass
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE records SET record = record || x'00' WHERE seq = 1", "has changed"),
        ("UPDATE records SET record = 'text' WHERE seq = 1", "has changed"),
        ("DELETE FROM records WHERE seq = 0 AND author = 0", "has a gap"),
        ("UPDATE records SET seq = seq + 1 WHERE seq = 1", "is misplaced"),
    ],
)
def test_a_changed_database_is_noticed(tmp_path: Path, statement: str, said: str) -> None:
    path = tmp_path / "ledger.db"
    with Store.open(path) as store:
        store.append(small().records())
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(StoreError, match=said), Store.open(path):
        pass


def test_a_stored_record_that_is_no_record_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Store.open(path) as store:
        store.append(small().logs[2])
    with sqlite3.connect(path) as connection:
        id_ = hashlib.sha256(b"\x00\x05").digest()
        connection.execute("UPDATE records SET record = x'05', id = ?", (id_,))
    connection.close()
    with pytest.raises(StoreError, match="is not a record"), Store.open(path):
        pass


def test_an_interrupted_creation_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.touch()
    with Store.open(path) as store:
        assert store.heads() == {}


def test_an_export_holds_only_what_can_be_checked(tmp_path: Path) -> None:
    federation = Federation(3)
    federation.play(2)
    with Store.open(tmp_path / "ledger.db") as store:
        # The last record of log 2 never came, but what acks and merges its log did.
        for author, log in enumerate(federation.logs):
            store.append(log[:4] if author == 2 else log)
        bundle = export_bundle(store, federation.charter_bytes, tmp_path / "bundle")
    report = verify_bundles([bundle], federation.charter_bytes, federation.charter.digest_hex)
    assert report.exit_status == 0, report.to_text()
    counts = {log.author: log.records for log in report.logs}
    assert counts == {0: 5, 1: 5, 2: 4}


def test_an_export_goes_to_a_new_directory_or_nowhere(tmp_path: Path) -> None:
    federation = small()
    with Store.open(tmp_path / "ledger.db") as store:
        store.append(federation.records())
        (tmp_path / "empty").mkdir()
        export_bundle(store, federation.charter_bytes, tmp_path / "empty")
        with pytest.raises(Exception, match="is not empty; name a new directory"):
            export_bundle(store, federation.charter_bytes, tmp_path / "empty")
        with pytest.raises(StoreError):
            export_bundle(store, federation.charter_bytes, tmp_path / "ledger.db" / "inside")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"ledger.db", "ledger.db.lock", "empty"}
