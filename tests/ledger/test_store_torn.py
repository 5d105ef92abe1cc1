"""Torn and scribbled files: everything acknowledged comes back, or one line refuses. Never a silent loss."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ledger_cases import close
from ledger_factory import Federation

from ledger.errors import StoreError, VerificationError
from ledger.record import open_record
from ledger.store import Store

SEED = 77
GROUPS = 30
SCRIBBLES = 60
SECTOR = 512
PAGE = 4_096
WAL_FRAME = 24 + PAGE


class Snapshot:
    """The files of a store as a power cut finds them: part in the database, part in its log."""

    def __init__(self, directory: Path) -> None:
        self.federation = Federation(1)
        self.federation.open(0)
        for _ in range(GROUPS * 3 - 1):
            close(self.federation)
        records = self.federation.logs[0]
        self.acknowledged = [record.signed for record in records]
        self.directory = directory / "as-found"
        self.refusals: list[str] = []
        live = directory / "live" / "ledger.db"
        live.parent.mkdir()
        with Store.open(live) as store:
            store._connection.execute("PRAGMA wal_autocheckpoint = 0")
            for group in range(GROUPS):
                store.append(records[group * 3 : group * 3 + 3])
                if group == GROUPS // 2:
                    store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                if group == GROUPS - 2:
                    self.one_group_less = live.with_name("ledger.db.lock").read_bytes()
            shutil.copytree(live.parent, self.directory)
        (self.directory / "ledger.db-shm").unlink()  # memory; a power cut takes it

    def copy(self, path: Path) -> Path:
        shutil.copytree(self.directory, path)
        return path / "ledger.db"

    def read(self, path: Path, *, read_only: bool) -> int | None:
        """Return how many records come back, all of them checked; None if a line refuses."""
        try:
            with Store.open(path, read_only=read_only) as store:
                count = sum(head.next_seq for head in store.heads().values())
                found = []
                for signed in store.records():
                    open_record(signed, roster=self.federation.roster)
                    found.append(signed)
        except (StoreError, VerificationError) as error:
            self.refusals.append(str(error))
            return None
        assert found == self.acknowledged[: len(found)]
        assert len(found) == count
        return len(found)

    def assert_whole_or_refused(self, path: Path) -> list[int | None]:
        outcomes = [self.read(path, read_only=read_only) for read_only in (True, False)]
        for outcome in outcomes:
            assert outcome in (None, len(self.acknowledged)), f"{outcome} records, silently"
        assert all(len(said.splitlines()) == 1 for said in self.refusals), self.refusals
        return outcomes


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return Snapshot(tmp_path_factory.mktemp("torn"))


def shorter_by(count: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        os.truncate(path, path.stat().st_size - count)

    return damage


def overwritten(at: int, text: bytes) -> Callable[[Path], None]:
    """Write ``text`` at an offset; a negative one counts from the end."""

    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(at, os.SEEK_END if at < 0 else os.SEEK_SET)
            file.write(text)

    return damage


def halved(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) - PAGE // 2] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "the log ends in the middle of its last frame": ("-wal", shorter_by(2_000)),
    "the log lacks its last frame": ("-wal", shorter_by(WAL_FRAME)),
    "the log lacks half of its frames": ("-wal", halved),
    "the log is empty": ("-wal", emptied),
    "the log is gone": ("-wal", Path.unlink),
    "the log's header is gone": ("-wal", overwritten(0, bytes(32))),
    "the log's last sector is zeros": ("-wal", overwritten(-SECTOR, bytes(512))),
    "the log's last frame is of another salt": (
        "-wal",
        overwritten(8 - WAL_FRAME, b"salt"),
    ),
    "a bit of the log's last page is flipped": ("-wal", flipped),
    "the database lacks its last page": ("", shorter_by(PAGE)),
    "the database ends in the middle of its last page": ("", shorter_by(1_000)),
    "the database's last page is zeros": ("", overwritten(-PAGE, bytes(PAGE))),
    "the database's last page is half zeros": (
        "",
        overwritten(-(PAGE // 2), bytes(PAGE // 2)),
    ),
    "the database's last page is noise": (
        "",
        overwritten(-PAGE, random.Random(SEED).randbytes(PAGE)),
    ),
    "the database's header is gone": ("", overwritten(0, bytes(100))),
    "the database's header is noise": (
        "",
        overwritten(16, random.Random(SEED).randbytes(84)),
    ),
    "the database is empty": ("", emptied),
    "the database is gone": ("", Path.unlink),
    "both are gone": ("*", Path.unlink),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_torn_files_come_back_whole_or_are_refused_in_one_line(
    snapshot: Snapshot, tmp_path: Path, name: str
) -> None:
    suffix, damage = DAMAGE[name]
    path = snapshot.copy(tmp_path / "site")
    for one in ("", "-wal") if suffix == "*" else (suffix,):
        damage(Path(f"{path}{one}"))
    snapshot.assert_whole_or_refused(path)


def test_scribbles_anywhere_come_back_whole_or_are_refused(
    snapshot: Snapshot, tmp_path: Path
) -> None:
    print(f"seed {SEED}")  # noqa: T201
    draw = random.Random(SEED)
    outcomes = []
    for number in range(SCRIBBLES):
        path = snapshot.copy(tmp_path / str(number))
        victim = Path(f"{path}{draw.choice(['', '-wal'])}")
        size = victim.stat().st_size
        scribble = draw.choice([bytes(SECTOR), draw.randbytes(SECTOR), draw.randbytes(1)])
        at = draw.randrange(size // SECTOR) * SECTOR
        overwritten(at, scribble)(victim)
        outcomes += snapshot.assert_whole_or_refused(path)
    assert None in outcomes
    assert len(snapshot.acknowledged) in outcomes


@pytest.mark.parametrize("bytes_torn", [1, SECTOR, PAGE, WAL_FRAME + 5])
def test_a_torn_commit_that_nobody_was_told_of_leaves_all_before_it(
    snapshot: Snapshot, tmp_path: Path, bytes_torn: int
) -> None:
    path = snapshot.copy(tmp_path / "site")
    path.with_name("ledger.db.lock").write_bytes(snapshot.one_group_less)
    wal = Path(f"{path}-wal")
    os.truncate(wal, wal.stat().st_size - bytes_torn)
    for read_only in (True, False):
        assert snapshot.read(path, read_only=read_only) == len(snapshot.acknowledged) - 3


def test_an_older_copy_of_the_database_alone_is_refused(snapshot: Snapshot, tmp_path: Path) -> None:
    path = snapshot.copy(tmp_path / "site")
    Path(f"{path}-wal").unlink()
    with (
        pytest.raises(StoreError, match=r"holds 48 of the 90 records .* older copy .*key rotation"),
        Store.open(path),
    ):
        pass


@pytest.mark.parametrize(
    "text", [b"", bytes(42), b"committed 99", b"committed 0000000000000999 check 00000000\n"]
)
def test_a_lock_file_that_a_power_cut_spoiled_remembers_nothing(
    snapshot: Snapshot, tmp_path: Path, text: bytes
) -> None:
    path = snapshot.copy(tmp_path / "site")
    path.with_name("ledger.db.lock").write_bytes(text)
    assert snapshot.assert_whole_or_refused(path) == [len(snapshot.acknowledged)] * 2
