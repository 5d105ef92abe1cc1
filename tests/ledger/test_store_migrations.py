"""A store of an older version is copied, then brought to the newest in one step, or not at all."""

import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
from ledger_factory import Federation
from make_store_version_1 import MEMBERS, ROUNDS

from ledger import store as store_module
from ledger.errors import StoreError
from ledger.migrations import MIGRATIONS, Migration, newest_version
from ledger.store import Store

FIXTURE = Path(__file__).parent / "store_version_1.db"
TO_2: Migration = (
    "ALTER TABLE records ADD COLUMN heard_ms INTEGER",
    "CREATE TABLE second (key TEXT PRIMARY KEY)",
    "INSERT INTO second SELECT key FROM state",
)
TO_3: Migration = ("DROP TABLE second",)
BROKEN: Migration = ("CREATE TABLE third (key TEXT)", "INSERT INTO nowhere VALUES (1)")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return Path(shutil.copy(FIXTURE, tmp_path / "ledger.db"))


@pytest.fixture(scope="module")
def federation() -> Federation:
    federation = Federation(MEMBERS)
    federation.play(ROUNDS)
    return federation


def program_of(monkeypatch: pytest.MonkeyPatch, *migrations: Migration) -> None:
    monkeypatch.setattr(store_module, "MIGRATIONS", migrations)


def version_of(path: Path) -> int:
    connection = sqlite3.connect(path)
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.close()
    return int(version)


def tables_of(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    connection.close()
    return {name for (name,) in rows}


def assert_same_records(path: Path, federation: Federation) -> None:
    with Store.open(path, read_only=True) as store:
        assert list(store.records()) == [record.signed for record in federation.records()]
        assert store.state_get("phase") == b"kept"


def test_this_program_reads_the_store_that_version_1_wrote(
    path: Path, federation: Federation
) -> None:
    assert version_of(path) == 1
    with Store.open(path) as store:
        assert len(store.heads()) == MEMBERS
    assert_same_records(path, federation)
    assert version_of(path) == newest_version(MIGRATIONS)


@pytest.mark.parametrize("migrations", [(TO_2,), (TO_2, TO_3)])
def test_an_older_store_is_copied_and_brought_up_to_date(
    path: Path,
    federation: Federation,
    monkeypatch: pytest.MonkeyPatch,
    migrations: Sequence[Migration],
) -> None:
    program_of(monkeypatch, *migrations)
    with Store.open(path) as store:
        store.state_put("new", b"program")
    assert version_of(path) == 1 + len(migrations)
    assert ("second" in tables_of(path)) == (len(migrations) == 1)
    assert_same_records(path, federation)
    copy = path.with_name("ledger.db.v1")
    assert version_of(copy) == 1
    assert copy.stat().st_mode & 0o077 == 0
    program_of(monkeypatch)
    assert_same_records(copy, federation)


def test_a_second_start_copies_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program_of(monkeypatch, TO_2)
    copy = path.with_name("ledger.db.v1")
    with Store.open(path):
        pass
    copy.unlink()
    with Store.open(path):
        pass
    assert not copy.exists()


def test_a_migration_that_fails_leaves_the_old_store_whole(
    path: Path, federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    program_of(monkeypatch, TO_2, BROKEN)
    with pytest.raises(StoreError, match=r"ledger\.db.*nowhere"), Store.open(path):
        pass
    assert version_of(path) == 1
    assert tables_of(path) == {"records", "state"}
    program_of(monkeypatch)
    assert_same_records(path, federation)
    program_of(monkeypatch, TO_2)
    with Store.open(path):
        pass
    assert version_of(path) == 2


def test_a_copy_that_cannot_be_made_stops_the_migration(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program_of(monkeypatch, TO_2)
    path.with_name("ledger.db.v1.partial").mkdir()
    with pytest.raises(StoreError, match=r"ledger\.db"), Store.open(path):
        pass
    assert version_of(path) == 1


def test_a_reader_changes_nothing_and_says_who_can(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program_of(monkeypatch, TO_2)
    before = path.read_bytes()
    with (
        pytest.raises(StoreError, match=r"version 1 of the store.*start the node once"),
        Store.open(path, read_only=True),
    ):
        pass
    assert path.read_bytes() == before


@pytest.mark.parametrize("read_only", [True, False])
def test_an_older_program_refuses_a_newer_store_in_one_line(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, read_only: bool
) -> None:
    program_of(monkeypatch, TO_2)
    with Store.open(path):
        pass
    program_of(monkeypatch)
    with (
        pytest.raises(
            StoreError, match=r"version 2 .* reads 1; install the newer program"
        ) as caught,
        Store.open(path, read_only=read_only),
    ):
        pass
    assert len(str(caught.value).splitlines()) == 1


def test_a_new_store_takes_the_same_road(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program_of(monkeypatch, TO_2)
    with Store.open(tmp_path / "new.db"):
        pass
    shutil.copy(FIXTURE, tmp_path / "old.db")
    with Store.open(tmp_path / "old.db"):
        pass
    assert tables_of(tmp_path / "new.db") == tables_of(tmp_path / "old.db")
    assert version_of(tmp_path / "new.db") == 2
    assert not (tmp_path / "new.db.v1").exists()
