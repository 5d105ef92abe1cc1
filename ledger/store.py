"""Every log as this node holds it: SQLite with group commit. Room: ledger.

WAL with synchronous=FULL: what ``append`` returned is on the disk. (WAL with NORMAL loses commits
on a power cut, and so forks its owner.) One process writes, held by a lock file; others may read.
Synchronous: one worker thread at a time, the caller serialises.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self, final

from .canonical import unpack
from .chain import LogHead, check_next, head_after, head_of_signed
from .errors import StoreError, VerificationError
from .record import Record, SignedRecord, Verified, record_id

SCHEMA_VERSION: Final = 1
APPLICATION_ID: Final = 0x53574C47  # "SWLG": another program's database is not taken for ours
BUSY_TIMEOUT_MS: Final = 10_000
PAGE_RECORDS: Final = 512

_SCHEMA: Final = f"""
CREATE TABLE records (
    author INTEGER NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL,
    id BLOB NOT NULL UNIQUE, kind INTEGER NOT NULL, round INTEGER NOT NULL,
    record BLOB NOT NULL, signature BLOB NOT NULL,
    UNIQUE (author, epoch, seq)
);
CREATE INDEX records_by_round ON records (round, author, epoch, seq);
CREATE TABLE state (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""


@final
class Store:
    """Open with :meth:`open`, as a context manager."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock_fd: int | None) -> None:
        self._path = path
        self._connection = connection
        self._lock_fd = lock_fd
        self._heads = self._read_heads() if lock_fd is not None else None

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path | str, *, read_only: bool = False) -> Iterator[Self]:
        """Open or create (a reader never creates). Raises StoreError: one line with the file."""
        path = Path(path)
        with contextlib.ExitStack() as stack:
            lock_fd = None
            if not read_only:
                lock_fd = _lock(path)
                stack.callback(os.close, lock_fd)
            connection = _connect(path, read_only=read_only)
            stack.callback(connection.close)
            with _faults(path):
                _prepare(path, connection, read_only=read_only)
                store = cls(path, connection, lock_fd)
            yield store

    def append(
        self,
        records: Sequence[Verified[Record]],
        *,
        state: Mapping[str, bytes] | None = None,
    ) -> list[Verified[Record]]:
        """Store records, in order, as one durable transaction; return those that were new.

        Records that are stored already are passed over. ``state`` is written in the same
        transaction. Raises VerificationError if one does not continue its log (E_FORK if it
        contradicts a stored one) and StoreError if the disk fails; then nothing is stored.
        """
        heads = self._writer_heads()
        after = dict(heads)
        fresh: list[Verified[Record]] = []
        with self._transaction():
            for record in records:
                value = record.value
                log = (value.author, value.epoch)
                head = after.get(log)
                if head is not None and value.seq < head.next_seq:
                    self._check_stored(record)
                    continue
                check_next(head, record)
                self._insert(record)
                after[log] = head_after(value, record.id)
                fresh.append(record)
            for key, blob in (state or {}).items():
                self._put(key, blob)
        heads.update(after)
        return fresh

    def _insert(self, record: Verified[Record]) -> None:
        value, signed = record.value, record.signed
        self._connection.execute(
            "INSERT INTO records VALUES (?,?,?,?,?,?,?,?)",
            (value.author, value.epoch, value.seq, record.id, int(value.kind), value.round,
             signed.record_bytes, signed.signature),
        )  # fmt: skip

    def _check_stored(self, record: Verified[Record]) -> None:
        value = record.value
        row = self._connection.execute(
            "SELECT id FROM records WHERE author=? AND epoch=? AND seq=?",
            (value.author, value.epoch, value.seq),
        ).fetchone()
        if row is None or row[0] != record.id:
            raise VerificationError(
                "E_FORK", "two records for one slot", author=value.author, epoch=value.epoch,
                seq=value.seq, expected=f"id {row[0].hex()}" if row else None,
            )  # fmt: skip

    def heads(self) -> dict[tuple[int, int], LogHead]:
        """Return where every log stands."""
        if self._heads is not None:
            return dict(self._heads)
        with _faults(self._path):
            return self._read_heads()

    def _writer_heads(self) -> dict[tuple[int, int], LogHead]:
        if self._heads is None:
            raise StoreError(f"{self._path}: opened for reading only")
        return self._heads

    def _read_heads(self) -> dict[tuple[int, int], LogHead]:
        rows = self._connection.execute(
            "SELECT author, epoch, max(seq), count(*), id, record, signature"
            " FROM records GROUP BY author, epoch ORDER BY author, epoch"
        )  # SQLite takes the other columns from the row of the maximum
        heads = {}
        for author, epoch, seq, count, id_, record, signature in rows:
            signed = self._checked(id_, record, signature)
            head = head_of_signed(signed, self._decoded(record))
            if (head.author, head.epoch, head.next_seq) != (author, epoch, seq + 1):
                raise StoreError(f"{self._path}: record {author}/{epoch}/{seq} is misplaced")
            if count != seq + 1:
                raise StoreError(f"{self._path}: log {author}/{epoch} has a gap")
            heads[author, epoch] = head
        return heads

    def _decoded(self, record_bytes: bytes) -> list[Any]:
        value = unpack(record_bytes)
        if not isinstance(value, list):
            raise StoreError(f"{self._path}: a stored record is not a record")
        return value

    def _checked(self, id_: object, record: object, signature: object) -> SignedRecord:
        if isinstance(record, bytes) and isinstance(signature, bytes) and record_id(record) == id_:
            return SignedRecord(record, signature)
        raise StoreError(f"{self._path}: a stored record has changed; restore this hospital")

    def records(
        self,
        author: int | None = None,
        epoch: int = 0,
        from_seq: int = 0,
        limit: int | None = None,
        round: int | None = None,  # noqa: A002 - the field's name
        kind: int | None = None,
    ) -> Iterator[SignedRecord]:
        """Yield stored records by (author, epoch, seq); ``epoch`` and ``from_seq`` need ``author``.

        Reads page by page, so writing in between is allowed. Raises StoreError.
        """
        where, values = [], []
        at = (-1, -1, -1)
        if author is not None:
            where += ["author = ?", "epoch = ?"]
            values += [author, epoch]
            at = (author, epoch, from_seq - 1)
        for name, wanted in (("round", round), ("kind", kind)):
            if wanted is not None:
                where.append(f"{name} = ?")
                values.append(int(wanted))
        where.append("(author, epoch, seq) > (?, ?, ?)")
        query = (
            "SELECT author, epoch, seq, id, record, signature FROM records"  # noqa: S608
            f" WHERE {' AND '.join(where)} ORDER BY author, epoch, seq LIMIT ?"
        )
        left = limit if limit is not None else -1
        while left != 0:
            page = PAGE_RECORDS if left < 0 else min(PAGE_RECORDS, left)
            with _faults(self._path):
                rows = self._connection.execute(query, (*values, *at, page)).fetchall()
            for row in rows:
                yield self._checked(*row[3:])
            if len(rows) < page:
                return
            at = rows[-1][:3]
            left -= len(rows) if left > 0 else 0

    def get(self, id_: bytes) -> SignedRecord | None:
        """Return the record with this id, or None. Raises StoreError."""
        with _faults(self._path):
            row = self._connection.execute(
                "SELECT id, record, signature FROM records WHERE id = ?", (id_,)
            ).fetchone()
        return self._checked(*row) if row else None

    def state_get(self, key: str) -> bytes | None:
        """Return what the node remembered under ``key``. Raises StoreError."""
        with _faults(self._path):
            row = self._connection.execute(
                "SELECT value FROM state WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else bytes(row[0])

    def state_put(self, key: str, value: bytes) -> None:
        """Remember ``value`` under ``key``, durably. Raises StoreError."""
        self._writer_heads()
        with self._transaction():
            self._put(key, value)

    def _put(self, key: str, value: bytes) -> None:
        self._connection.execute("INSERT OR REPLACE INTO state VALUES (?,?)", (key, value))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with _faults(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # A full disk may have rolled back already.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


@contextlib.contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system say into one line of ours."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        text = " ".join(str(error).split())
        raise StoreError(f"{path}: {text}") from error


def _lock(path: Path) -> int:
    """Take the writer's lock and return its file descriptor; closing it frees the lock."""
    lock_path = f"{path}.lock"
    with _faults(path):
        lock_fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock_fd)
        raise StoreError(
            f"{path}: another process is writing (it holds {lock_path}); stop it first"
        ) from None
    return lock_fd


def _connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    if read_only and not path.is_file():
        raise StoreError(f"{path}: there is no ledger here")
    with _faults(path):
        if not read_only:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        mode = "ro" if read_only else "rw"
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_TIMEOUT_MS / 1000,
        )
    connection.text_factory = bytes  # nothing here is text; a changed column must not be decoded
    return connection


def _prepare(path: Path, connection: sqlite3.Connection, *, read_only: bool) -> None:
    def ask(what: str) -> int:
        return int(connection.execute(f"PRAGMA {what}").fetchone()[0])

    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    version, application_id = ask("user_version"), ask("application_id")
    if empty and version == 0 and not read_only:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        _create(connection)
        return
    if application_id != APPLICATION_ID:
        raise StoreError(f"{path}: not a ledger of this program")
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{path}: written by version {version} of the store, this program reads "
            f"{SCHEMA_VERSION}; install the newer program"
        )
    if not read_only:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")


def _create(connection: sqlite3.Connection) -> None:
    # One transaction, so that a crash here leaves an empty file or a whole schema.
    connection.execute("BEGIN IMMEDIATE")
    for statement in filter(str.strip, _statements()):
        connection.execute(statement)
    connection.execute("COMMIT")


def _statements() -> Iterable[str]:
    return _SCHEMA.split(";")
