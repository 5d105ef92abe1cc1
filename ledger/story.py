"""What the records of verified logs tell, as plain values for a report. Room: ledger.

Spec: docs/ledger.md §13. One pass over the records that the audit accepted, in the order of the
logs; a pure fold, so the same files tell the same story.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from .bodies import (
    Aggregation,
    Close,
    CloseReason,
    Contribution,
    GroupValue,
    Input,
    Metrics,
    MetricValue,
    Open,
    Rejection,
)
from .reading import Place
from .record import Ack, Kind, Record, Verified
from .roster import Roster
from .words import summary

Log: TypeAlias = tuple[int, int]
EVENTS: Final = (Kind.FORK_PROOF, Kind.ANCHOR, Kind.RELEASE, Kind.WITHDRAWAL)
PAUSE_MS: Final = 6 * 3_600_000  # a log that says nothing for so long, or a clock that jumped
SKEW_MS: Final = 60_000  # an acked clock may be this much ahead before it is told


@dataclass(kw_only=True)
class MemberStory:
    """One member: when it came, went, wrote last, and what it claims to have spent."""

    index: int
    name: str
    role: str
    since_roster: int = 0
    until_roster: int | None = None  # the version that removed it
    joined_ms: int | None = None
    left_ms: int | None = None
    left_why: str = ""
    last_ms: int | None = None
    last_round: int = 0
    records: int = 0
    contributions: int = 0
    metrics: int = 0
    epochs: int = 0
    epsilon_micro: int = 0
    delta_exponent: int = 0
    mechanism: int = 0


@dataclass(frozen=True, kw_only=True)
class Offer:
    """One contribution."""

    place: Place
    id: bytes
    codec: int
    samples: int
    local_steps: int
    bytes_count: int
    norm_micro: int
    epsilon_micro: int
    time_ms: int


@dataclass(kw_only=True)
class Result:
    """One result of a round, and who wrote that he got it."""

    digest: bytes
    rule: int
    inputs: tuple[Input, ...]
    left_out: dict[int, set[int]] = field(default_factory=dict)  # author → reasons given
    members: set[int] = field(default_factory=set)
    records: list[Place] = field(default_factory=list)
    time_ms: int = 0


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A contribution that a member refused."""

    by: int
    place: Place
    target_id: bytes
    reason: int


@dataclass(kw_only=True)
class RoundStory:
    """One round."""

    number: int
    offers: list[Offer] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    metrics: dict[int, tuple[MetricValue, ...]] = field(default_factory=dict)
    groups: dict[int, tuple[GroupValue, ...]] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Event:
    """One record that stands out: a release, a withdrawal, a fork proof, an anchor; in words."""

    kind: int
    place: Place
    round: int
    time_ms: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Pause:
    """A log in which nothing was written for long, by its own clock."""

    place: Place
    gap_ms: int


@dataclass(kw_only=True)
class Skew:
    """The most by which one member's clock was behind another's whose record it already had."""

    behind: int
    ahead: int
    most_ms: int = 0
    place: Place | None = None
    count: int = 0


@dataclass(kw_only=True)
class Story:
    """Everything together."""

    members: dict[int, MemberStory]
    rounds: dict[int, RoundStory] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    pauses: list[Pause] = field(default_factory=list)
    skews: dict[tuple[int, int], Skew] = field(default_factory=dict)
    author_of: dict[bytes, int] = field(default_factory=dict)  # contribution → its author

    def round(self, number: int) -> RoundStory:
        """Return one round, made when it is asked for first."""
        return self.rounds.setdefault(number, RoundStory(number=number))


def tell(
    records: Iterable[Verified[Record]],
    roster: Roster,
    time_ms_of: Callable[[int, int, int], int | None],
) -> Story:
    """Return the story of records that come log by log, each log in its order.

    time_ms_of: the clock of the record at (author, epoch, seq), None if nobody has it.
    """
    story = Story(
        members={
            one.index: MemberStory(
                index=one.index,
                name=one.name,
                role=one.role,
                since_roster=roster.terms[one.index][0].since,
                until_roster=roster.terms[one.index][-1].until,
                epochs=len(roster.terms[one.index]),
            )
            for one in roster.members
        }
    )
    last: dict[Log, int] = {}
    for record in records:
        value = record.value
        log = (value.author, value.epoch)
        before_ms = last.get(log)
        if before_ms is not None and value.time_ms - before_ms >= PAUSE_MS:
            place = Place(*log, value.seq)
            story.pauses.append(Pause(place=place, gap_ms=value.time_ms - before_ms))
        last[log] = value.time_ms
        _enter(story, record)
        for ack in value.acks:
            _compare_clocks(story, value, ack, time_ms_of(ack.author, ack.epoch, ack.seq))
    return story


def _enter(story: Story, record: Verified[Record]) -> None:
    value, body = record.value, record.value.body
    member = story.members[value.author]
    place = Place(value.author, value.epoch, value.seq)
    member.records += 1
    member.last_ms = max(member.last_ms or 0, value.time_ms)
    member.last_round = max(member.last_round, value.round)
    if not isinstance(body, Close):
        member.left_ms, member.left_why = None, ""  # it went on
    match body:
        case Open():
            joined = value.time_ms if member.joined_ms is None else member.joined_ms
            member.joined_ms = min(joined, value.time_ms)
        case Close():
            member.left_ms = value.time_ms
            member.left_why = CloseReason(body.reason).name
        case Contribution():
            _enter_contribution(story, record, body, place)
        case Aggregation():
            _enter_aggregation(story, value, body, place)
        case Metrics():
            member.metrics += 1
            story.round(body.round).metrics[value.author] = body.values
            story.round(body.round).groups[value.author] = body.groups
        case Rejection():
            refusal = Refusal(
                by=value.author, place=place, target_id=body.target_id, reason=body.reason
            )
            story.round(value.round).refusals.append(refusal)
        case _ if value.kind in EVENTS:
            story.events.append(_event(record, place))
        case _:
            pass


def _event(record: Verified[Record], place: Place) -> Event:
    value = record.value
    return Event(
        kind=value.kind, place=place, round=value.round, time_ms=value.time_ms, text=summary(value)
    )


def _enter_contribution(
    story: Story, record: Verified[Record], body: Contribution, place: Place
) -> None:
    member = story.members[place.author]
    member.contributions += 1
    if body.epsilon_micro >= member.epsilon_micro and body.mechanism:
        member.delta_exponent, member.mechanism = body.delta_exponent, body.mechanism
    member.epsilon_micro = max(member.epsilon_micro, body.epsilon_micro)
    story.author_of[record.id] = place.author
    story.round(record.value.round).offers.append(
        Offer(
            place=place,
            id=record.id,
            codec=body.codec,
            samples=body.samples,
            local_steps=body.local_steps,
            bytes_count=body.bytes_count,
            norm_micro=body.norm_micro,
            epsilon_micro=body.epsilon_micro,
            time_ms=record.value.time_ms,
        )
    )


def _enter_aggregation(story: Story, value: Record, body: Aggregation, place: Place) -> None:
    results = story.round(value.round).results
    for result in results:
        if (result.digest, result.rule, result.inputs) == (
            body.result_digest, body.rule, body.inputs,
        ):  # fmt: skip
            break
    else:
        result = Result(digest=body.result_digest, rule=body.rule, inputs=body.inputs)
        results.append(result)
    for one in body.left_out:
        result.left_out.setdefault(one.author, set()).add(one.reason)
    result.members.add(value.author)
    result.records.append(place)
    result.time_ms = max(result.time_ms, value.time_ms)


def _compare_clocks(story: Story, record: Record, ack: Ack, acked_ms: int | None) -> None:
    """Enter by how much the record's clock is behind one that its author had seen already."""
    behind_ms = 0 if acked_ms is None else acked_ms - record.time_ms
    if behind_ms <= SKEW_MS:
        return
    pair = record.author, ack.author
    skew = story.skews.setdefault(pair, Skew(behind=record.author, ahead=ack.author))
    skew.count += 1
    if behind_ms > skew.most_ms:
        skew.most_ms = behind_ms
        skew.place = Place(record.author, record.epoch, record.seq)
