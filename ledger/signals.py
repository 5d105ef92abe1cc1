"""Signals of free-riding: from sketches, scores and claims to doubts that grow and fade. Room: ledger.

Spec: docs/free-riders.md. Integers only; a pure function of what the records say, so every node and
every auditor finds the same doubts. A doubt is never a verdict: it names its evidence and what would
clear it, and humans decide.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from .evidence import Offence
from .record import RecordId
from .reputation_types import RoundOutcome
from .signal_arithmetic import MILLI, accumulate_milli, deviation_milli
from .signal_measures import Claim, Measures, measure
from .signal_words import clears_of, text_of
from .sketch import ProjectedRound

__all__ = ["EVIDENCE_MAX", "RULES", "Alert", "Claim", "MemberSignals", "SignalRules", "signals"]

NEAR: Final = "near"
OWN: Final = "own"
RIGID: Final = "rigid"
WORTH: Final = "worth"
LARGE: Final = "large"
SMALL: Final = "small"
JOINT: Final = "joint"
BASE: Final = "base"
COPY: Final = "copy"
UNREVEALED: Final = "unrevealed"
UTILITY: Final = "utility"
STEADY: Final = "steady"
TESTS: Final = (NEAR, OWN, RIGID, LARGE, SMALL, JOINT)
EVIDENCE_MAX: Final = 64
"""Records that one alert names; those beyond them it counts."""


@dataclass(frozen=True, kw_only=True)
class SignalRules:
    """The numbers of version 1 (docs/free-riders.md §7 says which seeds they were chosen on). Spreads in milli; floors in the measure's unit.

    allowed: what a member may always differ from the others; level: what the sum must reach.
    Raise either to doubt fewer members later, lower it to doubt more sooner.
    """

    others_min: int = 4  # with fewer others to compare with there is no test, only proof
    kept_of_8: int = 7  # of the sum, from one round to the next
    most_milli: int = 8_000  # one round's deviation counts no more in the joint test
    alone_most_milli: int = 5_500  # nor more than this in its own: it takes two rounds
    near_most_milli: int = 12_000  # what is all but equal is not chance: one round is enough
    near_floor_millibits: int = 350
    own_least_micro: int = 320_000  # noise has none, whatever the others have: no spread, but units
    own_unit_micro: int = 40_000
    rigid_floor_millibits: int = 1_000
    worth_floor_millibits: int = 750
    norm_floor_millibits: int = 300
    utility_floor_milli: int = 500
    # What costs the others more than a typical update brings them, for each claimed record, needs no comparison.
    harm_milli: int = 1_250
    harm_unit_milli: int = 250
    allowed_milli: int = 2_500
    level_milli: int = 6_000
    near_level_milli: int = 4_000  # lower where floors are wide, or few rounds speak
    rigid_level_milli: int = 4_000
    own_level_milli: int = 3_500
    joint_allowed_milli: int = 5_000
    # Rare patients make unlike and large updates. Both count in joint up to so much, and as much more as
    # scores and rigidity speak against a member; a part of what speaks for it is taken off.
    joint_unlike_milli: int = 2_500
    joint_loose_of_4: int = 1
    # Where more members could have them, the levels of large and joint are so much higher for each member
    # beyond so many, up to a most.
    crowd_members: int = 8
    crowd_member_milli: int = 125
    crowd_most_milli: int = 3_000
    joint_public_milli: int = 2_500  # scores alone, which members may invent, doubt nobody
    joint_use_of_4: int = 3  # quarters of what scores say that count there, for the same reason
    common_micro: int = 300_000  # below this median cosine to the others' mean, worth is silent
    steady_micro: int = 400_000  # below this median cosine to the own past, rigid is silent
    own_micro: int = 600_000  # below this median, own is silent
    # Who claims less than one part of the median claim is not asked for size and use, or rigidity.
    size_claim_part: int = 4
    rigid_claim_part: int = 2
    rigid_times: int = 3  # rigid counts so many times what it is without claims, at most
    unrevealed_max: int = 2

    def most_alone_milli(self, test: str) -> int:
        """Return what one round's deviation counts at most in a test of its own."""
        return self.near_most_milli if test == NEAR else self.alone_most_milli

    def level(self, test: str, members: int) -> int:
        """Return what a sum must reach where so many members are compared."""
        crowd = self.crowd_member_milli * max(0, members - self.crowd_members)
        crowd = min(crowd, self.crowd_most_milli)
        special = {
            JOINT: self.level_milli + crowd,
            LARGE: self.level_milli + crowd,
            NEAR: self.near_level_milli,
            OWN: self.own_level_milli,
            RIGID: self.rigid_level_milli,
        }
        return special.get(test, self.level_milli)


RULES: Final = SignalRules()


@dataclass(frozen=True, slots=True)
class Alert:
    """One doubt: the round whose evidence made it, the records behind it, words for humans.

    until: the last round in which the sum was still at its level; proven ones never fade.
    more: how many records beyond those in ``evidence`` are behind it.
    """

    signal: str
    round: int
    until: int
    evidence: tuple[RecordId, ...]
    text: str
    clears: str
    more: int = 0

    def with_evidence(self, records: Sequence[RecordId]) -> Alert:
        """Return it with further records behind it: named up to EVIDENCE_MAX, then counted."""
        named = (*self.evidence, *records)
        more = self.more + max(0, len(named) - EVIDENCE_MAX)
        return replace(self, evidence=named[:EVIDENCE_MAX], more=more)


@dataclass(frozen=True, slots=True)
class MemberSignals:
    """All about one member. timeline: (round, {name: integer}), `…_sum` is a test's sum in milli.

    doubt_milli: the largest of its sums in parts of its level, as of the last round; at least 1,000
    where something is proven. peak_milli: the largest that it ever was.
    """

    member: int
    timeline: tuple[tuple[int, Mapping[str, int]], ...]
    alerts: tuple[Alert, ...]
    doubt_milli: int
    peak_milli: int


@dataclass
class _Member:
    """What is remembered of one member from round to round."""

    sums: dict[str, int]
    grew_by: dict[str, list[RecordId]]
    alerts: dict[str, Alert]
    timeline: list[tuple[int, dict[str, int]]]
    unrevealed: list[tuple[RecordId, ...]]
    compared: int = 0
    """How many members were compared in its last round."""
    peak_milli: int = 0


def signals(
    rounds: Sequence[ProjectedRound],
    outcomes: Sequence[RoundOutcome],
    claims: Mapping[RecordId, Claim],
    *,
    ahead: Mapping[RecordId, Collection[RecordId]] | None = None,
    rules: SignalRules = RULES,
) -> tuple[MemberSignals, ...]:
    """Return everybody's signals, by member, after the last round.

    outcomes: reputation's; that of round h holds the scores of contributions of round h - 1, and
    penalties. claims: of every contribution, by its id. ahead: contribution → contributions of the
    same round that its author provably had before; only such pairs can be copies within a round.
    """
    found: dict[int, _Member] = {}
    sketched = {one.round: one for one in rounds}
    scored = {one.round - 1: one for one in outcomes}
    for number in sorted(sketched.keys() | scored.keys()):
        measures = measure(
            sketched.get(number), scored.get(number), claims, ahead or {},
            common_micro=rules.common_micro, steady_micro=rules.steady_micro,
            own_micro=rules.own_micro,
        )  # fmt: skip
        for member in sorted(measures.members):
            _advance(found, member, number, measures, rules)
        outcome = scored.get(number)
        if outcome is not None:
            for line in outcome.members:
                for penalty in line.penalties:
                    proof = penalty.proof
                    _prove(found, line.member, number + 1, proof.offence, proof.records, rules)
    return tuple(_close(member, one, rules) for member, one in sorted(found.items()))


def _member(found: dict[int, _Member], member: int) -> _Member:
    if member not in found:
        found[member] = _Member(dict.fromkeys(TESTS, 0), {}, {}, [], [])
    return found[member]


def _advance(
    found: dict[int, _Member], member: int, number: int, measures: Measures, rules: SignalRules
) -> None:
    """One round of one member: deviations from the others, and the sums that they feed."""
    one = _member(found, member)
    one.compared = len(measures.members)
    away = _deviations(member, measures, rules)
    fed: dict[str, tuple[int, int]] = {
        test: (min(away[test], rules.most_alone_milli(test)), rules.allowed_milli)
        for test in TESTS[:-1]
        if test in away
    }
    if OWN in fed:  # average patients leave little of one's own: something else must go with it
        most = rules.allowed_milli + max(0, away.get(NEAR, 0), away.get(WORTH, 0))
        fed[OWN] = min(fed[OWN][0], most), rules.allowed_milli
    if away:
        fed[JOINT] = _together(away, rules), rules.joint_allowed_milli
    for test in TESTS:
        value, allowed = fed.get(test, (0, 0))
        before = one.sums[test]
        after = accumulate_milli(before, value, allowed=allowed, kept_of_8=rules.kept_of_8)
        one.sums[test] = after
        if not after:
            one.grew_by.pop(test, None)
        elif test in fed and value > allowed:
            one.grew_by.setdefault(test, []).extend(measures.evidence(member, test))
        _raise(one, test, number, rules)
    one.peak_milli = max(one.peak_milli, _doubt(one, rules))
    shown = {**away, **{f"{test}_sum": one.sums[test] for test in TESTS if one.sums[test]}}
    one.timeline.append((number, {**measures.shown(member), **shown}))


def _together(away: Mapping[str, int], rules: SignalRules) -> int:
    """What speaks against a member in one round, all measures added up."""
    positive = {name: max(0, value) for name, value in away.items()}
    unlike = positive.get(WORTH, 0) + positive.get(LARGE, 0)
    others = sum(positive.get(test, 0) for test in (NEAR, OWN, RIGID))
    is_seen = unlike + others >= rules.joint_public_milli
    use = positive.get(UTILITY, 0) * rules.joint_use_of_4 // 4 if is_seen else 0
    repeats = [away[test] for test in (RIGID, STEADY) if test in away]
    against = max([0, *repeats]) + use
    loose = max(0, -min([0, *repeats])) * rules.joint_loose_of_4 // 4
    unlike = max(0, min(unlike, rules.joint_unlike_milli + against) - loose)
    return unlike + others + use


def _deviations(member: int, measures: Measures, rules: SignalRules) -> dict[str, int]:
    """Every measure as spreads from the others', in milli; positive is what a rider's looks like."""
    signs = {
        NEAR: ((NEAR, 1, rules.near_floor_millibits),),
        RIGID: ((RIGID, 1, rules.rigid_floor_millibits),),
        STEADY: ((STEADY, 1, rules.rigid_floor_millibits),),
        WORTH: ((WORTH, -1, rules.worth_floor_millibits),),
        "norm": (
            (LARGE, 1, rules.norm_floor_millibits),
            (SMALL, -1, rules.norm_floor_millibits),
        ),
        UTILITY: ((UTILITY, -1, rules.utility_floor_milli),),
    }
    parts = {
        LARGE: rules.size_claim_part, UTILITY: rules.size_claim_part, RIGID: rules.rigid_claim_part,
    }  # fmt: skip
    away: dict[str, int] = {}
    for name, values in measures.values.items():
        others = [value for other, value in values.items() if other != member]
        if member not in values or len(others) < rules.others_min:
            continue
        if name == OWN:
            short = (rules.own_least_micro - values[member]) * MILLI // rules.own_unit_micro
            away[OWN] = max(-rules.most_milli, min(rules.most_milli, short))
        for test, sign, floor in signs.get(name, ()):
            part = parts.get(test)
            if part is not None and measures.claims_less(member, part):
                continue
            away[test] = deviation_milli(
                sign * values[member], [sign * value for value in others],
                floor=floor, most_milli=rules.near_most_milli if test == NEAR else rules.most_milli,
            )  # fmt: skip
    if UTILITY in away:
        harm = -measures.values[UTILITY][member] - rules.harm_milli
        harm = min(rules.most_milli, harm * MILLI // rules.harm_unit_milli)
        away[UTILITY] = max(away[UTILITY], harm)
    if RIGID in away:  # where everybody repeats himself, who claims most is not rigid for it
        away[RIGID] = min(away[RIGID], rules.rigid_times * max(0, away.get(STEADY, 0)))
    return away


def _raise(one: _Member, test: str, number: int, rules: SignalRules) -> None:
    if one.sums[test] < rules.level(test, one.compared):
        return
    if test in one.alerts:
        one.alerts[test] = replace(one.alerts[test], until=number)
        return
    evidence = tuple(dict.fromkeys(one.grew_by.get(test, ())))
    one.alerts[test] = _alert(test, number).with_evidence(evidence)


def _prove(
    found: dict[int, _Member], member: int, number: int, offence: Offence,
    records: tuple[RecordId, ...], rules: SignalRules,
) -> None:  # fmt: skip
    """Offences that records prove raise an alert at once; a commit not opened, the third time."""
    one = _member(found, member)
    test = {Offence.BASE: BASE, Offence.COPY: COPY, Offence.UNREVEALED: UNREVEALED}.get(offence)
    if test is None:
        return
    if test == UNREVEALED and test not in one.alerts:
        one.unrevealed.append(records)
        if len(one.unrevealed) <= rules.unrevealed_max:
            return
        records = tuple(id_ for pair in one.unrevealed for id_ in pair)
    known = one.alerts.get(test) or _alert(test, number)
    one.alerts[test] = replace(known, until=number).with_evidence(records)


def _alert(test: str, number: int) -> Alert:
    return Alert(test, number, number, (), text_of(test), clears_of(test))


def _close(member: int, one: _Member, rules: SignalRules) -> MemberSignals:
    proven = MILLI * bool({BASE, COPY, UNREVEALED} & one.alerts.keys())
    alerts = tuple(sorted(one.alerts.values(), key=lambda alert: (alert.round, alert.signal)))
    doubt = max(_doubt(one, rules), proven)
    return MemberSignals(member, tuple(one.timeline), alerts, doubt, max(one.peak_milli, doubt))


def _doubt(one: _Member, rules: SignalRules) -> int:
    return max(value * MILLI // rules.level(test, one.compared) for test, value in one.sums.items())
