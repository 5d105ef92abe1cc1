"""Sketches: what an update looks like from a few hundred random directions. Room: ledger.

Spec: docs/reputation.md §12. A SKETCH record shows the own update of an agreed round, and those of
some rounds before, all projected with one seed that nobody knew when they were committed to. Two
rows of one seed may be compared, whoever wrote them: their cosine is close to that of the updates.
From here on there are only integers, so a node and an auditor get the same ones.

The projection itself is learning's (swarm/scoring/projection.py) and exact: whoever holds a payload
projects it again and gets the same integers, or the sketch is false. Signals (ledger/signals.py)
see a :class:`ProjectedRound`, never a record.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from math import isqrt
from typing import Final

from .canonical import Value, encode
from .record import RecordId

SEED_DOMAIN: Final = b"swarm-ledger/sketch-seed/v1\n"
EXPONENT_BIAS: Final = 2_048
"""A record has no negative numbers: it holds exponent + this."""
ROWS_MAX: Final = 3
"""The update of the round itself and, newest first, those of up to two rounds before."""
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
    """One update seen through one seed: ``values`` are int16, in steps of 2^exponent.

    member, round and id are those of the CONTRIBUTION.
    """

    member: int
    round: int
    id: RecordId
    exponent: int
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


def norm_micro(sketch: Projected) -> int:
    """Return the sketch's 2-norm in millionths, rounded down: the update's own to within 1 / √(2k), 4 %."""
    square = sketch.square * MICRO**2
    twice = 2 * sketch.exponent
    return isqrt(square << twice if twice >= 0 else square >> -twice)


def unpack_values(values: bytes) -> tuple[int, ...]:
    """Return the int16 values of a row. Raises ValueError for an odd length."""
    if len(values) % 2:
        raise ValueError("int16 values have an even number of bytes")
    return struct.unpack(f">{len(values) // 2}h", values)


def rows_max(dimensions: int) -> int:
    """How many rows fit into one record, of ROWS_MAX at most."""
    return min(ROWS_MAX, 32_000 // (2 * dimensions + 48))
