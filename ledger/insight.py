"""All that the records say of how members take part: reputation, and signals with their evidence. Room: ledger.

Spec: docs/reputation.md. One function for nodes, auditors and reports, so that they say the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from .bodies import Codec, Contribution, Sketch, SketchRow
from .charter import Charter
from .coverage import Coverage
from .evidence import slot_of
from .panel import agreed_inputs
from .record import Record, RecordId, Verified
from .reputation import replay
from .reputation_types import Reputation
from .roster import Roster
from .signals import Claim, MemberSignals, signals
from .sketch import EXPONENT_BIAS, ROWS_MAX, Projected, ProjectedRound, seed_of, unpack_values


@dataclass(frozen=True)
class Insight:
    """What a set of records gives."""

    reputation: Reputation
    sketches: tuple[ProjectedRound, ...]
    signals: tuple[MemberSignals, ...]


def look(
    records: Collection[Verified[Record]], roster: Roster, charter: Charter, *, strict: bool = True
) -> Insight:
    """Return what a set of verified records says, in any order of them.

    strict: as of :func:`ledger.evidence.gather`. Raises VerificationError.
    """
    policy = charter.reputation
    reputation = replay(records, roster, strict=strict, evaluators_max=policy.evaluators_max)
    ordered = sorted(records, key=slot_of)
    offers = _offers(ordered)
    sketches = sketched_rounds(ordered, roster, offers=offers, dimensions=policy.sketch_dimensions)
    claims = {
        id_: Claim(
            one.value.author, one.value.round, body.samples, body.norm_micro, body.local_steps
        )
        for id_, (one, body) in offers.items()
    }
    ahead = _ahead(ordered, offers) if sketches else {}
    return Insight(reputation, sketches, signals(sketches, reputation.rounds, claims, ahead=ahead))


def _offers(
    ordered: Sequence[Verified[Record]],
) -> dict[RecordId, tuple[Verified[Record], Contribution]]:
    """Return the first update of each member and round."""
    first: dict[tuple[int, int], RecordId] = {}
    found = {}
    for one in ordered:
        body = one.value.body
        if isinstance(body, Contribution) and body.codec != Codec.MOMENTS:
            place = one.value.author, one.value.round
            if first.setdefault(place, one.id) == one.id:
                found[one.id] = one, body
    return found


def sketched_rounds(
    ordered: Sequence[Verified[Record]],
    roster: Roster,
    *,
    offers: Mapping[RecordId, tuple[Verified[Record], Contribution]],
    dimensions: int,
) -> tuple[ProjectedRound, ...]:
    """Return the sketches that count, by round: of the agreed seed, the right length, own updates."""
    seeds = {
        round_: seed_of(roster.net, round_, inputs)
        for round_, inputs in agreed_inputs(ordered, roster).items()
    }
    shown: defaultdict[int, dict[int, Sketch]] = defaultdict(dict)
    for one in ordered:
        body = one.value.body
        if isinstance(body, Sketch) and seeds.get(body.round) == body.seed:
            shown[body.round].setdefault(one.value.author, body)
    return tuple(
        ProjectedRound(
            round_,
            seeds[round_],
            tuple(
                sorted(
                    (
                        projected
                        for member, body in by_member.items()
                        for row in body.rows
                        if (projected := _projected(row, member, round_, offers, dimensions))
                    ),
                    key=lambda one: (one.member, one.round),
                )
            ),
        )
        for round_, by_member in sorted(shown.items())
    )


def _projected(
    row: SketchRow,
    member: int,
    round_: int,
    offers: Mapping[RecordId, tuple[Verified[Record], Contribution]],
    dimensions: int,
) -> Projected | None:
    offer = offers.get(row.target_id)
    if offer is None or len(row.values) != 2 * dimensions:
        return None
    value = offer[0].value
    if value.author != member or not 0 <= round_ - value.round < ROWS_MAX:
        return None
    exponent = row.exponent - EXPONENT_BIAS
    return Projected(member, value.round, row.target_id, exponent, unpack_values(row.values))


def _ahead(
    ordered: Sequence[Verified[Record]],
    offers: Mapping[RecordId, tuple[Verified[Record], Contribution]],
) -> dict[RecordId, list[RecordId]]:
    """Return of each contribution those of its round that its author had acked before."""
    coverage = Coverage()
    for one in ordered:
        value = one.value
        coverage.learn(value.author, value.epoch, value.seq, value.round, value.acks)
    by_round: defaultdict[int, list[Verified[Record]]] = defaultdict(list)
    for one, _ in offers.values():
        by_round[one.value.round].append(one)
    return {
        one.id: [
            other.id
            for other in group
            if other.value.author != one.value.author
            and coverage.had(_log(one), one.value.seq, _log(other)) > other.value.seq
        ]
        for group in by_round.values()
        for one in group
    }


def _log(one: Verified[Record]) -> tuple[int, int]:
    return one.value.author, one.value.epoch
