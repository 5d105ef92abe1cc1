"""``swarm-audit prove``: proof files out of a bundle, and their check. Room: ledger.

Spec: docs/checkpoints.md §7, §8 and §10. The log that a proof is about is read through first
(steps 4 to 10 of docs/ledger.md), so that nothing is proved of a log that would be refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, TypeAlias

from .audit_roster import check_cut, rosters_in_force
from .bundle import Bundle, log_name, read_bundle
from .chain import check_next
from .charter import charter_net, load_charter
from .checkpoint import (
    Checkpoint,
    VerifiedCheckpoint,
    check_log,
    make_checkpoint,
    open_in_force,
)
from .errors import ConfigError, VerificationError
from .frames import read_frames
from .merkle import (
    LeafAt,
    Tree,
    consistency_proof,
    inclusion_proof,
)
from .record import (
    Record,
    RecordId,
    Verified,
    open_record,
    parse_envelope,
    record_id,
    split_envelope,
)
from .roster import Roster
from .tlog_proof import ConsistencyFile, InclusionFile, open_record_proof

Log: TypeAlias = tuple[int, int]
Rosters: TypeAlias = Sequence[Roster]  # every version, the newest first

_PLACE: Final = re.compile(r"([0-9]{1,5})/([0-9]{1,10})/([0-9]{1,16})")
_ID: Final = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, kw_only=True)
class Made:
    """A proof file, and what it still lacks to convince a stranger (empty: nothing)."""

    data: bytes
    checkpoint: Checkpoint
    missing: tuple[str, ...] = ()


def rosters_of(
    charter_bytes: bytes, digest_hex: str | None = None, *, bundle: Bundle | None = None
) -> Rosters:
    """Return the roster versions of a charter and of a bundle's updates, the newest first.

    Raises E_NETWORK if the charter's digest is not the one given or the bundle has another
    charter, and what its updates are refused for.
    """
    digest = charter_net(charter_bytes).hex()
    if digest_hex not in (None, digest):
        raise VerificationError(
            "E_NETWORK",
            f"the charter's digest is {digest}, not the one that you gave: one of the two is not "
            "your federation's, ask its members for both",
            expected=digest_hex,
        )
    if bundle is not None and bundle.charter_bytes != charter_bytes:
        raise VerificationError(
            "E_NETWORK", "the bundle has another charter", file=str(bundle.path), expected=digest
        )
    return rosters_in_force([] if bundle is None else [bundle], load_charter(charter_bytes))


def prove_inclusion(
    path: Path | str, record: str, *, checkpoint: bytes | None = None, digest_hex: str | None = None
) -> Made:
    """Return the proof file of one record of a bundle.

    record: its id in hex, or AUTHOR/EPOCH/SEQ. Without a checkpoint the proof leads to the head of
    the log in the bundle, which nobody has signed. digest_hex: the charter's, if it is known.
    Raises ConfigError if there is no such record, VerificationError if bundle or checkpoint fail.
    """
    bundle = read_bundle(path)
    rosters = rosters_of(bundle.charter_bytes, digest_hex, bundle=bundle)
    log, seq = _find(bundle, record)
    leaf_at, count = _leaves(bundle, log, rosters[0])
    made, missing = _made(checkpoint, log, leaf_at, count, rosters)
    if seq >= made.checkpoint.size:
        raise ConfigError(
            f"record {log[0]}/{log[1]}/{seq} is not under the checkpoint, which covers "
            f"{made.checkpoint.size} records; name a later one"
        )
    proof = inclusion_proof(leaf_at, seq, made.checkpoint.size)
    file = InclusionFile(
        index=seq, proof=proof, checkpoint=made.data, extra=_frame_at(bundle.logs[log], seq)
    )
    return Made(data=file.encode(), checkpoint=made.checkpoint, missing=missing)


def prove_consistency(
    path: Path | str, old: bytes, *, checkpoint: bytes | None = None, digest_hex: str | None = None
) -> Made:
    """Return the proof file that a bundle's log extends the checkpoint in ``old``.

    It leads to ``checkpoint``, or to the log's head, which nobody has signed.
    Raises E_CHECKPOINT or E_ROLLBACK if it does not extend it.
    """
    bundle = read_bundle(path)
    rosters = rosters_of(bundle.charter_bytes, digest_hex, bundle=bundle)
    before = open_in_force(old, rosters=rosters)
    log = (before.checkpoint.author, before.checkpoint.epoch)
    leaf_at, count = _leaves(bundle, log, rosters[0])
    check_log(before, leaf_at, count)
    made, missing = _made(checkpoint, log, leaf_at, count, rosters)
    if made.checkpoint.size < before.checkpoint.size:
        raise ConfigError("the old checkpoint covers more records than the new one; swap them")
    proof = consistency_proof(leaf_at, before.checkpoint.size, made.checkpoint.size)
    file = ConsistencyFile(old_size=before.checkpoint.size, proof=proof, checkpoint=made.data)
    return Made(data=file.encode(), checkpoint=made.checkpoint, missing=missing)


def check_proof(
    data: bytes, *, rosters: Rosters
) -> tuple[Verified[Record], VerifiedCheckpoint, tuple[str, ...]]:
    """Check an inclusion file that brings its record along; return both, and what is missing.

    Raises VerificationError. A checkpoint without quorum is a gap in the evidence, no refusal.
    """
    record, opened = open_record_proof(data, rosters=rosters, finished=False)
    return record, opened, _missing(opened, rosters)


def _find(bundle: Bundle, record: str) -> tuple[Log, int]:
    place = _PLACE.fullmatch(record)
    if place is not None:
        log, seq = (int(place[1]), int(place[2])), int(place[3])
        if log not in bundle.logs:
            raise ConfigError(f"{bundle.path}: has no {log_name(log)}")
        return log, seq
    if not _ID.fullmatch(record):
        raise ConfigError(f"record {record!a}: give its id, 64 hex digits, or AUTHOR/EPOCH/SEQ")
    wanted = bytes.fromhex(record)
    for log, path in bundle.logs.items():
        for seq, id_ in enumerate(_ids(path)):
            if id_ == wanted:
                return log, seq
    raise ConfigError(f"{bundle.path}: has no record {record}")


def _ids(path: Path) -> Iterator[RecordId]:
    """Yield ids unchecked: only to find a place."""
    for envelope in read_frames(path):
        yield record_id(split_envelope(envelope)[0])


def _frame_at(path: Path, seq: int) -> bytes:
    return next(islice(read_frames(path), seq, None), b"")


def _leaves(bundle: Bundle, log: Log, roster: Roster) -> tuple[LeafAt, int]:
    """Read one log through, as a node would take it; return its ids."""
    path = bundle.logs.get(log)
    if path is None:
        raise ConfigError(f"{bundle.path}: has no {log_name(log)}")
    ids: list[RecordId] = []
    head = None
    try:
        for envelope in read_frames(path):
            record = open_record(parse_envelope(envelope), roster=roster)
            _check_author(record.value, log)
            head = check_next(head, record)
            _check_cut(record, roster)
            ids.append(record.id)
    except VerificationError as error:
        raise error.locate(file=str(path), author=log[0], epoch=log[1], seq=len(ids)) from None
    return ids.__getitem__, len(ids)


def _check_author(record: Record, log: Log) -> None:
    if (record.author, record.epoch) != log:
        raise VerificationError(
            "E_AUTHOR_MISMATCH",
            f"record of author {record.author}, epoch {record.epoch}",
            expected=f"author {log[0]}, epoch {log[1]} as in the file's name",
        )


def _check_cut(record: Verified[Record], roster: Roster) -> None:
    """Refuse what a roster update took away. E_AFTER_CUT."""
    cut = roster.cut(record.value.author, record.value.epoch)
    if cut is not None:
        check_cut(cut, record.value.seq, record.id)


def _made(
    data: bytes | None, log: Log, leaf_at: LeafAt, count: int, rosters: Rosters
) -> tuple[Made, tuple[str, ...]]:
    """Return the checkpoint that a proof leads to, checked against the log."""
    if data is None:
        tree = Tree()
        tree.extend(map(leaf_at, range(count)))
        head = make_checkpoint(roster=rosters[0], author=log[0], epoch=log[1], tree=tree)
        return Made(data=head.text() + b"\n", checkpoint=head), ("nobody signed the checkpoint",)
    opened = open_in_force(data, rosters=rosters)
    found = (opened.checkpoint.author, opened.checkpoint.epoch)
    if found != log:
        raise ConfigError(
            f"the checkpoint is of log {found[0]}/{found[1]}, the proof of {log[0]}/{log[1]}"
        )
    check_log(opened, leaf_at, count)
    return Made(data=data, checkpoint=opened.checkpoint), _missing(opened, rosters)


def _missing(opened: VerifiedCheckpoint, rosters: Rosters) -> tuple[str, ...]:
    if opened.is_anchored:
        return ()
    return (
        f"{len(opened.cosigned_s)} of {rosters[0].n} members cosigned, {opened.quorum} are needed",
    )
