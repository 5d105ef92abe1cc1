"""Which branch of a forked log stands: a pure function of the records. Room: ledger.

Spec: docs/ledger.md §8. At every slot that is known to be signed twice the branch goes on that is
final there or behind it; if none is, the log ends before that slot and the rest is void.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from .fork import Cut
from .record import RecordId

Twins: TypeAlias = Mapping[int, Collection[RecordId]]
"""Slot → ids that proofs show in it, two or more."""


@dataclass(frozen=True, slots=True)
class Chain:
    """The records that one file shows of a log, and how far they are final."""

    ids: Sequence[RecordId]
    final_seq: int  # -1: none

    def has(self, seq: int, id_: RecordId) -> bool:
        """Tell whether this record is on the chain."""
        return seq < len(self.ids) and self.ids[seq] == id_


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands of a forked log; ``conflict``: two final records for one slot."""

    ids: tuple[RecordId, ...]
    first_twin: int  # the lowest slot that is known to be signed twice; -1: none
    conflict: tuple[RecordId, RecordId] | None = None


def standing(chains: Sequence[Chain], twins: Twins, cut: Cut | None = None) -> Standing:
    """Return what stands; any order of ``chains`` gives the same.

    A cut is a quorum's decision and comes first: what it keeps stands, and nothing else.
    Two final branches need more than f liars: then neither stands, and both are named.
    """
    at = first_twin(chains, twins)
    if cut is not None:
        kept = [c for c in chains if cut.kept == 0 or c.has(cut.kept - 1, cut.head_id)]
        if kept:
            return Standing(tuple(kept[0].ids[: cut.kept]), at)
        # What the cut keeps is not here; of what is here only what all share may be part of it.
        common = _walk([Chain(one.ids, -1) for one in chains], twins, at)
        return Standing(common.ids[: cut.kept], at)
    return _walk(chains, twins, at)


def first_twin(chains: Sequence[Chain], twins: Twins) -> int:
    """Return the lowest slot for which two records are known, -1 if there is none."""
    longest = max((len(one.ids) for one in chains), default=0)
    for seq in range(max(longest, max(twins, default=-1) + 1)):
        if (
            len({one.ids[seq] for one in chains if seq < len(one.ids)}.union(twins.get(seq, ())))
            > 1
        ):
            return seq
    return -1


def _walk(chains: Sequence[Chain], twins: Twins, at: int) -> Standing:
    alive = list(chains)
    ids: list[RecordId] = []
    while alive:
        seq = len(ids)
        alive = [one for one in alive if seq < len(one.ids)]
        here = sorted({one.ids[seq] for one in alive})
        if not here:
            break
        chosen = here[0]
        if len(here) > 1 or _is_disputed(chosen, seq, twins.get(seq, ()), chains):
            final = sorted({one.ids[seq] for one in alive if one.final_seq >= seq})
            if len(final) > 1:
                return Standing(tuple(ids), at, (final[0], final[1]))
            if not final:
                break
            chosen = final[0]
        ids.append(chosen)
        alive = [one for one in alive if one.ids[seq] == chosen]
    return Standing(tuple(ids), at)


def _is_disputed(
    chosen: RecordId, seq: int, twins: Collection[RecordId], chains: Sequence[Chain]
) -> bool:
    """Whether a proof shows another record here, of a branch that was not left before."""
    left = {one.ids[seq] for one in chains if seq < len(one.ids)} - {chosen}
    return chosen in twins and bool(set(twins) - {chosen} - left)
