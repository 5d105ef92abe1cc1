"""Proof files: a proof and the checkpoint it leads to, in one text. Room: ledger.

Spec: docs/checkpoints.md §7 and §8. An inclusion file is C2SP ``c2sp.org/tlog-proof@v1``, as in
C2SP/C2SP tlog-proof.md at 0065ea5b (on main, not yet tagged). A consistency file is the body of an
add-checkpoint request of C2SP tlog-witness (tlog-witness.md at 055270b5): the one standard text for
it. Both end with the checkpoint verbatim. Codes: E_CHECKPOINT, and what is inside has its own.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .canonical import ENVELOPE_BYTES_MAX, UINT_MAX
from .checkpoint import VerifiedCheckpoint, open_checkpoint, open_in_force
from .errors import VerificationError
from .merkle import (
    HASH_BYTES,
    PROOF_HASHES_MAX,
    Proof,
    verify_consistency,
    verify_inclusion,
)
from .note import NOTE_BYTES_MAX, decode_base64, decode_decimal, decode_text
from .record import Record, Verified, open_record, parse_envelope
from .roster import Roster

MAGIC: Final = "c2sp.org/tlog-proof@v1"
_HEAD_BYTES_MAX: Final = 4096 + 4 * ENVELOPE_BYTES_MAX // 3  # 63 hashes, and an envelope as extra
FILE_BYTES_MAX: Final = _HEAD_BYTES_MAX + NOTE_BYTES_MAX


@dataclass(frozen=True, kw_only=True, slots=True)
class InclusionFile:
    """A tlog-proof. ``extra`` is the record's envelope in our own files. Nothing is believed yet."""

    index: int
    proof: Proof
    checkpoint: bytes
    extra: bytes | None = None

    def encode(self) -> bytes:
        """Return the file."""
        head = [MAGIC]
        if self.extra is not None:
            head.append(f"extra {_b64(self.extra)}")
        head.append(f"index {self.index}")
        return _encode(head, self.proof, self.checkpoint)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsistencyFile:
    """A proof from a tree of ``old_size`` to the checkpoint's. Nothing is believed yet."""

    old_size: int
    proof: Proof
    checkpoint: bytes

    def encode(self) -> bytes:
        """Return the file."""
        return _encode([f"old {self.old_size}"], self.proof, self.checkpoint)


def parse_inclusion(data: bytes) -> InclusionFile:
    """Split an inclusion file. Raises E_CHECKPOINT."""
    lines, checkpoint = _split(data)
    if lines.pop(0) != MAGIC:
        raise VerificationError("E_CHECKPOINT", "not a tlog-proof", expected=MAGIC)
    extra = None
    if lines and lines[0].startswith("extra "):
        extra = decode_base64(lines.pop(0).removeprefix("extra "), "the extra data")
    index = _number(lines, "index")
    return InclusionFile(index=index, proof=_hashes(lines), checkpoint=checkpoint, extra=extra)


def parse_consistency(data: bytes) -> ConsistencyFile:
    """Split a consistency file. Raises E_CHECKPOINT."""
    lines, checkpoint = _split(data)
    old_size = _number(lines, "old")
    return ConsistencyFile(old_size=old_size, proof=_hashes(lines), checkpoint=checkpoint)


def open_inclusion(
    data: bytes, *, leaf: bytes, roster: Roster, cosigners_min: int | None = None
) -> VerifiedCheckpoint:
    """Check that the record with id ``leaf`` is in the file's tree; return the checkpoint.

    Raises VerificationError E_CHECKPOINT, E_COSIGN, E_QUORUM.
    """
    file = parse_inclusion(data)
    opened = open_checkpoint(file.checkpoint, roster=roster, cosigners_min=cosigners_min)
    _check_included(file, leaf, opened)
    return opened


def open_record_proof(
    data: bytes, *, rosters: Sequence[Roster], finished: bool = True
) -> tuple[Verified[Record], VerifiedCheckpoint]:
    """Check a file that brings its record along: the record by itself, then that it is in the log.

    rosters: every version, the newest first. ``finished``: a quorum must have cosigned.
    Raises the codes of opening a record (steps 5 to 9), E_CHECKPOINT, E_COSIGN, E_QUORUM.
    """
    file = parse_inclusion(data)
    if file.extra is None:
        raise VerificationError("E_CHECKPOINT", "the file does not bring its record along")
    record = open_record(parse_envelope(file.extra), roster=rosters[0])
    opened = open_in_force(file.checkpoint, rosters=rosters, finished=finished)
    _check_included(file, record.id, opened)
    of_record = (record.value.author, record.value.epoch, record.value.seq)
    of_tree = (opened.checkpoint.author, opened.checkpoint.epoch, file.index)
    if of_record != of_tree:
        raise VerificationError(
            "E_CHECKPOINT", "record {}/{}/{}".format(*of_record),
            expected="{}/{}/{}, its place in the tree".format(*of_tree),
        )  # fmt: skip
    return record, opened


def open_consistency(
    data: bytes, *, old: VerifiedCheckpoint, roster: Roster, cosigners_min: int | None = None
) -> VerifiedCheckpoint:
    """Check that the file's checkpoint extends ``old``; return it.

    Raises VerificationError E_CHECKPOINT, E_COSIGN, E_QUORUM.
    """
    file = parse_consistency(data)
    opened = open_checkpoint(file.checkpoint, roster=roster, cosigners_min=cosigners_min)
    before, now = old.checkpoint, opened.checkpoint
    if (before.origin, before.size) != (now.origin, file.old_size):
        raise VerificationError(
            "E_CHECKPOINT", f"proof for {now.origin} from size {file.old_size}",
            expected=f"{before.origin} from size {before.size}",
        )  # fmt: skip
    verify_consistency(
        old_size=before.size, old_root=before.root,
        size=now.size, root=now.root, proof=file.proof,
    )  # fmt: skip
    return opened


def _check_included(file: InclusionFile, leaf: bytes, opened: VerifiedCheckpoint) -> None:
    tree = opened.checkpoint
    verify_inclusion(leaf, file.index, size=tree.size, root=tree.root, proof=file.proof)


def _encode(head: list[str], proof: Sequence[bytes], checkpoint: bytes) -> bytes:
    return "\n".join([*head, *map(_b64, proof)]).encode() + b"\n\n" + checkpoint


def _split(data: bytes) -> tuple[list[str], bytes]:
    if len(data) > FILE_BYTES_MAX:
        raise VerificationError(
            "E_CHECKPOINT", f"proof of {len(data)} bytes", expected=f"at most {FILE_BYTES_MAX}"
        )
    # The first blank line: the checkpoint has another one further down.
    head, blank, checkpoint = data.partition(b"\n\n")
    if not blank:
        raise VerificationError("E_CHECKPOINT", "a proof is lines, a blank line, a checkpoint")
    return decode_text(head, "the proof").split("\n"), checkpoint


def _number(lines: list[str], word: str) -> int:
    line = lines.pop(0) if lines else ""
    if not line.startswith(f"{word} "):
        raise VerificationError("E_CHECKPOINT", f"line {ascii(line)[:80]}", expected=f"{word} N")
    return decode_decimal(line.removeprefix(f"{word} "), word, UINT_MAX)


def _hashes(lines: list[str]) -> Proof:
    if len(lines) > PROOF_HASHES_MAX:
        raise VerificationError("E_CHECKPOINT", f"a proof of {len(lines)} hashes")
    hashes = tuple(decode_base64(line, "a hash of the proof") for line in lines)
    if any(len(one) != HASH_BYTES for one in hashes):
        raise VerificationError("E_CHECKPOINT", "a hash of another length than 32 bytes")
    return hashes


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
