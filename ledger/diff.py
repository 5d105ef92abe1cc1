"""What one bundle has and another lacks, in words. Room: ledger. Spec: docs/ledger.md §13.

Compares bytes and ids; believes nothing. Whether either is right is ``swarm-audit verify``'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

from .bundle import Bundle, read_bundle
from .charter import charter_net
from .errors import VerificationError
from .frames import read_frames
from .record import record_id, split_envelope

Log: TypeAlias = tuple[int, int]


@dataclass(kw_only=True)
class LogDiff:
    """One log in both bundles."""

    author: int
    epoch: int
    records: list[int] = field(default_factory=lambda: [0, 0])
    common: int = 0  # how many records at the start are the same
    fork: tuple[str, str] | None = None  # the ids in the first slot that differs
    signatures: int = 0  # same record, another signature
    broken: list[str | None] = field(default_factory=lambda: [None, None])

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return (
            self.fork is None
            and not self.signatures
            and self.records[0] == self.records[1]
            and self.broken == [None, None]
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "author": self.author,
            "epoch": self.epoch,
            "same": self.same,
            "records": list(self.records),
            "common": self.common,
            "fork": None if self.fork is None else {"seq": self.common, "ids": list(self.fork)},
            "other_signatures": self.signatures,
            "broken": list(self.broken),
        }


@dataclass(frozen=True, kw_only=True)
class Diff:
    """Two bundles side by side."""

    paths: tuple[str, str]
    charters: tuple[str, str]  # digests
    rosters: tuple[dict[int, str], dict[int, str]]  # version → digest of the update's file
    logs: tuple[LogDiff, ...]

    @property
    def same(self) -> bool:
        """Whether both have the same files, byte for byte."""
        return (
            self.charters[0] == self.charters[1]
            and self.rosters[0] == self.rosters[1]
            and all(log.same for log in self.logs)
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "same": self.same,
            "bundles": list(self.paths),
            "charters": list(self.charters),
            "rosters": [dict(one) for one in self.rosters],
            "logs": [log.to_json() for log in self.logs],
        }

    def lines(self) -> Iterator[str]:
        """Yield the verdict and what differs, in words; A is the first bundle, B the second."""
        records = sum(log.common for log in self.logs)
        yield f"{'SAME' if self.same else 'DIFFERENT'}: {records} records in common"
        yield f"  A  {self.paths[0]}"
        yield f"  B  {self.paths[1]}"
        if self.charters[0] != self.charters[1]:
            yield f"  another charter: A {self.charters[0]}, B {self.charters[1]}"
        for version in sorted(self.rosters[0].keys() | self.rosters[1].keys()):
            a, b = self.rosters[0].get(version), self.rosters[1].get(version)
            if a is None or b is None:
                yield f"  roster {version}: only {'B' if a is None else 'A'} has it"
            elif a != b:
                yield f"  roster {version}: two different updates"
        for log in self.logs:
            # Of two federations no record is the same: these are two logs, not a log that forked.
            fork = self.charters[0] == self.charters[1] or log.common > 0
            yield from _log_lines(log, "FORK" if fork else "other records")


def _log_lines(log: LogDiff, differs: str) -> Iterator[str]:
    name = f"  log {log.author}/{log.epoch}:"
    if log.same:
        yield f"{name} the same {log.common} records"
    for which, why in zip("AB", log.broken, strict=True):
        if why is not None:
            yield f"{name} {which}'s file breaks off: {why}"
    if log.fork is not None:
        yield (
            f"{name} {differs} at seq {log.common}: A has {log.fork[0]}, B has {log.fork[1]}; "
            f"{log.common} records before are the same"
        )
    elif log.records[0] != log.records[1]:
        more, less = (0, 1) if log.records[0] > log.records[1] else (1, 0)
        have, lack = log.records[more], log.records[less]
        yield (
            f"{name} {'AB'[more]} has {have} records, {'AB'[less]} lacks the last {have - lack} "
            f"(seq {lack} to {have - 1})"
            if lack
            else f"{name} only {'AB'[more]} has it, {have} records"
        )
    if log.signatures:
        yield f"{name} {log.signatures} records with another signature"


def diff_bundles(a: Path | str, b: Path | str) -> Diff:
    """Compare two bundles. Raises ConfigError or E_BUNDLE if one is none."""
    one, other = read_bundle(a), read_bundle(b)
    logs = tuple(_diff_log(log, one, other) for log in sorted(one.logs.keys() | other.logs.keys()))
    return Diff(
        paths=(str(a), str(b)),
        charters=(charter_net(one.charter_bytes).hex(), charter_net(other.charter_bytes).hex()),
        rosters=(_rosters(one), _rosters(other)),
        logs=logs,
    )


def _rosters(bundle: Bundle) -> dict[int, str]:
    return {version: sha256(data).hexdigest() for version, (_, data) in bundle.rosters.items()}


def _diff_log(log: Log, one: Bundle, other: Bundle) -> LogDiff:
    diff = LogDiff(author=log[0], epoch=log[1])
    sides = [
        _frames(bundle.logs.get(log), diff, which) for which, bundle in enumerate((one, other))
    ]
    while True:
        a, b = (next(side, None) for side in sides)
        if a is None and b is None:
            return diff
        if a is None or b is None or diff.fork is not None:
            continue
        if a != b:
            ids = _id(a), _id(b)
            if ids[0] != ids[1]:
                diff.fork = ids
                continue
            diff.signatures += 1
        diff.common += 1


def _frames(path: Path | None, diff: LogDiff, which: int) -> Iterator[bytes]:
    if path is None:
        return
    try:
        for envelope in read_frames(path):
            diff.records[which] += 1
            yield envelope
    except VerificationError as error:
        diff.broken[which] = str(error)


def _id(envelope: bytes) -> str:
    try:
        return record_id(split_envelope(envelope)[0]).hex()
    except VerificationError:
        return f"no record ({sha256(envelope).hexdigest()[:16]})"
