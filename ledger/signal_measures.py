"""What one round's sketches, scores and claims say of each member, before it is compared. Room: ledger.

Spec: docs/free-riders.md §2. Every measure is an integer for a member of a round; a measure that says
nothing in this round (nobody has a past yet, updates have no direction in common) is left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from operator import mul
from typing import Final, TypeAlias

from .ranking import lower_weighted_median
from .record import RecordId
from .reputation_types import RoundOutcome, Vote
from .signal_arithmetic import (
    MILLI,
    cosine_micro,
    log2_milli,
    lower_median,
    nearness_millibits,
    odds_millibits,
)
from .sketch import Projected, ProjectedRound

Vector: TypeAlias = list[int]
Direction: TypeAlias = tuple[Vector, int]
"""With the sum of its squares."""
Ahead: TypeAlias = Mapping[RecordId, Collection[RecordId]]

EXPONENT_RANGE: Final = 40
"""Bits below the largest exponent of a sum that are kept."""
CLAIM_TIMES_MAX: Final = 4
"""A claim counts for at most so many median claims where updates are summed."""
EXPLAINED_MILLIBITS: Final = 500
"""An earlier update that is as near to one's own past, to within this, was not one's source."""
REST_BITS: Final = 30
REST_SHARE_BITS: Final = 8
"""A remainder of less than one part in 2^8 of what it was taken from is nothing: it could be rounding."""
RIGID_HALVES: Final = 3
"""Updates of n records differ from round to round by what grows with n to about so many halves (seen: 1.6 to 1.7)."""
COPIED_MICRO: Final = 950_000
VOTES_MIN: Final = 3
FIRST_ROUND: Final = 1


@dataclass(frozen=True, slots=True)
class Claim:
    """What a CONTRIBUTION says of itself."""

    member: int
    round: int
    samples: int
    norm_micro: int
    steps: int


@dataclass(frozen=True)
class Measures:
    """values: measure → member → integer. samples: what each claims; middle: their lower median."""

    round: int
    values: dict[str, dict[int, int]]
    samples: Mapping[int, int] = field(default_factory=dict)
    middle: int = 0
    sources: dict[int, tuple[RecordId, ...]] = field(default_factory=dict)
    own: dict[int, RecordId] = field(default_factory=dict)
    reveals: dict[int, tuple[RecordId, ...]] = field(default_factory=dict)

    @property
    def members(self) -> frozenset[int]:
        """Everybody of whom anything was measured, or who contributed."""
        return frozenset(self.own).union(*self.values.values())

    def claims_less(self, member: int, part: int) -> bool:
        """Whether a member claims less than one ``part`` of the median claim."""
        return part * self.samples.get(member, 0) < self.middle

    def shown(self, member: int) -> dict[str, int]:
        """Return the raw measures, named with their unit."""
        units = {
            "near": "near_millibits", "own": "own_micro", "worth": "worth_millibits",
            "norm": "norm_millibits", "utility": "utility_milli", "rigid": "rigid_millibits",
            "steady": "steady_millibits",
        }  # fmt: skip
        return {units[n]: found[member] for n, found in self.values.items() if member in found}

    def evidence(self, member: int, test: str) -> list[RecordId]:
        """Return the records that a test of this round rests on: the contribution, then the others."""
        first = [self.own[member]] if member in self.own else []
        more = self.sources if test == "near" else self.reveals if test == "joint" else {}
        return [*first, *more.get(member, ())]


def measure(
    sketched: ProjectedRound | None, scored: RoundOutcome | None, claims: Mapping[RecordId, Claim],
    ahead: Ahead, *, common_micro: int, steady_micro: int, own_micro: int,
) -> Measures:  # fmt: skip
    """Measure one round. Either part may be missing."""
    rows = sketched.sketches if sketched is not None else ()
    number = sketched.round if sketched is not None else -1
    own = {one.member: one for one in rows if one.round == number and one.id in claims}
    samples = {member: max(1, claims[one.id].samples) for member, one in own.items()}
    past = [one for one in rows if one.round < number and one.id in claims]
    values: dict[str, dict[int, int]] = {
        "norm": {m: _log_norm(one) for m, one in own.items() if one.square}
    }
    middle = 0
    sources: dict[int, tuple[RecordId, ...]] = {}
    if samples:
        middle = lower_median([*samples.values()])
        everybody, earlier = _Total(own, _capped(own, claims)), _by_round(past)
        moves = _movements(earlier, claims, len(own))
        values["worth"] = _worth(own, samples, everybody, common_micro)
        values["own"] = _ownness(own, everybody, earlier, moves, own_micro)
        steady = _steadiness(own, past, steady_micro)
        values["steady"] = {member: nearness_millibits(cosine) for member, cosine in steady.items()}
        values["rigid"] = {
            member: bits + log2_milli(samples[member], 1) * RIGID_HALVES // 2
            for member, bits in values["steady"].items()
        }
        near = _nearness(own, earlier, moves, ahead)
        values["near"] = {member: bits for member, (bits, _) in near.items()}
        sources = {member: ids for member, (_, ids) in near.items()}
    reveals: dict[int, tuple[RecordId, ...]] = {}
    if scored is not None:
        values["utility"], reveals = _utility(scored, claims)
    values = {name: found for name, found in values.items() if found}
    ids = {member: one.id for member, one in own.items()}
    return Measures(number, values, samples, middle, sources, ids, reveals)


def _log_norm(one: Projected) -> int:
    """log2 of the update's norm, in millibits."""
    return log2_milli(one.square, 1) // 2 + MILLI * one.exponent


class _Total:
    """A weighted sum of rows, one a member, from which any member's own part can be taken out."""

    def __init__(self, rows: Mapping[int, Projected], weights: Mapping[int, int]) -> None:
        used = {member: one for member, one in rows.items() if one.square}
        exponent = max((one.exponent for one in used.values()), default=0) - EXPONENT_RANGE
        self._parts = {m: _scaled(one, weights[m], exponent) for m, one in used.items()}
        self._sum = [sum(column) for column in zip(*self._parts.values(), strict=True)]
        self._square = _dot(self._sum, self._sum)

    def cosine_of(self, without: Collection[int], row: Projected) -> int:
        """Cosine of a row to the sum of all others' but these members', in millionths."""
        rest = self.rest(without)
        return cosine_micro(_dot(row.values, rest), row.square, _dot(rest, rest)) if rest else 0

    def rest(self, without: Collection[int]) -> Vector:
        """The sum of all others' but these members'; empty where nobody is left."""
        parts = [self._parts[member] for member in without if member in self._parts]
        if len(parts) == len(self._parts):
            return []
        return [value - sum(out) for value, *out in zip(self._sum, *parts, strict=True)]


Rounds: TypeAlias = Mapping[int, Mapping[int, Projected]]
"""Rows by round, in order, and member."""
Movement: TypeAlias = tuple[Mapping[int, Projected], _Total]
"""A round's rows, and what they added up to."""


def _by_round(rows: Sequence[Projected]) -> Rounds:
    """Rows by round, in order, and member."""
    found: dict[int, dict[int, Projected]] = {
        number: {} for number in sorted({one.round for one in rows})
    }
    for one in rows:
        found[one.round][one.member] = one
    return found


def _capped(rows: Mapping[int, Projected], claims: Mapping[RecordId, Claim]) -> dict[int, int]:
    """What each row's member claims, at most CLAIM_TIMES_MAX median claims."""
    samples = {member: max(1, claims[row.id].samples) for member, row in rows.items()}
    most = CLAIM_TIMES_MAX * lower_median([*samples.values()])
    return {member: min(count, most) for member, count in samples.items()}


def _ownness(
    own: Mapping[int, Projected], everybody: _Total, earlier: Rounds, moves: Sequence[Movement],
    own_micro: int,
) -> dict[int, int]:  # fmt: skip
    """How much of what sets an update apart from everybody's also set the member's earlier ones apart.

    What everybody can know is taken out first: where earlier rounds moved the model, and where the others
    of this one go. Who trains on its own patients differs from that in the same way again and again.
    """
    moved: list[Direction] = []
    for _, total in moves:
        moved += _directions(total.rest(()), moved)
    cosines = {}
    for member, one in own.items():
        known = [*moved, *_directions(everybody.rest((member,)), moved)]
        now = _without(one.values, known)
        before = [
            rest
            for rows in earlier.values()
            if member in rows and (rest := _without(rows[member].values, known))
        ]
        if now and before:
            then = [sum(column) for column in zip(*before, strict=True)]
            cosines[member] = cosine_micro(_dot(now, then), _dot(now, now), _dot(then, then))
    if not cosines or lower_median([*cosines.values()]) < own_micro:
        return {}
    return cosines


def _movements(earlier: Rounds, claims: Mapping[RecordId, Claim], members: int) -> list[Movement]:
    """What rounds of which more than half of the members show rows added up to, weighted by claims."""
    found = []
    for rows in earlier.values():
        if 2 * len(rows) > members:
            weights = {member: max(1, claims[row.id].samples) for member, row in rows.items()}
            found.append((rows, _Total(rows, weights)))
    return found


def _directions(one: Vector, before: Sequence[Direction]) -> list[Direction]:
    """What of a direction is left without those before it, as a list of one; or nothing."""
    rest = _without(_shortened(one), before) if any(one) else []
    return [(rest, _dot(rest, rest))] if rest else []


def _without(row: Sequence[int], directions: Sequence[Direction]) -> Vector:
    """What is left of a row without these directions; nothing where that is next to nothing."""
    rest = list(row)
    for direction, square in directions:
        most = _largest(rest) * square
        along = _dot(rest, direction)
        rest = [
            value * square - along * other for value, other in zip(rest, direction, strict=False)
        ]
        if _largest(rest) << REST_SHARE_BITS <= most:
            return []
        rest = _shortened(rest)
    return rest


def _largest(row: Sequence[int]) -> int:
    return max(-min(row), *row)


def _shortened(row: Vector) -> Vector:
    """A row whose largest value has at most REST_BITS."""
    shift = _largest(row).bit_length() - REST_BITS
    return row if shift <= 0 else [value >> shift for value in row]


def _worth(
    own: Mapping[int, Projected], samples: Mapping[int, int], total: _Total, common_micro: int
) -> dict[int, int]:
    """Effective records for each claimed one, log2: from the cosine to the mean of the others."""
    cosines = {member: total.cosine_of((member,), one) for member, one in own.items() if one.square}
    if not cosines or lower_median([*cosines.values()]) < common_micro:
        return {}
    return {
        member: odds_millibits(cosine) - log2_milli(samples[member], 1)
        for member, cosine in cosines.items()
    }


def _steadiness(
    own: Mapping[int, Projected], past: Sequence[Projected], steady_micro: int
) -> dict[int, int]:
    """Cosine of an update to the sum of the same member's earlier ones, in millionths."""
    by_member: defaultdict[int, dict[int, Projected]] = defaultdict(dict)
    for one in past:
        by_member[one.member][one.round] = one
    cosines = {}
    for member, one in own.items():
        earlier = by_member[member]
        if one.square and any(row.square for row in earlier.values()):
            cosines[member] = _Total(earlier, dict.fromkeys(earlier, 1)).cosine_of((), one)
    if not cosines or lower_median([*cosines.values()]) < steady_micro:
        return {}
    return cosines


def _nearness(
    own: Mapping[int, Projected], earlier: Rounds, moves: Sequence[Movement], ahead: Ahead
) -> dict[int, tuple[int, tuple[RecordId, ...]]]:
    """Largest likeness to what was public before: others' updates, and what a round's added up to."""
    past = [row for rows in earlier.values() for row in rows.values()]
    found = {}
    for member, one in own.items():
        mine = [rows[member] for rows in earlier.values() if member in rows]
        candidates = []
        for rows, total in moves:
            out = {member, *_copiers(mine, rows)}
            bits = nearness_millibits(total.cosine_of(out, one))
            candidates.append(
                (bits, tuple(row.id for m, row in sorted(rows.items()) if m not in out))
            )
        before = ahead.get(one.id, ())
        live = [other for other in own.values() if other.id in before and other.member != member]
        # What one had published before theirs must be there to be shown, or one's copier accuses one.
        since = min((row.round for row in mine), default=0)
        since += since > FIRST_ROUND
        theirs = [row for row in past if row.member != member and row.round >= since]
        nearest = _nearest(one, mine, [*theirs, *live])
        candidates += [] if nearest is None else [nearest]
        if one.square and candidates:
            found[member] = max(candidates)
    return found


def _copiers(mine: Sequence[Projected], rows: Mapping[int, Projected]) -> set[int]:
    """Who repeated what one had published by then: such rows are no movement of the others."""
    return {
        member
        for member, row in rows.items()
        for own in mine
        if own.round <= row.round and _cosine(own, row) >= COPIED_MICRO
    }


def _nearest(
    one: Projected, mine: Sequence[Projected], others: Sequence[Projected]
) -> tuple[int, tuple[RecordId, ...]] | None:
    """Likeness to the most alike of the others that one cannot have been the source of, and its id."""
    ordered = sorted(
        ((_cosine(one, other), other.id, at) for at, other in enumerate(others)), reverse=True
    )
    for cosine, id_, at in ordered:
        bits = nearness_millibits(cosine)
        if not _is_explained(mine, others[at], bits):
            return bits, (id_,)
    return None


def _is_explained(mine: Sequence[Projected], other: Projected, bits: int) -> bool:
    """Whether ``other`` is no source: one had published something as near to it by then oneself."""
    return any(
        row.round <= other.round
        and nearness_millibits(_cosine(row, other)) + EXPLAINED_MILLIBITS >= bits
        for row in mine
    )


def _cosine(one: Projected, other: Projected) -> int:
    return cosine_micro(_dot(one.values, other.values), one.square, other.square)


def _utility(
    scored: RoundOutcome, claims: Mapping[RecordId, Claim]
) -> tuple[dict[int, int], dict[int, tuple[RecordId, ...]]]:
    """Loss change for each claimed record in the evaluator's own unit: the weighted median over evaluators."""
    cast: defaultdict[int, list[tuple[Vote, int, int]]] = defaultdict(list)
    for line in scored.members:
        for vote in line.votes:
            if vote.target_id in claims:
                samples = max(1, claims[vote.target_id].samples)
                each = vote.change_micro * MILLI // samples
                cast[vote.evaluator].append((vote, line.member, each))
    votes: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    reveals: defaultdict[int, list[RecordId]] = defaultdict(list)
    for said in cast.values():
        unit = max(1, lower_median([abs(each) for _, _, each in said]))
        for vote, member, each in said:
            votes[member].append((each * MILLI // unit, vote.weight_micro))
            reveals[member].append(vote.reveal_id)
    medians = {m: lower_weighted_median(v) for m, v in votes.items() if len(v) >= VOTES_MIN}
    return medians, {member: tuple(ids) for member, ids in reveals.items()}


def _scaled(one: Projected, weight: int, exponent: int) -> Vector:
    shift = one.exponent - exponent
    if shift >= 0:
        return [weight * value << shift for value in one.values]
    return [weight * value >> -shift for value in one.values]


def _dot(a: Sequence[int], b: Sequence[int]) -> int:
    return sum(map(mul, a, b))
