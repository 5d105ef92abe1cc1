"""Bundles: what a hospital hands to an auditor. Room: ledger. Spec: docs/ledger.md §9.

A directory with ``charter.toml``, ``logs/AAAA-EEEE.log``, once a quorum has cosigned them
``checkpoints/AAAA-EEEE.txt`` and, once the roster has changed, ``rosters/NNNN.update``. How a log
lies in its file is :mod:`ledger.frames`'s.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from .canonical import unpack
from .charter import CHARTER_BYTES_MAX, load_charter
from .checkpoint_files import (
    CHECKPOINTS_NAME,
    checkpoint_name,
    finished_key,
    log_of_name,
    read_unchecked,
)
from .errors import ConfigError, StoreError, VerificationError
from .fork_store import References
from .frames import END_MARK, read_at
from .note import NOTE_BYTES_MAX
from .record import Kind
from .roster import Roster
from .roster_store import load_roster, stored_updates
from .roster_update import SIGNED_UPDATE_BYTES_MAX, SignedUpdate, decode_update
from .store import Store
from .store_files import faults, sync_directory

Log: TypeAlias = tuple[int, int]  # (author, epoch)

CHARTER_NAME: Final = "charter.toml"
LOGS_NAME: Final = "logs"
ROSTERS_NAME: Final = "rosters"
_WANTED: Final = {
    CHARTER_NAME: stat.S_IFREG,
    LOGS_NAME: stat.S_IFDIR,
    ROSTERS_NAME: stat.S_IFDIR,
    CHECKPOINTS_NAME: stat.S_IFDIR,
}
_LOG_NAME: Final = re.compile(r"([0-9]{4,5})-([0-9]{4,10})\.log")
_UPDATE_NAME: Final = re.compile(r"([0-9]{4,10})\.update")


def log_name(log: Log) -> str:
    """Return the file name of one log: AAAA-EEEE.log."""
    return f"{log[0]:04d}-{log[1]:04d}.log"


def update_name(version: int) -> str:
    """Return the file name of the update that makes a roster version: NNNN.update."""
    return f"{version:04d}.update"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle's files. Nothing in them has been believed yet."""

    path: Path
    charter_bytes: bytes
    logs: Mapping[Log, Path]
    rosters: Mapping[int, tuple[Path, bytes]] = field(default_factory=dict)
    """Roster version → the file of its update, and what is in it."""
    checkpoints: Mapping[Log, tuple[Path, bytes]] = field(default_factory=dict)
    """Log → the file of its checkpoint, and what is in it."""


def export_bundle(store: Store, charter_bytes: bytes, directory: Path | str) -> Path:
    """Write everything that can be checked on its own to a new ``directory``; return its path.

    The directory appears whole or not at all. Raises ConfigError if it holds something already,
    StoreError if the disk fails.
    """
    directory = Path(directory)
    partial = directory.with_name(f".{directory.name}.partial")
    _require_new(directory)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        (partial / LOGS_NAME).mkdir(parents=True)
        _write(partial / CHARTER_NAME, iter([charter_bytes]))
        checkpoints = _finished(store)  # first: the logs may grow meanwhile
        updates = stored_updates(store)
        roster = load_roster(store, load_charter(charter_bytes)) if updates else None
        for log, count in closed_counts(store, roster).items():
            if count:
                _write(partial / LOGS_NAME / log_name(log), _frames(store, log, count))
            if checkpoints.get(log, (0, b""))[0] > count:
                del checkpoints[log]
        if checkpoints:
            _write_checkpoints(partial / CHECKPOINTS_NAME, checkpoints)
        if updates:
            _write_updates(partial / ROSTERS_NAME, updates)
        sync_directory(partial / LOGS_NAME)
        sync_directory(partial)
        partial.rename(directory)
        sync_directory(directory.absolute().parent)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise StoreError(f"{directory}: {error.strerror or error}") from error
        raise
    return directory


def _require_new(directory: Path) -> None:
    with faults(directory):
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise ConfigError(f"{directory}: exists and is not empty; name a new directory")


def _write_updates(directory: Path, updates: Sequence[SignedUpdate]) -> None:
    directory.mkdir()
    for signed in updates:
        name = update_name(decode_update(signed.update_bytes).version)
        _write(directory / name, iter([signed.envelope()]))
    sync_directory(directory)


def _finished(store: Store) -> dict[Log, tuple[int, bytes]]:
    """Return for each log the newest checkpoint that a quorum has cosigned, and its size."""
    found = {}
    for log in store.heads():
        note = store.state_get(finished_key(log))
        if note is not None:
            found[log] = (read_unchecked(note).size, note)
    return found


def _write_checkpoints(directory: Path, checkpoints: Mapping[Log, tuple[int, bytes]]) -> None:
    directory.mkdir()
    for log, (_, note) in checkpoints.items():
        _write(directory / checkpoint_name(log), iter([note]))
    sync_directory(directory)


def closed_counts(store: Store, roster: Roster | None = None) -> dict[Log, int]:
    """Return how many records of each log can be exported: those whose references are held.

    Gossip may bring a record before one that it acks; such a record waits for a later export,
    since an auditor who cannot find what a record refers to must refuse it. What lies behind a cut
    that its writer could not know is not missed, nor is the other branch of a log that an exported
    FORK_PROOF proves to fork. A REVEAL names what it scores by id alone: what is not held may be of
    such a branch as soon as there is one. ``roster``: the newest, None for version 0.
    """
    references = References(store)
    counts = {log: head.next_seq for log, head in store.heads().items()}
    has_cuts = roster is not None and any(True for _ in roster.cuts())
    while True:
        before = dict(counts)
        may_miss = has_cuts or references.any_contested(counts)
        for signed in store.records():
            value: Any = unpack(signed.record_bytes)
            log, seq = (value[2], value[3]), value[4]
            if seq < counts.get(log, 0) and (
                any(
                    not references.is_shown((author, epoch), ref_seq, id_, counts)
                    and not (roster and roster.is_void(author, epoch, ref_seq, by_version=value[6]))
                    and not references.is_contested((author, epoch), counts)
                    for author, epoch, ref_seq, id_ in _references(value)
                )
                or not _has_targets(store, value, counts, may_miss=may_miss)
            ):
                counts[log] = seq
        if counts == before:
            return counts


def _references(value: Any) -> Iterator[tuple[int, int, int, bytes]]:
    for author, epoch, seq, id_ in value[11]:
        yield author, epoch, seq, id_
    if value[7] == Kind.AGGREGATION:
        for author, epoch, seq, id_, _ in value[12][2]:
            yield author, epoch, seq, id_


def _has_targets(store: Store, value: Any, counts: Mapping[Log, int], *, may_miss: bool) -> bool:
    """Tell whether everything that a REVEAL scores is exported as well. may_miss: or not held."""
    if value[7] == Kind.EVALUATION_REVEAL:
        for target_id, *_ in value[12][2]:
            target = store.get(target_id)
            if target is None:
                if may_miss:
                    continue
                return False
            held: Any = unpack(target.record_bytes)
            if held[4] >= counts.get((held[2], held[3]), 0):
                return False
    return True


def _frames(store: Store, log: Log, count: int) -> Iterator[bytes]:
    for signed in store.records(author=log[0], epoch=log[1], limit=count):
        envelope = signed.envelope()
        yield len(envelope).to_bytes(4, "big") + envelope
    yield END_MARK


def _write(path: Path, parts: Iterator[bytes]) -> None:
    with path.open("xb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())


def read_bundle(directory: Path | str) -> Bundle:
    """List a bundle's files and read its charter.

    Raises ConfigError if this is no bundle or cannot be read, VerificationError E_BUNDLE for a
    file that does not belong there or is none.
    """
    path = Path(directory)
    try:
        inside = _entries(path)
        if CHARTER_NAME not in inside or LOGS_NAME not in inside:
            raise ConfigError(
                f"{path}: not a bundle: {CHARTER_NAME} or {LOGS_NAME}/ is missing; give a "
                "folder that `swarm-node export` wrote"
            )
        for name, entry in inside.items():
            _must_be(entry, _WANTED.get(name))
        logs = {}
        for name, entry in sorted(_entries(path / LOGS_NAME).items()):
            match = _LOG_NAME.fullmatch(name)
            log = (int(match[1]), int(match[2])) if match else None
            _must_be(entry, stat.S_IFREG if log is not None and log_name(log) == name else None)
            if log is not None:
                logs[log] = Path(entry.path)
        rosters = _read_rosters(path / ROSTERS_NAME) if ROSTERS_NAME in inside else {}
        checkpoints = (
            _read_checkpoints(path / CHECKPOINTS_NAME) if CHECKPOINTS_NAME in inside else {}
        )
        charter_bytes = read_at(path / CHARTER_NAME, 0, CHARTER_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(
            f"bundle {error.filename or path}: {error.strerror or error}; give a folder that "
            "`swarm-node export` wrote"
        ) from None
    return Bundle(
        path=path, charter_bytes=charter_bytes, logs=logs, rosters=rosters, checkpoints=checkpoints
    )  # fmt: skip


def _read_rosters(directory: Path) -> dict[int, tuple[Path, bytes]]:
    rosters = {}
    for name, entry in sorted(_entries(directory).items()):
        match = _UPDATE_NAME.fullmatch(name)
        version = int(match[1]) if match else 0
        _must_be(entry, stat.S_IFREG if version and update_name(version) == name else None)
        path = Path(entry.path)
        rosters[version] = (path, read_at(path, 0, SIGNED_UPDATE_BYTES_MAX + 1))
    if not rosters:
        raise VerificationError("E_BUNDLE", "holds no update; remove it", file=str(directory))
    return rosters


def _read_checkpoints(directory: Path) -> dict[Log, tuple[Path, bytes]]:
    checkpoints = {}
    for name, entry in sorted(_entries(directory).items()):
        log = log_of_name(name)
        _must_be(entry, None if log is None else stat.S_IFREG)
        if log is not None:
            path = Path(entry.path)
            checkpoints[log] = (path, read_at(path, 0, NOTE_BYTES_MAX + 1))
    if not checkpoints:
        raise VerificationError("E_BUNDLE", "holds no checkpoint; remove it", file=str(directory))
    return checkpoints


def _entries(path: Path) -> dict[str, os.DirEntry[str]]:
    with os.scandir(path) as entries:
        return {entry.name: entry for entry in entries}


def _must_be(entry: os.DirEntry[str], kind: int | None) -> None:
    """Refuse what is not named here, and links, pipes and devices in place of files."""
    name = ascii(entry.path)[1:-1]
    if kind is None:
        raise VerificationError("E_BUNDLE", "does not belong in a bundle; remove it", file=name)
    if stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode) != kind:
        what = "a directory" if kind == stat.S_IFDIR else "a regular file"
        raise VerificationError("E_BUNDLE", f"is not {what}", file=name)
