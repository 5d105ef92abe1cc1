"""What in a story an auditor should look at. Room: ledger. Spec: docs/ledger.md §13.

None of these refutes anything by itself: the records are right, what they tell is unusual.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .bodies import Kind, Reason, Rule
from .report import Report
from .roster import Roster
from .story import Result, RoundStory, Story

SILENT_ROUNDS = 3
LISTED_MAX = 12


@dataclass(frozen=True, kw_only=True)
class Anomaly:
    """One thing to look at: what, when, who, in words."""

    name: str
    text: str
    round: int | None = None
    member: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "name": self.name, "text": self.text, "round": self.round, "member": self.member,
        }  # fmt: skip


def anomalies(story: Story, roster: Roster, report: Report) -> list[Anomaly]:
    """Return everything unusual, refusals of the audit first, then round by round."""
    names = {one.index: one.name for one in story.members.values()}
    found = [
        Anomaly(
            name="fork" if finding.error.code == "E_FORK" else "refused by the audit",
            text=f"step {finding.step}: {finding.error}",
            member=finding.error.author,
        )
        for finding in report.findings
    ]
    found += [Anomaly(name="fork", text=fork.text, member=fork.author) for fork in report.forks]
    for number in sorted(story.rounds):
        found += _of_round(story.rounds[number], story, roster, names)
    found += _of_members(story, names)
    found += _of_clocks(story, names)
    found += [
        Anomaly(
            name="fork proof" if event.kind == Kind.FORK_PROOF else "withdrawal",
            text=f"record {event.place} by {names[event.place.author]}: {event.text}",
            round=event.round,
            member=event.place.author,
        )
        for event in story.events
        if event.kind in (Kind.FORK_PROOF, Kind.WITHDRAWAL)
    ]
    return found


def _of_round(
    told: RoundStory, story: Story, roster: Roster, names: Mapping[int, str]
) -> Iterator[Anomaly]:
    for one in told.refusals:
        author = story.author_of.get(one.target_id)
        whose = f"{names[author]}'s" if author is not None else "an unknown"
        yield Anomaly(
            name="refused contribution",
            text=f"{names[one.by]} refused {whose} contribution {one.target_id.hex()[:16]}: "
            f"{Reason(one.reason).name} (record {one.place})",
            round=told.number,
            member=author,
        )
    for rule in sorted({result.rule for result in told.results}):
        of_rule = [result for result in told.results if result.rule == rule]
        digests = {result.digest for result in of_rule}
        if len(digests) > 1:
            yield Anomaly(
                name="disagreeing results",
                text=f"{Rule(rule).name}: "
                + "; ".join(f"{one.digest.hex()[:16]} by {_who(one, names)}" for one in of_rule),
                round=told.number,
            )
        elif len({member for one in of_rule for member in one.members}) < roster.q:
            yield Anomaly(
                name="result of too few",
                text=f"{Rule(rule).name}: only {_who(of_rule[0], names)} wrote a result, "
                f"{roster.q} make a quorum",
                round=told.number,
            )
    if told.offers and not told.results and told.number < max(story.rounds):
        yield Anomaly(
            name="round without result",
            text=f"{len(told.offers)} contributions and no aggregation",
            round=told.number,
        )


def _who(result: Result, names: Mapping[int, str]) -> str:
    return ", ".join(names[one] for one in sorted(result.members))


def _of_members(story: Story, names: Mapping[int, str]) -> Iterator[Anomaly]:
    merged = [number for number, told in story.rounds.items() if told.results]
    newest = max(merged, default=0)
    for member in story.members.values():
        if member.until_roster is not None:
            continue
        text = ""
        if not member.records:
            text = "has no record in these bundles"
        elif merged and not member.contributions:
            text = "has joined and never contributed"
        elif not member.left_why and newest - member.last_round >= SILENT_ROUNDS:
            text = f"wrote last in round {member.last_round}, the newest result is of {newest}"
        if text:
            yield Anomaly(
                name="silent member", text=f"{names[member.index]} {text}", member=member.index
            )


def _of_clocks(story: Story, names: Mapping[int, str]) -> Iterator[Anomaly]:
    for _, skew in sorted(story.skews.items()):
        yield Anomaly(
            name="clocks apart",
            text=f"{names[skew.behind]}'s clock was up to {_span(skew.most_ms)} behind "
            f"{names[skew.ahead]}'s, whose record it had already (record {skew.place}, "
            f"{skew.count} in all)",
            member=skew.behind,
        )
    for pause in sorted(story.pauses, key=lambda one: -one.gap_ms)[:LISTED_MAX]:
        yield Anomaly(
            name="pause or clock jump",
            text=f"{names[pause.place.author]}'s log says nothing for {_span(pause.gap_ms)} "
            f"before record {pause.place}",
            member=pause.place.author,
        )


def _span(ms: int) -> str:
    """Return a duration in the unit that fits."""
    for unit, size in (("days", 86_400_000), ("hours", 3_600_000), ("minutes", 60_000)):
        if ms >= 2 * size:
            return f"{ms / size:.1f} {unit}"
    return f"{ms / 1000:.0f} seconds"
