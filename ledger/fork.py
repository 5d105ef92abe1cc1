"""Fork proofs and cuts. Room: ledger. Spec: docs/reputation.md §3, docs/ledger.md §8.

A fork proof stands by itself: two envelopes that one key signed for one slot. A cut is what a
roster operation leaves of a log. Step 14 of the verification list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .bodies import ForkProof
from .errors import VerificationError
from .record import (
    NO_ID,
    Record,
    RecordId,
    RosterKeys,
    SignedRecord,
    Verified,
    open_record,
    parse_envelope,
)

HALVES: Final = ("A", "B")


@dataclass(frozen=True, slots=True)
class Fork:
    """What a proof shows: ``author`` signed two records for one slot; ``ids`` are in order."""

    author: int
    epoch: int
    seq: int
    ids: tuple[RecordId, RecordId]


def fork_proof(one: SignedRecord, other: SignedRecord) -> ForkProof:
    """Return the proof that two records make, the smaller id first; :func:`check_fork_proof` it."""
    a, b = sorted((one, other), key=lambda signed: signed.id)
    return ForkProof(envelope_a=a.envelope(), envelope_b=b.envelope())


def check_fork_proof(body: ForkProof, roster: RosterKeys) -> Fork:
    """Step 14: both halves are valid records of one slot, with different ids. E_FORK_PROOF.

    Whoever publishes a proof that proves nothing is refused; nobody is blamed on such a one.
    """
    a, b = (
        _open_half(name, envelope, roster)
        for name, envelope in zip(HALVES, (body.envelope_a, body.envelope_b), strict=True)
    )
    slots = [(half.value.author, half.value.epoch, half.value.seq) for half in (a, b)]
    if slots[0] != slots[1]:
        raise VerificationError(
            "E_FORK_PROOF",
            f"half A is {_name(slots[0])}, half B is {_name(slots[1])}",
            expected="the same author, epoch and seq",
        )
    if a.id == b.id:
        raise VerificationError(
            "E_FORK_PROOF", "both halves are one record", expected="two different ids"
        )
    return Fork(*slots[0], (min(a.id, b.id), max(a.id, b.id)))


def _open_half(name: str, envelope: bytes, roster: RosterKeys) -> Verified[Record]:
    try:
        return open_record(parse_envelope(envelope), roster=roster)
    except VerificationError as error:
        raise VerificationError(
            "E_FORK_PROOF", f"half {name} is no valid record: {error}"
        ) from None


def _name(slot: tuple[int, int, int]) -> str:
    return "/".join(map(str, slot))


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """What REMOVE or ROTATE leaves of a log: its first ``kept`` records, up to ``head_id``.

    Nothing left is ``kept`` 0 and a head of zeros.
    """

    author: int
    epoch: int
    kept: int
    head_id: RecordId

    def __post_init__(self) -> None:
        if self.kept < 0 or (self.kept == 0) != (self.head_id == NO_ID):
            raise ValueError("a cut keeps records up to a head, or none and zeros")


def check_cut(cut: Cut, record: Verified[Record]) -> None:
    """Step 14: the record is not behind the cut of its log, nor in its head's place. E_AFTER_CUT.

    A record of another log passes. What lies before the head is the chain's to check.
    """
    header = record.value
    if (header.author, header.epoch) != (cut.author, cut.epoch):
        return
    replaced = header.seq == cut.kept - 1 and record.id != cut.head_id
    if header.seq >= cut.kept or replaced:
        what = "another record than the cut's head" if replaced else "a record after the cut"
        raise VerificationError(
            "E_AFTER_CUT",
            what,
            author=header.author,
            epoch=header.epoch,
            seq=header.seq,
            expected=f"{cut.kept} records, the last one {cut.head_id.hex()[:16]}",
        )
