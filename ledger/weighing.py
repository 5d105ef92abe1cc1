"""How reputation bounds what a contribution weighs. Room: ledger. Spec: docs/reputation.md §13.

Members that merge the same inputs must use the same integers, although none of them knows what the
others have heard. What they share is what lies below these inputs: who holds a record holds all that
its author had acked. So the reputations of a merge are those which the records below its inputs give,
and these only up to a round that all have long left behind.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, TypeAlias, final

from .charter import ReputationPolicy
from .coverage import Coverage
from .evidence import Seen
from .ranking import MICRO
from .record import Record, RecordId
from .reputation import replay
from .reputation_types import RULES
from .roster import Roster

Log: TypeAlias = tuple[int, int]
BLOCK_ROUNDS: Final = 4
"""Weights follow reputation every so many rounds."""
SETTLED_ROUNDS: Final = 2
"""And then as it was so many rounds before: what is known of that everybody has acked by now."""
_CACHE_MAX: Final = 8


def settled_round(round_: int) -> int | None:
    """Return the last round whose records count for a merge of ``round_``; None: none do yet."""
    settled = round_ // BLOCK_ROUNDS * BLOCK_ROUNDS - SETTLED_ROUNDS
    return settled if settled > 0 else None


def factor_micro(reputation: int, *, floor: int, ceiling: int) -> int:
    """Return what a member's samples are multiplied by, in millionths; all arguments too.

    ``floor`` at 0, 1 where everybody begins, ``ceiling`` at the top, and straight lines between.
    """
    middle = RULES.initial_micro
    if reputation <= middle:
        return floor + (MICRO - floor) * reputation // middle
    return MICRO + (ceiling - MICRO) * (reputation - middle) // (MICRO - middle)


@final
class Weighing:
    """Factors of merges, from records that it is fed, each log in order. Holds all of them."""

    def __init__(self, policy: ReputationPolicy, roster: Roster) -> None:
        self._policy = policy
        self._roster = roster
        self._floor = round(policy.weight_floor * MICRO)
        self._ceiling = round(policy.weight_ceiling * MICRO)
        self._coverage = Coverage()
        self._records: defaultdict[Log, list[Seen]] = defaultdict(list)
        self._known: dict[tuple[tuple[Log, int], ...], Mapping[int, int]] = {}

    @property
    def is_on(self) -> bool:
        """Whether the charter wants reputation in weights."""
        return self._policy.mode == "weigh"

    def learn(self, record: Record, id_: RecordId) -> None:
        """Enter the next record of a log."""
        records = self._records[record.author, record.epoch]
        if self.is_on and record.seq == len(records):
            records.append(Seen(record, id_))
            self._coverage.learn(record.author, record.epoch, record.seq, record.round, record.acks)

    def factors_micro(
        self, round_: int, inputs: Sequence[tuple[int, int, int]], forked: Collection[Log] = ()
    ) -> list[int] | None:
        """Return the factor of each input (author, epoch, seq) of a merge; empty: none has any.

        forked: logs that are proven to fork. Others may hold another branch, or less of it, and another
        proof: so all of such a log is missing everywhere, until a cut says what stands.
        None: something that lies below the inputs is missing, so nobody can say.
        """
        settled = settled_round(round_)
        if not self.is_on or settled is None:
            return []
        below = self._coverage.below(inputs)
        if any(count > len(self._records[log]) for log, count in below.items()):
            return None
        if any(log in forked and self._roster.cut(*log) is None for log in below):
            return None
        counts = self._coverage.up_to_round(below, settled)
        key = tuple(sorted(counts.items()))
        if key not in self._known:
            while len(self._known) >= _CACHE_MAX:
                del self._known[next(iter(self._known))]
            self._known[key] = self._replay(key)
        values = self._known[key]
        return [
            factor_micro(
                values.get(author, RULES.initial_micro), floor=self._floor, ceiling=self._ceiling
            )
            for author, _, _ in inputs
        ]

    def _replay(self, counts: Iterable[tuple[Log, int]]) -> Mapping[int, int]:
        records = [one for log, count in counts for one in self._records[log][:count]]
        most = self._policy.evaluators_max
        return replay(records, self._roster, strict=False, evaluators_max=most).state.values_micro()
