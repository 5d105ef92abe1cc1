"""Which branch of a forked log stands: a pure function of the records. Room: ledger.

Spec: docs/ledger.md §8. At every slot that is known to be signed twice the branch goes on that is
final there or behind it; if none is, the log ends before that slot and the rest is void.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from .fork import Cut
from .record import NO_ID, RecordId

Twins: TypeAlias = Mapping[int, Collection[RecordId]]
"""Slot → ids that proofs show in it, two or more."""


@dataclass(frozen=True, slots=True)
class Hearsay:
    """What is known of records that no file shows."""

    prevs: Mapping[RecordId, RecordId] = field(default_factory=dict)
    """Id of half a proof → id of the record before it."""
    named: Twins = field(default_factory=dict)
    """Slot → ids that other members have acked in it."""


NOTHING_HEARD = Hearsay()


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


def standing(
    chains: Sequence[Chain],
    twins: Twins,
    cut: Cut | None = None,
    heard: Hearsay = NOTHING_HEARD,
) -> Standing:
    """Return what stands; any order of ``chains`` gives the same.

    A cut is a quorum's decision and comes first: what it keeps stands, and nothing else.
    Whoever rewrites a log from some slot on contradicts what others have acked there: that is heard,
    too, so that only what is final stands behind it.
    Two final branches need more than f liars: then neither stands, and both are named.
    """
    at = first_twin(chains, twins)
    if cut is not None:
        kept = [c for c in chains if cut.kept == 0 or c.has(cut.kept - 1, cut.head_id)]
        if kept:
            return Standing(tuple(kept[0].ids[: cut.kept]), at)
        # What the cut keeps is not here; of what is here only what all share may be part of it.
        common = _walk([Chain(one.ids, -1) for one in chains], twins, at, heard)
        return Standing(common.ids[: cut.kept], at)
    return _walk(chains, twins, at, heard)


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


def _walk(chains: Sequence[Chain], twins: Twins, at: int, heard: Hearsay) -> Standing:
    alive = list(chains)
    ids: list[RecordId] = []
    while alive:
        seq = len(ids)
        alive = [one for one in alive if seq < len(one.ids)]
        here = sorted({one.ids[seq] for one in alive})
        if not here:
            break
        chosen = here[0]
        left = {one.ids[seq] for one in chains if seq < len(one.ids)} - {chosen}
        others = set(twins.get(seq, ())) - {chosen}
        before = ids[-1] if ids else NO_ID
        if (
            len(here) > 1
            or (len(others) < len(twins.get(seq, ())) and others - left)
            or any(heard.prevs.get(one) == before for one in others)
            or set(heard.named.get(seq, ())) - {chosen} - left
        ):
            final = sorted({one.ids[seq] for one in alive if one.final_seq >= seq})
            if len(final) > 1:
                return Standing(tuple(ids), at, (final[0], final[1]))
            if not final:
                break
            chosen = final[0]
        ids.append(chosen)
        alive = [one for one in alive if one.ids[seq] == chosen]
    return Standing(tuple(ids), at)
