"""Numbered changes of the store's tables. Room: ledger. Law: a migration that shipped never changes.

Version 1 is the schema in store.py, for ever; ``MIGRATIONS[0]`` leads from version 1 to 2, and so on.
A new database takes the same road, so there is one way to each version. All that are due are applied in
one transaction, after a copy of the database was made beside it: ``ledger.db.v1``. The copy is for the
case that the new program is no good *at once*; once the node has signed again it is an old backup, and
must not be put back.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeAlias

from .store_files import sync_directory

Migration: TypeAlias = tuple[str, ...]
"""SQL statements, without transaction control."""

FIRST_VERSION: Final = 1
MIGRATIONS: Final[tuple[Migration, ...]] = ()


def newest_version(migrations: Sequence[Migration]) -> int:
    """Return the schema version that a database has after all of them."""
    return FIRST_VERSION + len(migrations)


def apply(connection: sqlite3.Connection, *, version: int, migrations: Sequence[Migration]) -> None:
    """Bring a database of ``version`` to the newest, inside the caller's transaction."""
    for migration in migrations[version - FIRST_VERSION :]:
        for statement in migration:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {newest_version(migrations)}")


def back_up(connection: sqlite3.Connection, path: Path, version: int) -> Path:
    """Copy the database, durably, to a file named after its version; return that file.

    A copy that is there already is replaced: only a migration that failed can have left it, and the
    database may have grown since. Raises sqlite3.Error, OSError.
    """
    copy = path.with_name(f"{path.name}.v{version}")
    partial = path.with_name(f"{copy.name}.partial")
    partial.unlink(missing_ok=True)
    fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with contextlib.closing(sqlite3.connect(partial)) as target:
            connection.backup(target)
        os.fsync(fd)
    finally:
        os.close(fd)
    partial.replace(copy)
    sync_directory(path.absolute().parent)
    return copy
