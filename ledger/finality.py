"""Which records are final: a pure function of the records. Room: ledger. Spec: docs/ledger.md §8.

A record is SIGNED when stored and verified, and FINAL when q members of one roster, its author
among them, have acked it or a later record of its log under that roster. Nobody has to be asked,
so an auditor gets the same answer years later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from .record import Record
from .roster import Roster, quorum

Log: TypeAlias = tuple[int, int]  # (author, epoch)
AckMatrix: TypeAlias = Mapping[Log, Mapping[int, int]]  # log → member → highest seq acked


def ack_matrix(records: Iterable[Record]) -> dict[Log, dict[int, int]]:
    """Return for every log how far each member has acked it; an author acks its own by writing.

    The records' order does not matter. Meant for records of one roster version.
    """
    matrix: dict[Log, dict[int, int]] = {}
    for record in records:
        raise_to(matrix, (record.author, record.epoch), record.author, record.seq)
        for ack in record.acks:
            raise_to(matrix, (ack.author, ack.epoch), record.author, ack.seq)
    return matrix


def raise_to(matrix: dict[Log, dict[int, int]], log: Log, member: int, seq: int) -> None:
    """Note that ``member`` has acked ``log`` at least up to ``seq``."""
    row = matrix.setdefault(log, {})
    row[member] = max(row.get(member, -1), seq)


def ack_matrices(records: Iterable[Record]) -> dict[int, dict[Log, dict[int, int]]]:
    """Return an ack matrix for each roster version that records name."""
    by_version: dict[int, list[Record]] = {}
    for record in records:
        by_version.setdefault(record.roster, []).append(record)
    return {version: ack_matrix(group) for version, group in sorted(by_version.items())}


def final_seq(acked: Iterable[int], quorum: int) -> int:
    """Return the highest seq that ``quorum`` members reach, -1 if none.

    ``acked``: the highest seq of each member that acked anything, the author's own included.
    """
    reached = sorted(acked, reverse=True)
    return reached[quorum - 1] if len(reached) >= quorum else -1


def states(records: Iterable[Record], roster: Roster) -> dict[Log, int]:
    """Return for every log the highest FINAL seq, -1 if none is; ``roster``: the newest one."""
    return states_of_versions(ack_matrices(records), roster)


def states_of_versions(matrices: Mapping[int, AckMatrix], roster: Roster) -> dict[Log, int]:
    """Return the same from matrices by roster version: what is final under one stays final."""
    result: dict[Log, int] = {}
    for version, matrix in matrices.items():
        for log, seq in states_of(matrix, roster, version=version).items():
            result[log] = max(seq, result.get(log, -1))
    return dict(sorted(result.items()))


def states_of(matrix: AckMatrix, roster: Roster, *, version: int | None = None) -> dict[Log, int]:
    """Return the same from the matrix of one version, by default the newest.

    Acks of who was no member then do not count, nor does what lies behind a cut.
    """
    members = roster.active_at(roster.version if version is None else version)
    needed = quorum(len(members))
    result: dict[Log, int] = {}
    for log, row in sorted(matrix.items()):
        author, epoch = log
        own = row.get(author, -1)  # nobody can make final what its author never wrote
        cut = roster.cut(author, epoch)
        own = own if cut is None else min(own, cut.kept - 1)
        acked = [min(seq, own) for member, seq in row.items() if member in members]
        result[log] = final_seq(acked, needed)
    return result
