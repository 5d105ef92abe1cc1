"""Every log as this node holds it: SQLite with group commit. Room: ledger.

WAL with synchronous=FULL: what ``append`` returned is on the disk. (WAL with NORMAL loses commits
on a power cut, and so forks its owner.) One process writes, held by a lock file; others may read.
Synchronous: one worker thread at a time, the caller serialises. Why it survives: docs/adr/0009.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self, final

from .canonical import unpack
from .chain import LogHead, check_next, head_after, head_of_signed
from .errors import StoreError, VerificationError
from .migrations import FIRST_VERSION, MIGRATIONS, Migration, apply, back_up, newest_version
from .record import Record, SignedRecord, Verified, record_id
from .store_files import (
    WriterLock,
    committed_count,
    connect,
    faults,
    require_committed,
    sync_directory,
)

APPLICATION_ID: Final = 0x53574C47  # "SWLG": another program's database is not taken for ours
PAGE_RECORDS: Final = 512
RECORD_FIELDS: Final = 13
CHECKPOINT_PAGES: Final = 1_000
"""The log may grow to 4 MB: each time that it is folded into the database costs two more fsyncs."""

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
"""


@final
class Store:
    """Open with :meth:`open`, as a context manager."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, lock: WriterLock | None, committed: int
    ) -> None:
        self._path = path
        self._connection = connection
        self._lock = lock
        self._committed = committed
        self._heads = self._read_heads() if lock is not None else None

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path | str, *, read_only: bool = False) -> Iterator[Self]:
        """Open or create (a reader never creates). Raises StoreError: one line with the file.

        A writer also brings an older schema to this program's, after copying the file.
        """
        path = Path(path)
        with contextlib.ExitStack() as stack:
            lock = None if read_only else stack.enter_context(WriterLock.held(path))
            # Read before the database is: a reader sees every commit that was counted by then.
            committed = committed_count(path)
            with faults(path):
                if lock is not None and not path.exists():
                    require_committed(path, 0, committed)
            connection = connect(path, read_only=read_only)
            stack.callback(connection.close)
            with faults(path):
                _prepare(path, connection, MIGRATIONS, read_only=read_only)
                store = cls(path, connection, lock, committed)
                if lock is not None:
                    # Now the log file is there. SQLite flushes its name too, but not if that fails.
                    sync_directory(path.absolute().parent)
            yield store

    @property
    def path(self) -> Path:
        """The database's file."""
        return self._path

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
        rows: list[tuple[object, ...]] = []
        with self._transaction():
            for record in records:
                value = record.value
                log = (value.author, value.epoch)
                head = after.get(log)
                if head is not None and value.seq < head.next_seq:
                    self._insert(rows)  # the same record may stand twice in this group
                    self._check_stored(record)
                    continue
                check_next(head, record)
                rows.append(_row(record))
                after[log] = head_after(value, record.id)
                fresh.append(record)
            self._insert(rows)
            for key, blob in (state or {}).items():
                self._put(key, blob)
        heads.update(after)
        if fresh and self._lock is not None:
            self._committed += len(fresh)
            self._lock.remember(self._committed)
        return fresh

    def _insert(self, rows: list[tuple[object, ...]]) -> None:
        self._connection.executemany("INSERT INTO records VALUES (?,?,?,?,?,?,?,?)", rows)
        rows.clear()

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

    def cut(
        self, kept: Mapping[tuple[int, int], int], *, state: Mapping[str, bytes] | None = None
    ) -> None:
        """Drop what a roster update cuts off: of each log all but its first ``kept`` records.

        ``state`` is written in the same transaction. Raises StoreError; then nothing has changed.
        """
        heads = self._writer_heads()
        dropped = sum(
            max(heads[log].next_seq - count, 0) for log, count in kept.items() if log in heads
        )
        if dropped and self._lock is not None:
            # Before the records go: a power cut in between must not look like an older copy.
            self._committed -= dropped
            self._lock.remember(self._committed, flush=True)
        with self._transaction():
            for (author, epoch), count in kept.items():
                self._connection.execute(
                    "DELETE FROM records WHERE author=? AND epoch=? AND seq>=?",
                    (author, epoch, count),
                )
            for key, blob in (state or {}).items():
                self._put(key, blob)
        with faults(self._path):
            self._heads = self._read_heads()

    def heads(self) -> dict[tuple[int, int], LogHead]:
        """Return where every log stands."""
        if self._heads is not None:
            return dict(self._heads)
        with faults(self._path):
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
            if (head.author, head.epoch, head.next_seq - 1) != (author, epoch, seq):
                raise StoreError(f"{self._path}: record {author}/{epoch}/{seq} is misplaced")
            if count != head.next_seq:
                raise StoreError(f"{self._path}: log {author}/{epoch} has a gap")
            heads[author, epoch] = head
        total = sum(head.next_seq for head in heads.values())
        require_committed(self._path, total, self._committed)
        if self._lock is not None:
            self._committed = total
            self._lock.remember(total)
        return heads

    def _decoded(self, record_bytes: bytes) -> list[Any]:
        value: Any = None
        with contextlib.suppress(VerificationError):
            value = unpack(record_bytes)
        if not isinstance(value, list) or len(value) != RECORD_FIELDS:
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
            with faults(self._path):
                rows = self._connection.execute(query, (*values, *at, page)).fetchall()
            for row in rows:
                yield self._checked(*row[3:])
            if len(rows) < page:
                return
            at = rows[-1][:3]
            left -= len(rows) if left > 0 else 0

    def get(self, id_: bytes) -> SignedRecord | None:
        """Return the record with this id, or None. Raises StoreError."""
        with faults(self._path):
            row = self._connection.execute(
                "SELECT id, record, signature FROM records WHERE id = ?", (id_,)
            ).fetchone()
        return self._checked(*row) if row else None

    def state_get(self, key: str) -> bytes | None:
        """Return what the node remembered under ``key``. Raises StoreError."""
        with faults(self._path):
            row = self._connection.execute(
                "SELECT value FROM state WHERE key = ?", (key,)
            ).fetchone()
        if row is not None and not isinstance(row[0], bytes):
            raise StoreError(f"{self._path}: what was remembered as {key} has changed")
        return None if row is None else row[0]

    def state_put(self, key: str, value: bytes) -> None:
        """Remember ``value`` under ``key``, durably. Raises StoreError."""
        self._writer_heads()
        with self._transaction():
            self._put(key, value)

    def _put(self, key: str, value: bytes) -> None:
        self._connection.execute("INSERT OR REPLACE INTO state VALUES (?,?)", (key, value))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with faults(self._path), _transaction(self._connection):
            yield


def _row(record: Verified[Record]) -> tuple[object, ...]:
    value, signed = record.value, record.signed
    return (
        value.author, value.epoch, value.seq, record.id, int(value.kind), value.round,
        signed.record_bytes, signed.signature,
    )  # fmt: skip


def _prepare(
    path: Path,
    connection: sqlite3.Connection,
    migrations: Sequence[Migration],
    *,
    read_only: bool,
) -> None:
    """Make sure that this is a store of this program's version. Raises StoreError, sqlite3.Error."""

    def ask(what: str) -> int:
        return int(connection.execute(f"PRAGMA {what}").fetchone()[0])

    connection.execute("PRAGMA cell_size_check = ON")
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    version, application_id = ask("user_version"), ask("application_id")
    newest = newest_version(migrations)
    if empty and version == 0:
        if read_only:
            raise StoreError(f"{path}: there is no ledger here")
        _make_durable(path, connection)
        with _transaction(connection):
            for statement in filter(str.strip, _SCHEMA.split(";")):
                connection.execute(statement)
            apply(connection, version=FIRST_VERSION, migrations=migrations)
        return
    if application_id != APPLICATION_ID or version < FIRST_VERSION:
        raise StoreError(f"{path}: not a ledger of this program")
    if version > newest:
        raise StoreError(
            f"{path}: written by version {version} of the store, this program reads {newest}; "
            "install the newer program"
        )
    if read_only:
        if version < newest:
            raise StoreError(
                f"{path}: of version {version} of the store, this program reads {newest}; "
                "start the node once: it copies the file and brings it up to date"
            )
        return
    _make_durable(path, connection)
    if version < newest:
        back_up(connection, path, version)
        with _transaction(connection):
            apply(connection, version=version, migrations=migrations)


def _make_durable(path: Path, connection: sqlite3.Connection) -> None:
    # Where it cannot keep a log SQLite goes on without one, and without a word; FULL then is not enough.
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != b"wal":
        raise StoreError(f"{path}: no write-ahead log can be kept beside it")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing: a crash inside leaves what was there before."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk may have rolled back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
