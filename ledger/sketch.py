"""Sketches: what an update looks like from a few hundred random directions. Room: ledger.

Spec: docs/reputation.md §12. A SKETCH record shows the own update of an agreed round, and those of
some rounds before, all projected with one seed that nobody knew when they were committed to. Two
rows of one seed may be compared, whoever wrote them: their cosine is close to that of the updates.
From here on there are only integers, so a node and an auditor get the same ones.

The projection itself is learning's (``project(update, seed, dimensions)`` in swarm/scoring): its
values become integers by :func:`quantise`, and whoever holds a payload projects it again and
compares with :func:`differs`. Signals (ledger/signals.py) see a :class:`ProjectedRound`, never a record.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isqrt
from typing import Final

from .bodies import SketchRow
from .canonical import UINT_MAX, Value, encode
from .record import RecordId

SEED_DOMAIN: Final = b"swarm-ledger/sketch-seed/v1\n"
ROWS_MAX: Final = 5
"""The update of the round itself and, newest first, those of up to four rounds before."""
VALUE_MAX: Final = 32_767
PICO: Final = 10**12
TOLERANCE: Final = 2
"""By how much a value may differ when it is projected again: sums of floats round differently."""
NORM_TOLERANCE_MICRO: Final = 10
"""By how much, in millionths of itself, a norm may differ then; and by as many millionths."""
MICRO: Final = 1_000_000


def seed_of(net: bytes, round_: int, inputs: Collection[RecordId]) -> bytes:
    """Return the seed of an agreed round: SHA-256(domain ‖ enc([net, round, sorted ids of its inputs])).

    A quorum has fixed the inputs, and each of them commits to its update. So who chose an update
    did not know the seed, and who knows the seed cannot change an update any more.
    """
    ids: list[Value] = [*sorted(inputs)]
    return hashlib.sha256(SEED_DOMAIN + encode([net, round_, ids])).digest()


@dataclass(frozen=True)
class Projected:
    """One update seen through one seed. ``values`` are int16; times ``scale_pico`` · 10^-12 floats.

    member, round and id are those of the CONTRIBUTION; norm_micro is the update's own 2-norm.
    """

    member: int
    round: int
    id: RecordId
    norm_micro: int
    scale_pico: int
    values: tuple[int, ...]

    @cached_property
    def square(self) -> int:
        """Sum of the squared values: their own, without the scale."""
        return sum(one * one for one in self.values)


@dataclass(frozen=True)
class ProjectedRound:
    """All sketches of one agreed round, by (member, contribution's round): any two may be compared."""

    round: int
    seed: bytes
    sketches: tuple[Projected, ...]


def cosine_micro(a: Projected, b: Projected) -> int:
    """Return the cosine of two sketches of one seed in millionths, rounded towards zero.

    0 where one of them is all zeros. Raises ValueError for different lengths.
    """
    if len(a.values) != len(b.values):
        raise ValueError("sketches of different lengths")
    dot = sum(one * other for one, other in zip(a.values, b.values, strict=True))
    size = isqrt(a.square * b.square)
    if not size:
        return 0
    cosine = min(abs(dot) * MICRO // size, MICRO)
    return cosine if dot >= 0 else -cosine


def quantise(values: Sequence[float]) -> tuple[int, bytes]:
    """Return (scale_pico, int16 big-endian): the finest scale that the largest value fits into.

    values: finite, at least one. All zeros have the scale 1. Raises ValueError.
    """
    largest = max(map(abs, values), default=-1.0)
    if not 0 <= largest * PICO / VALUE_MAX < UINT_MAX:  # NaN and infinity are not
        raise ValueError("a sketch needs values, all of them finite and below 10^8")
    scale_pico = max(1, -int(-largest * PICO // VALUE_MAX))
    step = scale_pico / PICO
    whole = [max(-VALUE_MAX, min(VALUE_MAX, round(one / step))) for one in values]
    return scale_pico, struct.pack(f">{len(whole)}h", *whole)


def unpack_values(row: SketchRow) -> tuple[int, ...]:
    """Return the int16 values of a row. Its length must be even."""
    return struct.unpack(f">{len(row.values) // 2}h", row.values)


def rows_max(dimensions: int) -> int:
    """How many rows fit into one record, of ROWS_MAX at most."""
    return min(ROWS_MAX, 32_000 // (2 * dimensions + 64))


def differs(published: SketchRow, again: SketchRow) -> bool:
    """Tell whether a row is not what its payload gives when it is projected again.

    Both with their own scale: compared at the published one, to within TOLERANCE steps and
    NORM_TOLERANCE_MICRO.
    """
    apart = abs(published.norm_micro - again.norm_micro)
    if apart > NORM_TOLERANCE_MICRO * (1 + again.norm_micro // MICRO):
        return True
    if len(published.values) != len(again.values):
        return True
    scale = published.scale_pico
    # A row with a scale that is too coarse would hide everything: the finest that fits is asked for.
    if abs(scale - again.scale_pico) > 1 + again.scale_pico // 10_000:
        return True
    return any(
        abs(mine * scale - right * again.scale_pico) > TOLERANCE * scale
        for mine, right in zip(unpack_values(published), unpack_values(again), strict=True)
    )
