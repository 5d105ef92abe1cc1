"""What lies below a record: everything that its author had stored when it was written. Room: ledger.

Acks name heads, and nobody acks what does not rest on records that he has, so what a set of records
covers is a number of records for each log. Two who hold these records hold all below them, and get
the same numbers: that is how members that vote for the same inputs use the same reputations.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias, final

from .record import Ack

Log: TypeAlias = tuple[int, int]  # (author, epoch)
Counts: TypeAlias = Mapping[Log, int]
_EMPTY: Final = array("Q")


@final
class Coverage:
    """An index of acks and rounds; feed it the records of each log in order."""

    def __init__(self) -> None:
        self._rounds: defaultdict[Log, array[int]] = defaultdict(lambda: array("Q"))
        # (log, acked log) → seqs of records that ack more of it than any before, and how far
        self._at: defaultdict[tuple[Log, Log], array[int]] = defaultdict(lambda: array("Q"))
        self._upto: defaultdict[tuple[Log, Log], array[int]] = defaultdict(lambda: array("Q"))
        self._acked: defaultdict[Log, list[Log]] = defaultdict(list)

    def learn(self, author: int, epoch: int, seq: int, round_: int, acks: Iterable[Ack]) -> None:
        """Enter the next record of a log; one that is not the next is passed over."""
        log = author, epoch
        rounds = self._rounds[log]
        if seq != len(rounds):
            return
        rounds.append(round_)
        for ack in acks:
            other = ack.author, ack.epoch
            key = log, other
            upto = self._upto[key]
            if not upto:
                self._acked[log].append(other)
            if not upto or ack.seq + 1 > upto[-1]:
                self._at[key].append(seq)
                upto.append(ack.seq + 1)

    def had(self, log: Log, seq: int, other: Log) -> int:
        """How many records of ``other`` the author of ``log`` had acked up to its record ``seq``."""
        at = bisect_right(self._at.get((log, other), _EMPTY), seq)
        return self._upto[log, other][at - 1] if at else 0

    def below(self, records: Iterable[tuple[int, int, int]]) -> dict[Log, int]:
        """Return how many records of each log lie below or at these (author, epoch, seq)."""
        counts: dict[Log, int] = {}
        todo = [((author, epoch), seq + 1) for author, epoch, seq in records]
        while todo:
            log, count = todo.pop()
            if count <= counts.get(log, 0):
                continue
            counts[log] = count
            todo += [(other, self.had(log, count - 1, other)) for other in self._acked[log]]
        return counts

    def up_to_round(self, counts: Counts, round_: int) -> dict[Log, int]:
        """Return those of the counted records that belong to ``round_`` or earlier ones."""
        return {
            log: kept
            for log, count in counts.items()
            if (kept := min(count, bisect_right(self._rounds[log], round_)))
        }
