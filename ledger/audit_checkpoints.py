"""Checkpoints under audit: steps 16, 17 and 18. Room: ledger. Spec: docs/ledger.md §10.

They come after the logs: what is held against a checkpoint here are ids of records that steps 4 to
14 have accepted. Where a log was refused before a checkpoint's end, that checkpoint is not judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, final

from .bundle import Bundle
from .charter import Charter
from .checkpoint import VerifiedCheckpoint, open_in_force
from .errors import ConfigError, VerificationError
from .merkle import Tree
from .note import NOTE_BYTES_MAX
from .report import Finding
from .roster import Roster
from .roster_update import advance, parse_update
from .timestamp import TOKEN_BYTES_MAX, TokenClaim, read_token

Log: TypeAlias = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditedLog:
    """What the steps before made of one log."""

    ids: memoryview
    """Of the accepted records, 32 bytes each."""
    counts: Mapping[str, int]
    """File → records of it that were accepted."""
    is_refused: bool
    is_cut: bool
    forked_at: int | None = None
    """The lowest slot that its key has signed twice, where that is proven."""

    @property
    def count(self) -> int:
        """How many records were accepted."""
        return len(self.ids) // 32


NO_LOG = AuditedLog(ids=memoryview(b""), counts={}, is_refused=False, is_cut=False)


@dataclass(kw_only=True, slots=True)
class Anchors:
    """What the checkpoints prove: of each log so many records are anchored, so many time-stamped."""

    anchored: dict[Log, int] = field(default_factory=dict)
    timestamped: dict[Log, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A checkpoint whose signatures hold."""

    file: str
    opened: VerifiedCheckpoint
    bundle: Bundle | None
    """None: the auditor brought it."""

    @property
    def log(self) -> Log:
        return self.opened.checkpoint.author, self.opened.checkpoint.epoch


def rosters_of(bundles: Sequence[Bundle], charter: Charter, newest: Roster) -> tuple[Roster, ...]:
    """Return every roster version up to ``newest``, which step 3 has accepted; the newest first."""
    roster = Roster.from_charter(charter)
    versions = [roster]
    longest = max(bundles, key=lambda one: len(one.rosters), default=None)
    for _, (_, data) in sorted(longest.rosters.items()) if longest is not None else ():
        if roster.digest == newest.digest:
            break
        roster = advance(roster, parse_update(data))
        versions.append(roster)
    return tuple(reversed(versions))


def steps_16_to_18(
    bundles: Sequence[Bundle],
    rosters: Sequence[Roster],
    logs: Mapping[Log, AuditedLog],
    *,
    pins: Iterable[Path] = (),
    tokens: Iterable[Path] = (),
) -> Anchors:
    """Hold checkpoints against the logs, and tokens against the checkpoints.

    ``pins``: checkpoint files that the auditor kept from before; ``tokens``: RFC 3161 replies.
    Raises ConfigError if one of those cannot be read.
    """
    audit = _CheckpointAudit(rosters, logs)
    for bundle in bundles:
        for log, (path, data) in sorted(bundle.checkpoints.items()):
            audit.step_16_checkpoint(bundle, log, str(path), data)
    for path in pins:
        audit.step_17_pin(str(path), _read(path, NOTE_BYTES_MAX))
    audit.step_17_others()
    for path in tokens:
        audit.step_18_token(str(path), _read(path, TOKEN_BYTES_MAX))
    audit.say_what_is_missing()
    return audit.anchors


@final
class _CheckpointAudit:
    def __init__(self, rosters: Sequence[Roster], logs: Mapping[Log, AuditedLog]) -> None:
        self.anchors = Anchors()
        self._rosters = rosters
        self._logs = logs
        self._seen: list[_Seen] = []
        self._void: list[_Seen] = []  # of branches that do not stand
        self._claims: list[tuple[TokenClaim, _Seen]] = []

    def step_16_checkpoint(self, bundle: Bundle, log: Log, file: str, data: bytes) -> None:
        """E_CHECKPOINT, E_COSIGN, E_QUORUM; E_ROLLBACK and E_INCONSISTENT of step 17 for the log."""
        try:
            opened = self._open(data, is_pin=False)
            _check_name(opened, log)
        except VerificationError as error:
            self._find(16, error, file, log)
            return
        self._judge(_Seen(file, opened, bundle))

    def step_17_pin(self, file: str, data: bytes) -> None:
        """E_ROLLBACK, E_INCONSISTENT; of step 16 if it is no checkpoint of this network."""
        try:
            opened = self._open(data, is_pin=True)
        except VerificationError as error:
            self._find(16, error, file)
            return
        self._judge(_Seen(file, opened, None))

    def _open(self, data: bytes, *, is_pin: bool) -> VerifiedCheckpoint:
        """Open it under the newest roster version under which it is whole.

        What a bundle holds has a quorum and no line of a stranger; what an auditor kept may differ.
        """
        return open_in_force(
            data, rosters=self._rosters, only_members=not is_pin, finished=not is_pin
        )

    def _judge(self, seen: _Seen) -> None:
        """Hold a checkpoint against the accepted records of its log."""
        size = seen.opened.checkpoint.size
        log = self._logs.get(seen.log, NO_LOG)
        if size > log.count and (log.is_refused or (log.is_cut and log.forked_at is None)):
            what = "refused" if log.is_refused else "cut off"
            self.anchors.notes.append(
                f"{seen.file} covers {size} records; the log was {what} after {log.count}, "
                "so its root was not checked"
            )
            self._seen.append(seen)
            return
        try:
            _check_log(seen, log)
        except VerificationError as error:
            if log.forked_at is not None and size > log.forked_at:
                # The author's fault, and proven already; its witnesses may have seen that branch.
                self.anchors.notes.append(
                    f"{seen.file} covers {size} records of a branch that does not stand: void"
                )
                self._void.append(seen)
                return
            step = 16 if error.code == "E_CHECKPOINT" else 17
            self._find(step, error, seen.file, seen.log, proof=(seen.opened.data,))
            return
        self._seen.append(seen)
        if seen.opened.is_anchored:
            _raise_to(self.anchors.anchored, seen.log, size)

    def step_17_others(self) -> None:
        """E_INCONSISTENT: an author signed two roots for one size, whatever the records say."""
        roots: dict[tuple[Log, int], _Seen] = {}
        for seen in self._seen:
            checkpoint = seen.opened.checkpoint
            first = roots.setdefault((seen.log, checkpoint.size), seen)
            if first.opened.checkpoint.root != checkpoint.root:
                error = VerificationError(
                    "E_INCONSISTENT", f"{first.file} has another root for {checkpoint.size} records",
                    expected=first.opened.checkpoint.root.hex(),
                )  # fmt: skip
                proof = (first.opened.data, seen.opened.data)
                self._find(17, error, seen.file, seen.log, proof=proof)

    def step_18_token(self, file: str, data: bytes) -> None:
        """E_TIMESTAMP: the token is none, or is of no checkpoint that was given here.

        One of a void checkpoint says when that branch was there, and stamps no record.
        """
        try:
            claim, imprint = read_token(data)
            seen = self._stamped(imprint)
        except VerificationError as error:
            self._find(18, error, file)
            return
        self._claims.append((claim, seen))
        size = seen.opened.checkpoint.size
        if seen in self._void:
            self.anchors.notes.append(f"{file} is for {seen.file}, which is void")
        elif self.anchors.anchored.get(seen.log, 0) >= size and seen.opened.is_anchored:
            _raise_to(self.anchors.timestamped, seen.log, size)

    def _stamped(self, imprint: bytes) -> _Seen:
        for seen in (*self._seen, *self._void):
            if seen.opened.digest == imprint:
                return seen
        raise VerificationError(
            "E_TIMESTAMP", f"the token is for digest {imprint.hex()}",
            expected="that of a checkpoint in a bundle, or of a pin",
        )  # fmt: skip

    def say_what_is_missing(self) -> None:
        """Name what these steps leave to others."""
        if self._claims:
            files = len(self._claims)
            self.anchors.missing.append(
                f"the authority's signature of {files} token{'' if files == 1 else 's'} was not "
                "checked: openssl ts -verify"
            )

    def _find(
        self,
        step: int,
        error: VerificationError,
        file: str,
        log: Log | None = None,
        proof: tuple[bytes, ...] = (),
    ) -> None:
        if log is not None:
            error.locate(author=log[0], epoch=log[1])
        self.anchors.findings.append(Finding(step, error.locate(file=file), proof))


def _check_name(opened: VerifiedCheckpoint, log: Log) -> None:
    checkpoint = opened.checkpoint
    if (checkpoint.author, checkpoint.epoch) != log or checkpoint.size == 0:
        raise VerificationError(
            "E_CHECKPOINT", f"{checkpoint.size} records of {checkpoint.origin}",
            expected=f"records of author {log[0]}, epoch {log[1]}, as in the file's name",
        )  # fmt: skip


def _check_log(seen: _Seen, log: AuditedLog) -> None:
    """Raise E_ROLLBACK if the log is shorter, E_CHECKPOINT or E_INCONSISTENT if it is another.

    E_CHECKPOINT where one bundle contradicts itself, E_INCONSISTENT where two do, or a pin.
    """
    checkpoint = seen.opened.checkpoint
    if log.count < checkpoint.size:
        raise VerificationError(
            "E_ROLLBACK", f"the log has {log.count} records",
            expected=f"the checkpoint's {checkpoint.size}",
        )  # fmt: skip
    root = _root_of(log.ids, checkpoint.size)
    if root != checkpoint.root:
        raise VerificationError(
            "E_CHECKPOINT" if _is_of_its_bundle(seen, log) else "E_INCONSISTENT",
            f"the first {checkpoint.size} records have root {root.hex()}",
            expected=checkpoint.root.hex(),
        )


def _is_of_its_bundle(seen: _Seen, log: AuditedLog) -> bool:
    """Whether the bundle that holds the checkpoint shows the records under it, too."""
    if seen.bundle is None or seen.log not in seen.bundle.logs:
        return False
    held = log.counts.get(str(seen.bundle.logs[seen.log]), 0)
    return held >= seen.opened.checkpoint.size


def _root_of(ids: memoryview, size: int) -> bytes:
    tree = Tree()
    tree.extend(bytes(ids[at : at + 32]) for at in range(0, size * 32, 32))
    return tree.root()


def _raise_to(sizes: dict[Log, int], log: Log, size: int) -> None:
    sizes[log] = max(size, sizes.get(log, 0))


def _read(path: Path, bytes_max: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(bytes_max + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}; name another file") from None
