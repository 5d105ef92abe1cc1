"""The files of a store: database, writer's lock, and what the lock file remembers. Room: ledger.

``ledger.db.lock`` is held by the one writer, and its text is the number of records that were
committed. The text is written after each commit and never flushed, so it is never ahead of what is
durable, and costs nothing. But a log file that was cut or scribbled over, which SQLite would take for
a shorter history without a word, or an older copy put back, is noticed: it holds fewer.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self, final

from .errors import StoreError

BUSY_TIMEOUT_MS: Final = 10_000
_TEXT: Final = re.compile(rb"committed ([0-9]{16}) check ([0-9a-f]{8})\n")
_TEXT_BYTES: Final = 42


@contextlib.contextmanager
def faults(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system say into one line of ours."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        said = error.strerror if isinstance(error, OSError) else None
        text = " ".join((said or str(error)).split())
        raise StoreError(f"{path}: {text}") from error


@final
class WriterLock:
    """Held by the one process that writes; gone with it, however it ends."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd

    @classmethod
    @contextlib.contextmanager
    def held(cls, path: Path) -> Iterator[Self]:
        """Take the lock of the database at ``path``. Raises StoreError if another has it."""
        lock_path = _lock_path(path)
        with faults(path):
            fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with faults(path):
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise StoreError(
                        f"{path}: another process is writing (it holds {lock_path}); stop it first"
                    ) from None
            yield cls(path, fd)
        finally:
            with faults(path):
                os.close(fd)

    def remember(self, count: int, *, flush: bool = False) -> None:
        """Note how many records are committed; ``flush`` where that is fewer. Raises StoreError."""
        digits = f"committed {count:016d}".encode()
        text = b"%s check %08x\n" % (digits, zlib.crc32(digits))
        with faults(self._path):
            os.pwrite(self._fd, text, 0)
            if flush:
                os.fdatasync(self._fd)


def committed_count(path: Path) -> int:
    """Return how many records the database at ``path`` had at least; 0 if nobody remembers."""
    lock_path = _lock_path(path)
    with faults(path):
        try:
            fd = os.open(lock_path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, PermissionError):
            return 0
        try:
            text = os.pread(fd, _TEXT_BYTES, 0)
        finally:
            os.close(fd)
    # A power cut may leave anything here, as nothing was flushed: then nothing is remembered.
    found = _TEXT.fullmatch(text)
    if found is None or zlib.crc32(text[:26]) != int(found[2], 16):
        return 0
    return int(found[1])


def require_committed(path: Path, count: int, committed: int) -> None:
    """Raise StoreError if the database holds fewer records than were committed to it."""
    if count < committed:
        raise StoreError(
            f"{path}: holds {count} of the {committed} records that were committed here: it is damaged, "
            "or an older copy was put back; put the newest copy back, or ask the federation for a key "
            "rotation; never go on from an old one"
        )


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Open the database; a writer creates an empty one, durably. Raises StoreError."""
    with faults(path):
        if read_only and not path.exists():
            raise StoreError(f"{path}: there is no ledger here")
        if not path.exists():
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            sync_directory(path.absolute().parent)
        elif not path.is_file():
            raise StoreError(f"{path}: is not a file")
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?{_mode(path, read_only=read_only)}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_TIMEOUT_MS / 1000,
        )
    connection.text_factory = bytes  # nothing here is text; a changed column must not be decoded
    return connection


def _mode(path: Path, *, read_only: bool) -> str:
    if not read_only:
        return "mode=rw"
    # On a read-only disk a reader cannot share memory with a writer, and there is none. That is right
    # only if no log file waits to be read first: SQLite would pass over it.
    if os.statvfs(path).f_flag & os.ST_RDONLY and not os.path.exists(f"{path}-wal"):  # noqa: PTH110
        return "mode=ro&immutable=1"
    return "mode=ro"


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _lock_path(path: Path) -> str:
    return f"{path}.lock"
