"""What a fault cost the hospitals: judged by what they stored and logged.

Room: scenarios. Law: the verdict comes from what the nodes stored, not from what the case believes. Reads
no file (evidence.py does).
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Final

from scenarios.faults.evidence import Evidence
from scenarios.faults.limits import LOG_S, Limits
from scenarios.faults.logs import PHASE, TRAIN, RoundTime, closed_rounds, round_times
from swarm.protocol.patience import ROUNDS_REMEMBERED

NEARLY: Final = 0.95
"""The share of the rounds that must have merged a member of whom it is promised; one of 20 may be missed."""
EVERYBODY_IS_NEAR: Final = 3
"""Up to so many members a graph joins each with all others, and their models may be equal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Away:
    """When a member was no part of the swarm though its node ran. Seconds since the epoch."""

    member: int
    from_s: float
    to_s: float

    def overlaps(self, time: RoundTime) -> bool:
        """Whether a round was going on meanwhile."""
        return time.began_s < self.to_s and self.from_s < time.began_s + time.took_s


@dataclass
class Story:
    """What a case did, for the verdict. Members are called by place."""

    hurt: dict[int, float] = field(default_factory=dict)
    """member → when its fault was over (seconds since the epoch): from then on it has to be merged again"""
    away: list[Away] = field(default_factory=list)
    always: set[int] = field(default_factory=set)
    """Whom the case lets take part in every round."""
    figures: dict[str, Any] = field(default_factory=dict)
    recovered_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """What the case itself found wrong."""

    def was_away(self, member: int, from_s: float, to_s: float) -> None:
        """Note that a member has suffered from then to then."""
        self.away.append(Away(member=member, from_s=from_s, to_s=to_s))
        self.hurt[member] = to_s


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """One case. Times in seconds; rounds are those of all members while they were part of the swarm."""

    name: str
    averaging: str
    members: int
    rounds: int
    rounds_agreed: int
    """Rounds above zero that a quorum agreed on, by every member's ledger."""
    rounds_lost: int
    """Completed rounds that somebody no longer knows, or knows with another result."""
    rounds_over_deadline: int
    """Rounds of a member that collected for longer, or took longer in all, than `limits` says."""
    rounds_judged: int
    """Rounds of a member that were held against them."""
    round_s_median: float
    round_s_max: float
    collect_s_max: float
    limits: dict[str, Any]
    """What a round may take, and what that is made of."""
    recovered_s: float | None
    """From the end of the fault until the hurt member's update was merged again."""
    digests: tuple[str, ...]
    """Different models that members ended with: one; each its own where they average with neighbours."""
    verdict: str
    """Of the audit over all bundles."""
    figures: dict[str, Any] = field(default_factory=dict)
    failures: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As the command writes it."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Timed:
    """One round of one member, and what it may take."""

    member: int
    time: RoundTime
    round_s_max: float
    collect_s_max: float

    @property
    def is_late(self) -> bool:
        """Whether it took longer."""
        return self.time.took_s > self.round_s_max or self.time.collect_s > self.collect_s_max


def judge(name: str, evidence: Evidence, story: Story) -> CaseResult:
    """Compare what members completed while the case ran with what their ledgers hold now."""
    charter = evidence.charter
    is_gossip = charter.aggregation.is_gossip
    lost = lost_rounds(evidence)
    timed = timed_rounds(evidence, story.away)
    late = [one for one in timed if one.is_late]
    took = [one.time.took_s for one in timed]
    digests = tuple(sorted({one.model for one in evidence.ledgers}))
    agreed = set.intersection(*(set(one.agreed) for one in evidence.ledgers))
    found = [
        *story.failures,
        *([f"{lost} completed rounds lost"] if lost else []),
        *_late(late, evidence),
        *([f"the audit says {evidence.audit}"] if evidence.audit != "VERIFIED" else []),
        *(_of_neighbours(evidence, story) if is_gossip else _of_all(evidence, agreed)),
        *_not_back(evidence, story.hurt),
        *(failure for one in sorted(story.always) for failure in _not_always(evidence, one)),
    ]
    return CaseResult(
        name=name,
        averaging=charter.aggregation.averaging,
        members=len(evidence.members),
        rounds=charter.rounds.rounds,
        rounds_agreed=len(agreed),
        rounds_lost=lost,
        rounds_over_deadline=len(late),
        rounds_judged=len(timed),
        round_s_median=round(median(took), 2) if took else 0.0,
        round_s_max=round(max(took, default=0.0), 2),
        collect_s_max=round(max((one.time.collect_s for one in timed), default=0.0), 2),
        limits=Limits.of(charter).to_json(),
        recovered_s=round(max(story.recovered_s), 2) if story.recovered_s else None,
        digests=digests,
        verdict=evidence.audit,
        figures=story.figures,
        failures=tuple(found),
    )


def lost_rounds(evidence: Evidence) -> int:
    """Count rounds that a member has closed and that not every ledger holds with one result.

    Where a quorum agrees, those that were closed as agreed, with the agreed result; among neighbours each
    member's own.
    """
    if evidence.charter.aggregation.is_gossip:
        found = [
            {ledger.published.get((member, round_)) for ledger in evidence.ledgers}
            for member in evidence.members
            for round_ in closed_rounds(evidence.logs[member])
        ]
    else:
        found = [
            {ledger.agreed.get(round_) for ledger in evidence.ledgers}
            for member in evidence.members
            for round_ in closed_rounds(evidence.logs[member], agreed=True)
        ]
    return sum(len(results) != 1 or None in results for results in found)


def timed_rounds(evidence: Evidence, away: Sequence[Away]) -> list[Timed]:
    """Every round above zero of every member, but those in which it was away or that a restart cut off."""
    limits, last = Limits.of(evidence.charter), evidence.charter.rounds.rounds
    timed = []
    for member in evidence.members:
        open_then = closed_rounds(evidence.logs[member], agreed=False)
        known = evidence.ledgers[member].agreed.keys() - open_then
        for time in round_times(evidence.logs[member]):
            gone = any(one.member == member and one.overlaps(time) for one in away)
            if gone or time.round < 1:
                continue
            before = range(max(1, time.round - ROUNDS_REMEMBERED), time.round)
            unagreed = sum(round_ not in known for round_ in before)
            longest_s = limits.round_s(unagreed, is_last=time.round == last)
            timed.append(
                Timed(
                    member=member,
                    time=time,
                    round_s_max=longest_s,
                    collect_s_max=limits.collect_s,
                )
            )
    return timed


def _late(late: Sequence[Timed], evidence: Evidence) -> list[str]:
    """Say how many, and show the worst."""
    if not late:
        return []
    worst = max(late, key=lambda one: one.time.took_s - one.round_s_max)
    time = worst.time
    where = f"round {time.round} of {evidence.names[worst.member]}"
    collected = f"collected for {time.collect_s:.1f} s of {worst.collect_s_max - LOG_S:g} s"
    in_all = f"in all {time.took_s:.1f} s of {worst.round_s_max:g} s"
    return [f"rounds over the deadline: {len(late)}, as {where}: {collected}, {in_all}"]


def _of_all(evidence: Evidence, agreed: AbstractSet[int]) -> list[str]:
    """What is wrong at the end where a quorum agrees each round."""
    models = {one.model for one in evidence.ledgers}
    return [
        *([f"{len(models)} different results"] if len(models) != 1 else []),
        *(["the last round is not agreed"] if evidence.charter.rounds.rounds not in agreed else []),
    ]


def _of_neighbours(evidence: Evidence, story: Story) -> list[str]:
    """What is wrong at the end where each averages with its neighbours.

    Whoever was hurt may have gone on where the others were: it skips rounds, but not the last one.
    """
    rounds, count = evidence.charter.rounds.rounds, len(evidence.members)
    models = {one.model for one in evidence.ledgers}
    found = []
    for member in evidence.members:
        asked = {rounds} if member in story.hurt else set(range(1, rounds + 1))
        missing = asked - closed_rounds(evidence.logs[member])
        found.extend(_incomplete(evidence.names[member], missing))
    if count > EVERYBODY_IS_NEAR and len(models) != count:
        found.append(f"{count} members ended with only {len(models)} models of their own")
    return found


def _not_back(evidence: Evidence, hurt: Mapping[int, float]) -> list[str]:
    """Who of the hurt trained nothing after its fault that anybody merged."""
    found = []
    for member, over_s in sorted(hurt.items()):
        trained = [
            line.round
            for line in evidence.logs[member]
            if line.event == PHASE
            and line.phase == TRAIN
            and line.at_s >= over_s
            and line.round is not None
        ]
        merged = _rounds_with(evidence, member)
        if not trained or not any(round_ >= min(trained) for round_ in merged):
            found.append(f"{evidence.names[member]} was not merged again")
    return found


def _not_always(evidence: Evidence, member: int) -> list[str]:
    """What is missing of a member that should take part in every round after its first."""
    ledger, name = evidence.ledgers[member], evidence.names[member]
    offered = ledger.offered.get(member, frozenset())
    if not offered:
        return [f"{name} contributed to no round"]
    last = evidence.charter.rounds.rounds
    if evidence.charter.aggregation.is_gossip:
        asked, closed = set(offered), closed_rounds(evidence.logs[member])
    else:
        asked = {round_ for round_ in ledger.agreed if round_ >= min(offered)}
        closed = closed_rounds(evidence.logs[member], agreed=True)
    merged = len(asked & _rounds_with(evidence, member))
    missing = set(range(min(offered), last + 1)) - closed
    found = []
    if merged < NEARLY * len(asked):
        found.append(f"{name} was merged in only {merged} of {len(asked)} rounds")
    return [*found, *_incomplete(name, missing)]


def _incomplete(name: str, missing: AbstractSet[int]) -> list[str]:
    if not missing:
        return []
    others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
    return [f"{name} did not complete round {min(missing)}{others}"]


def _rounds_with(evidence: Evidence, member: int) -> AbstractSet[int]:
    """Rounds whose agreed result has a member's update in it; among neighbours, its rounds that others merged."""
    ledger = evidence.ledgers[member]
    if evidence.charter.aggregation.is_gossip:
        return ledger.used.get(member, frozenset())
    return {round_ for round_, authors in ledger.merged.items() if member in authors}
