"""A member's disk: real files, real SQLite, and what is left of them after a crash.

Room: scenarios. The files lie in a directory of their own for each life of a node. A crash copies what
survives it into the next life's directory, while the dying life still holds the old one: after `kill`
all that the kernel was given, after a power cut only what was flushed, with the rest torn, old or gone.
Sync points are seen where Python makes them (`os.fsync`) and, for SQLite, at each COMMIT: a store that
was opened with less than synchronous=FULL has none there. docs/simulator.md §3.
"""

import errno
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, final

from ledger.store import Store
from node.blobs import BlobStore

DATABASE: Final = "ledger.db"
BLOBS: Final = "blobs"
WAL: Final = f"{DATABASE}-wal"
LOCK: Final = f"{DATABASE}.lock"
PAYLOAD: Final = re.compile(r"[0-9a-f]{64}\.[0-9]{1,5}")
CACHE_KIB: Final = 256
"""For each member's database: many of them lie in memory anyway."""
CALM_LOG_PAGES: Final = 250
"""Where nothing tears SQLite's log it may be shorter than a node's: a calm swarm may be large."""
FULL_SYNC: Final = 2
"""SQLite's number for synchronous=FULL."""


class CrashedError(BaseException):
    """The power went while this member worked: nothing above may catch it, as nothing could."""


@dataclass
class _Flushed:
    """What of a life's plain files would survive a power cut."""

    contents: dict[int, bytes] = field(default_factory=dict)
    """inode → the bytes that were flushed last"""
    names: dict[str, dict[str, int]] = field(default_factory=dict)
    """directory → the names in it that were flushed last, with their inodes"""

    def note(self, path: str) -> None:
        """Take a file or a directory as it is now: it was flushed."""
        try:
            with os.scandir(path) as entries:
                self.names[path] = {one.name: one.inode() for one in entries if not one.is_dir()}
        except NotADirectoryError:
            with open(path, "rb") as file:  # noqa: PTH123 - a few hundred times a second
                self.contents[os.fstat(file.fileno()).st_ino] = file.read()


@final
class MemberDisk:
    """One member's disk through all its lives."""

    def __init__(
        self,
        root: Path,
        random: Random,
        on_sync: Callable[[], None],
        *,
        archive: Path | None,
        is_calm: bool = False,
    ) -> None:
        """root: a directory of its own. on_sync: called before and after every flush; may crash.

        archive: where every payload that was ever complete is kept for the auditor. is_calm: no power
        is ever lost.
        """
        self.is_calm = is_calm
        self.fault: int | None = None
        """errno of every write from now on: ENOSPC, EIO; None: the disk is well."""
        self.is_dead = False
        self.torn_commits = 0
        self._root = root
        self._random = random
        self._on_sync = on_sync
        self._archive = archive
        self._life = 0
        self._flushed = _Flushed()
        self._archived: set[str] = set()
        self._wal_flushed = 0
        self._syncs_commits = True
        self._begin_life()
        self.path.mkdir(parents=True)

    def _begin_life(self) -> None:
        self.path = self._root / str(self._life)
        """The directory of this life."""
        self._wal = f"{self.path}/{WAL}"

    @contextmanager
    def open(self) -> Iterator[tuple[Store, BlobStore]]:
        """Open store and payloads for one life."""
        self.is_dead = False
        self._flushed = _Flushed()
        for directory, _, files in os.walk(self.path):
            self._flushed.note(directory)
            for name in files:
                if not name.startswith(DATABASE):
                    self._flushed.note(f"{directory}/{name}")
        path = self.path
        try:
            with Store.open(path / DATABASE) as store:
                store._connection = _Connection(store._connection, self)  # type: ignore[assignment]  # noqa: SLF001
                yield store, BlobStore(path / BLOBS)
        finally:
            if path != self.path:  # this life has crashed, and what survives it is copied
                shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def by_operator(self) -> Iterator[Store]:
        """Open the store between two lives: no step is counted, and nothing fails."""
        as_it_was = self._on_sync, self.fault, self.is_dead
        self._on_sync, self.fault = lambda: None, None
        try:
            with self.open() as (store, _):
                yield store
        finally:
            self._on_sync, self.fault, self.is_dead = as_it_was

    def took_connection(self, synchronous: int) -> None:
        """Learn how durable the store asked SQLite to be; commits before now were at its opening."""
        self._syncs_commits = synchronous >= FULL_SYNC
        self._wal_flushed = self.wal_bytes()

    def wal_bytes(self) -> int:
        """Length of the write-ahead log."""
        with suppress(FileNotFoundError):
            return os.stat(self._wal).st_size  # noqa: PTH116 - a few hundred times a second
        return 0

    def commit(self, execute: Callable[[], None]) -> None:
        """Commit a transaction: before, in the middle of, or after it the power may go."""
        self.write()
        before = self.wal_bytes()
        self._on_sync()
        execute()
        if self._syncs_commits:
            self._wal_flushed = before  # until the flush has ended, its bytes may be torn
        self._on_sync()
        if self._syncs_commits:
            self._wal_flushed = self.wal_bytes()

    def write(self) -> None:
        """Raise what a write meets now."""
        if self.is_dead:
            raise CrashedError
        if self.fault is not None:
            raise OSError(self.fault, os.strerror(self.fault))

    def flush(self, path: str) -> None:
        """os.fsync of one of our files or directories."""
        self.write()
        self._on_sync()
        self._flushed.note(path)
        if self._archive is not None and path.endswith(f"/{BLOBS}"):
            for name in self._flushed.names[path].keys() - self._archived:
                self._archived.add(name)
                if PAYLOAD.fullmatch(name):
                    with suppress(FileExistsError):  # another member had it
                        os.link(f"{path}/{name}", f"{self._archive}/{name}")
        self._on_sync()

    def crash(self, *, power: bool) -> None:
        """Freeze what survives as the next life's directory. This life's later writes are nobody's."""
        before = self.path
        self.is_dead = True
        self.fault = None
        self._life += 1
        self._begin_life()
        for walked, _, _ in os.walk(before):
            directory = Path(walked).relative_to(before)
            (self.path / directory).mkdir()
            self._copy_files(before, directory, power=power)
        self._copy_database(before, power=power)

    def _copy_database(self, before: Path, *, power: bool) -> None:
        for name in (DATABASE, WAL, LOCK):
            source = before / name
            if source.exists() and not (name == LOCK and power and self._random.random() < 0.5):
                shutil.copyfile(source, self.path / name)
        wal = self.path / WAL
        if power and wal.exists():
            size, flushed = wal.stat().st_size, self._wal_flushed
            if size > flushed:
                self.torn_commits += 1
                kept = self._random.randint(flushed, size)
                with wal.open("r+b") as file:
                    file.truncate(kept)
                    if self._random.random() < 0.5:  # the file grew, its last block did not come
                        file.seek(kept)
                        file.write(self._random.randbytes(min(size - kept, 512)))

    def _copy_files(self, before: Path, directory: Path, *, power: bool) -> None:
        with os.scandir(before / directory) as entries:
            now = {
                one.name: one.inode()
                for one in entries
                if one.is_file() and not one.name.startswith(DATABASE)
            }
        if not power:
            for name in now:
                shutil.copyfile(before / directory / name, self.path / directory / name)
            return
        flushed = {
            name: inode
            for name, inode in self._flushed.names.get(str(before / directory), {}).items()
            if not name.startswith(DATABASE)
        }
        for name in sorted({*now, *flushed}):
            inodes = [inode for inode in (flushed.get(name), now.get(name)) if inode is not None]
            both = name in now and name in flushed
            inode = self._random.choice(inodes)
            if not both and self._random.random() < 0.5:
                continue
            content = self._flushed.contents.get(inode)
            if content is None:  # never flushed: any first part of it
                whole = (before / directory / name).read_bytes() if name in now else b""
                content = whole[: self._random.randint(0, len(whole))]
            (self.path / directory / name).write_bytes(content)


@final
class _Connection:
    """SQLite as the store sees it, with commits that can fail, tear or be the last."""

    def __init__(self, real: sqlite3.Connection, disk: MemberDisk) -> None:
        self._real = real
        self._disk = disk
        (synchronous,) = real.execute("PRAGMA synchronous").fetchone()
        disk.took_connection(int(synchronous))
        real.execute("PRAGMA synchronous = OFF")  # durability is the disk's above; this saves time
        real.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        if disk.is_calm:
            real.execute(f"PRAGMA wal_autocheckpoint = {CALM_LOG_PAGES}")
        self.executemany = real.executemany
        self.close = real.close

    @property
    def in_transaction(self) -> bool:
        return self._real.in_transaction

    def execute(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        if statement != "COMMIT":
            return self._real.execute(statement, values)
        try:
            self._disk.commit(lambda: self._real.execute("COMMIT").close())
        except OSError as error:
            full = error.errno == errno.ENOSPC
            said = "database or disk is full" if full else "disk I/O error"
            raise sqlite3.OperationalError(said) from error
        return self._real.cursor()


@contextmanager
def seen_flushes(root: Path, disk_of: Callable[[str], MemberDisk]) -> Iterator[None]:
    """Let the members' disks see every os.fsync below ``root``/NAME/, here and nowhere else.

    Nothing is flushed for real: the disks decide what a power cut leaves.
    """
    real_sync, real_data_sync = os.fsync, os.fdatasync
    base = f"{root}/"

    def sync(fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 - a few hundred times a second
        if not path.startswith(base):
            real_sync(fd)
            return
        disk = disk_of(path[len(base) :].split("/", 1)[0])
        if path == str(disk.path) or path.startswith(f"{disk.path}/"):
            disk.flush(path)

    os.fsync = os.fdatasync = sync  # type: ignore[assignment]
    try:
        yield
    finally:
        os.fsync, os.fdatasync = real_sync, real_data_sync
