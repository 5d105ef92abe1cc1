"""Which records are final: a pure function of the records. Room: ledger. Spec: docs/ledger.md §8.

A record is SIGNED when stored and verified, and FINAL when q members, its author among them, have
acked it or a later record of its log. Nobody has to be asked, so an auditor gets the same answer
years later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from .record import Record
from .roster import Roster

Log: TypeAlias = tuple[int, int]  # (author, epoch)
AckMatrix: TypeAlias = Mapping[Log, Mapping[int, int]]  # log → member → highest seq acked


def ack_matrix(records: Iterable[Record]) -> dict[Log, dict[int, int]]:
    """Return for every log how far each member has acked it; an author acks its own by writing.

    The records' order does not matter.
    """
    matrix: dict[Log, dict[int, int]] = {}
    for record in records:
        _raise_to(matrix, (record.author, record.epoch), record.author, record.seq)
        for ack in record.acks:
            _raise_to(matrix, (ack.author, ack.epoch), record.author, ack.seq)
    return matrix


def _raise_to(matrix: dict[Log, dict[int, int]], log: Log, member: int, seq: int) -> None:
    row = matrix.setdefault(log, {})
    row[member] = max(row.get(member, -1), seq)


def final_seq(acked: Iterable[int], quorum: int) -> int:
    """Return the highest seq that ``quorum`` members reach, -1 if none.

    ``acked``: the highest seq of each member that acked anything, the author's own included.
    """
    reached = sorted(acked, reverse=True)
    return reached[quorum - 1] if len(reached) >= quorum else -1


def states(records: Iterable[Record], roster: Roster) -> dict[Log, int]:
    """Return for every log the highest FINAL seq, -1 if none is."""
    return states_of(ack_matrix(records), roster)


def states_of(matrix: AckMatrix, roster: Roster) -> dict[Log, int]:
    """Return the same from a matrix; acks of who is no member do not count."""
    result: dict[Log, int] = {}
    for log, row in sorted(matrix.items()):
        author = log[0]
        own = row.get(author, -1)  # nobody can make final what its author never wrote
        acked = [min(seq, own) for member, seq in row.items() if 0 <= member < roster.n]
        result[log] = final_seq(acked, roster.q)
    return result
