"""One log: how a record follows the one before. Room: ledger. Spec: docs/ledger.md §6.

Pure: a head and a record go in, the next head comes out. The auditor and the node use the same
rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from .errors import VerificationError
from .record import (
    NO_ID,
    Ack,
    Aggregation,
    Body,
    Input,
    Kind,
    Record,
    RosterKeys,
    SignedRecord,
    Verified,
)
from .schema import U32_MAX

LAMPORT_STEP_MAX: Final = U32_MAX  # so that one liar cannot use the numbers up for everybody
TIME_AHEAD_MAX_MS: Final = 86_400_000  # an acked record's clock may claim this much more


@dataclass(frozen=True, slots=True)
class LogHead:
    """Where a log stands: everything the next record is checked against."""

    author: int
    epoch: int
    next_seq: int
    prev_id: bytes
    lamport: int
    time_ms: int
    round: int
    roster: int


class Head(Protocol):
    """What the chain's rules need to know of a head."""

    @property
    def next_seq(self) -> int: ...  # noqa: D102
    @property
    def prev_id(self) -> bytes: ...  # noqa: D102
    @property
    def lamport(self) -> int: ...  # noqa: D102
    @property
    def time_ms(self) -> int: ...  # noqa: D102
    @property
    def round(self) -> int: ...  # noqa: D102
    @property
    def roster(self) -> int: ...  # noqa: D102


def empty_head(author: int, epoch: int) -> LogHead:
    """Return the head of a log that has no record yet."""
    return LogHead(author, epoch, 0, NO_ID, 0, 0, 0, 0)


def check_links(head: Head, value: list[Any], id_: bytes) -> None:
    """Step 9: the record takes the next place of its log. E_FORK, E_GAP, E_PREV, E_OPEN."""
    seq = value[4]
    if seq != head.next_seq:
        if seq == head.next_seq - 1 and id_ != head.prev_id:
            raise VerificationError(
                "E_FORK", "two records for one slot", seq=seq, expected=f"id {head.prev_id.hex()}"
            )
        raise VerificationError("E_GAP", f"record {seq}", expected=f"record {head.next_seq}")
    if value[5] != head.prev_id:
        raise VerificationError(
            "E_PREV", "prev is not the id of the record before", expected=head.prev_id.hex()
        )
    if (value[7] == Kind.OPEN) != (seq == 0):
        raise VerificationError(
            "E_OPEN", "OPEN is the first record of a log, and only the first", expected="OPEN at 0"
        )


def check_monotone(head: Head, value: list[Any]) -> None:
    """Step 10: clocks and rounds only go forward.

    E_LAMPORT, E_TIME_BACKWARD, E_ROUND_BACKWARD, E_ROSTER_BACKWARD.
    """
    if not head.lamport < value[9] <= head.lamport + LAMPORT_STEP_MAX:
        raise VerificationError(
            "E_LAMPORT",
            f"lamport {value[9]} after {head.lamport}",
            expected=f"{head.lamport + 1} to {head.lamport + LAMPORT_STEP_MAX}",
        )
    if value[10] < head.time_ms:
        raise VerificationError(
            "E_TIME_BACKWARD", f"time_ms {value[10]}", expected=f"at least {head.time_ms}"
        )
    if value[8] < head.round:
        raise VerificationError(
            "E_ROUND_BACKWARD", f"round {value[8]}", expected=f"at least {head.round}"
        )
    if value[6] < head.roster:
        raise VerificationError(
            "E_ROSTER_BACKWARD", f"roster {value[6]}", expected=f"at least {head.roster}"
        )


def check_next(head: LogHead | None, record: Verified[Record]) -> LogHead:
    """Return the head after ``record``; ``None`` is a log without records.

    Raises VerificationError: the codes of steps 9 and 10.
    """
    is_of = record.value
    before = head or empty_head(is_of.author, is_of.epoch)
    if (before.author, before.epoch) != (is_of.author, is_of.epoch):
        raise ValueError("record and head are of different logs")
    # Only the 13 header fields matter here, so the body is not written out again.
    value = [1, b"", is_of.author, is_of.epoch, is_of.seq, is_of.prev, is_of.roster,
             is_of.kind, is_of.round, is_of.lamport, is_of.time_ms]  # fmt: skip
    try:
        check_links(before, value, record.id)
        check_monotone(before, value)
    except VerificationError as error:
        raise error.locate(author=is_of.author, epoch=is_of.epoch, seq=is_of.seq) from None
    return head_after(is_of, record.id)


def head_after(record: Record, id_: bytes) -> LogHead:
    """Return the head that a checked record leaves behind."""
    return LogHead(
        record.author, record.epoch, record.seq + 1, id_, record.lamport, record.time_ms,
        record.round, record.roster,
    )  # fmt: skip


def compose(  # noqa: PLR0913 - a record has that many fields
    head: LogHead | None,
    *,
    roster: RosterKeys,
    author: int,
    epoch: int,
    kind: int,
    round: int,  # noqa: A002 - the field's name
    time_ms: int,
    acks: Sequence[Ack],
    body: Body | bytes,
    lamports: Sequence[int] = (),
    times_ms: Sequence[int] = (),
) -> Record:
    """Return the record that continues our own log, ready to sign.

    ``lamports`` and ``times_ms`` are those of the acked records. A clock that went backward is
    held where it was, and one far behind an acked record's follows it, so that an honest node's
    record is never refused for its clock.
    """
    before = head or empty_head(author, epoch)
    return Record(
        net=roster.net,
        author=author,
        epoch=epoch,
        seq=before.next_seq,
        prev=before.prev_id,
        roster=roster.version,
        kind=int(kind),
        round=round,
        lamport=max(before.lamport, *lamports, 0) + 1,
        time_ms=max(time_ms, before.time_ms, *(one - TIME_AHEAD_MAX_MS for one in times_ms)),
        acks=tuple(sorted(acks, key=lambda ack: (ack.author, ack.epoch))),
        body=body,
    )


def head_of_signed(signed: SignedRecord, value: list[Any]) -> LogHead:
    """Return the head that a stored record left behind; ``value`` is its decoded form."""
    return LogHead(
        value[2], value[3], value[4] + 1, signed.id, value[9], value[10], value[8], value[6]
    )


def first_missing(
    record: Record, counts: Mapping[tuple[int, int], int]
) -> tuple[int, int, int] | None:
    """Return the first (author, epoch, seq) that ``record`` refers to and nobody here holds.

    ``counts``: how many records of each log are held. A node that stores a record only when this
    is None keeps its store closed: whatever it holds it can prove.
    """
    inputs = record.body.inputs if isinstance(record.body, Aggregation) else ()
    references: tuple[Ack | Input, ...] = (*record.acks, *inputs)
    for one in references:
        if one.seq >= counts.get((one.author, one.epoch), 0):
            return one.author, one.epoch, one.seq
    return None
