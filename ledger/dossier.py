"""Everything that the auditor's page and its JSON say, put together once. Room: ledger.

Spec: docs/ledger.md §13.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from .anomalies import Anomaly, anomalies
from .bodies import Kind, MetricId, MetricValue, Reason, Rule
from .charter import Charter
from .errors import ConfigError, VerificationError
from .insight import Insight, look
from .pooling import pool, pool_groups
from .reading import opened_ledger, read_all
from .report import Report
from .reputation_report import as_json as reputation_json
from .reputation_types import Reputation
from .roster import Roster
from .signal_report import as_json as signals_json
from .signals import MemberSignals
from .story import Event, Result, RoundStory, Story, tell
from .subgroups import part_name
from .verify import Audited
from .words import kind_name

Log: TypeAlias = tuple[int, int]
Series: TypeAlias = dict[int, dict[int, list[tuple[int, MetricValue]]]]  # metric → member → rounds

STATES: Final = ("SIGNED", "FINAL", "ANCHORED", "TIMESTAMPED")
REPLAYED_MAX: Final = 100_000  # records; the replay holds all of them at once


@dataclass(frozen=True, kw_only=True)
class Dossier:
    """Report, story and anomalies of one set of bundles."""

    charter: Charter
    roster: Roster
    report: Report
    story: Story
    anomalies: tuple[Anomaly, ...]
    reputation: Reputation | None
    signals: tuple[MemberSignals, ...]
    reputation_note: str

    def name(self, member: int) -> str:
        """Return a member's name."""
        return self.story.members[member].name

    def final_by_member(self) -> dict[int, int]:
        """Return how many records of each member are final."""
        final: dict[int, int] = {}
        for log in self.report.logs:
            final[log.author] = final.get(log.author, 0) + log.final_seq + 1
        return final

    def state_of(self, result: Result) -> str:
        """Return the highest state of a record that states this result."""
        logs = {(log.author, log.epoch): log for log in self.report.logs}
        states = (logs[one.author, one.epoch].state_of(one.seq) for one in result.records)
        return max(states, key=STATES.index)

    def state_names(self) -> list[str]:
        """Return the states that the report counts."""
        return list(dict.fromkeys(name for one in self.report.counts.values() for name in one))

    @property
    def anchored_note(self) -> str:
        """Return what is said about the two states that need files beside the logs."""
        report = self.report
        if not report.anchored:
            return "No record lies under a checkpoint that a quorum has cosigned (ANCHORED)."
        text = (
            f"{report.anchored:,} records are ANCHORED: they lie under a checkpoint of their log that "
            f"{report.quorum} members cosigned. "
        )
        if report.timestamped:
            return (
                f"{text}For {report.timestamped:,} of them a time stamp of an authority says when."
            )
        return f"{text}None is TIMESTAMPED."

    def statements(self) -> list[Event]:
        """Return what hospitals have stated beside the rounds: releases, withdrawals, anchors."""
        return [one for one in self.story.events if one.kind != Kind.FORK_PROOF]

    def metric_series(self) -> Series:
        """Return every metric of every member, round by round."""
        series: Series = {}
        for number, told in sorted(self.story.rounds.items()):
            for member, values in told.metrics.items():
                for one in values:
                    series.setdefault(one.metric, {}).setdefault(member, []).append((number, one))
        return series

    def newest_metrics(self) -> tuple[int, RoundStory] | None:
        """Return the newest round that most members who ever measured one have measured."""
        measured = {n: told for n, told in self.story.rounds.items() if told.metrics}
        most = max((len(told.metrics) for told in measured.values()), default=0)
        numbers = [n for n, told in measured.items() if 2 * len(told.metrics) > most]
        return (max(numbers), measured[max(numbers)]) if numbers else None

    def main_metric(self, series: Series) -> int:
        """Return the charter's metric, or the first that there is."""
        wanted = MetricId[self.charter.schema.metric.upper()]
        return int(wanted) if wanted in series else min(series)

    def limits(self) -> Iterator[str]:
        """Yield what the evidence does not prove, in words."""
        yield (
            "That a hospital trained on the patients it says, or on patients at all: a record binds "
            "its author to an update and to numbers, not to how they came about."
        )
        yield (
            "That sample counts, metrics, intervals and privacy budgets are true: each hospital "
            "measured its own and signed it."
        )
        yield (
            "When anything happened: clocks are claims, except for the latest time that a time stamp "
            "gives (TIMESTAMPED). The order is proved only where one record acknowledges another."
        )
        yield (
            "That nothing was left out that nobody else ever saw: a record shown to no one, and the end "
            "of a log that no one acknowledged, leave no trace. More hospitals' bundles show more."
        )
        if "payloads" not in self.report.supplied:
            yield (
                "That the merged models are what their inputs give: the members agree on digests, and "
                "no payload was supplied to do the merges again (--recompute)."
            )
        if self.report.tolerated == 0:
            yield (
                f"Anything against a lying member: with {self.report.members} members no liar is "
                "tolerated."
            )
        else:
            yield f"Anything if more than {self.report.tolerated} members lie together."
        for one in self.report.missing:
            yield f"What this would show: {one}."

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {
            "federation": self.charter.federation,
            "report": self.report.to_json(),
            "members": [_member_json(one) for one in self.story.members.values()],
            "rounds": [self._round_json(told) for _, told in sorted(self.story.rounds.items())],
            "anomalies": [one.to_json() for one in self.anomalies],
            "statements": [
                {
                    "kind": kind_name(one.kind),
                    "record": str(one.place),
                    "member": one.place.author,
                    "round": one.round,
                    "time_ms": one.time_ms,
                    "text": one.text,
                }
                for one in self.statements()
            ],
            "reputation": None if self.reputation is None else reputation_json(self.reputation),
            "reputation_note": self.reputation_note,
            "signals": signals_json(self.signals),
            "not_proved": list(self.limits()),
        }

    def _round_json(self, told: RoundStory) -> dict[str, Any]:
        return {
            "round": told.number,
            "contributions": [
                {
                    "member": one.place.author,
                    "record": str(one.place),
                    "id": one.id.hex(),
                    "codec": one.codec,
                    "samples": one.samples,
                    "local_steps": one.local_steps,
                    "bytes_count": one.bytes_count,
                    "norm_micro": one.norm_micro,
                    "epsilon_micro": one.epsilon_micro,
                    "time_ms": one.time_ms,
                }
                for one in told.offers
            ],
            "results": [
                {
                    "rule": Rule(one.rule).name,
                    "result_digest": one.digest.hex(),
                    "state": self.state_of(one),
                    "members": sorted(one.members),
                    "records": [str(place) for place in one.records],
                    "inputs": [
                        {"member": i.author, "id": i.id.hex(), "weight_micro": i.weight_micro}
                        for i in one.inputs
                    ],
                    "left_out": [
                        {"member": member, "reasons": [Reason(r).name for r in sorted(reasons)]}
                        for member, reasons in sorted(one.left_out.items())
                    ],
                }
                for one in told.results
            ],
            "metrics": [
                {
                    "member": member,
                    "values": [_metric_json(one) for one in values],
                }
                for member, values in sorted(told.metrics.items())
            ],
            "pooled_metrics": [_metric_json(one) for one in pool(told.metrics.values()).values()],
            "subgroups": [
                {
                    "subgroup": part_name(self.charter.schema, *part),
                    "pooled": [_metric_json(one) for one in values.values()],
                }
                for part, values in pool_groups(told.groups.values()).items()
            ],
            "refusals": [
                {
                    "by": one.by,
                    "record": str(one.place),
                    "target": one.target_id.hex(),
                    "reason": Reason(one.reason).name,
                }
                for one in told.refusals
            ],
        }


def _metric_json(one: MetricValue) -> dict[str, Any]:
    return {
        "metric": MetricId(one.metric).name,
        "micro": one.micro,
        "low_micro": one.low_micro,
        "high_micro": one.high_micro,
        "count": one.count,
    }


def _member_json(one: Any) -> dict[str, Any]:
    return {
        "member": one.index,
        "name": one.name,
        "role": one.role,
        "joined_ms": one.joined_ms,
        "left_ms": one.left_ms,
        "left_why": one.left_why,
        "since_roster": one.since_roster,
        "until_roster": one.until_roster,
        "key_epochs": one.epochs,
        "records": one.records,
        "contributions": one.contributions,
        "evaluations": one.metrics,
        "last_round": one.last_round,
        "epsilon_micro": one.epsilon_micro,
        "delta_exponent": one.delta_exponent,
        "mechanism": one.mechanism,
    }


def compile_dossier(audited: Audited) -> Dossier:
    """Read the accepted records once more and put everything together.

    Raises ConfigError or VerificationError if charter or roster could not be read.
    """
    roster = opened_ledger(audited.opened)
    charter, audit = audited.opened.charter, audited.audit
    if charter is None or audit is None:
        raise ConfigError("the bundles hold nothing that can be read")
    paths, report = audit.readable(), audited.report
    counts: Mapping[Log, int] = {(log.author, log.epoch): log.records for log in report.logs}
    story = tell(read_all(paths, roster, counts), roster, audit.time_ms_of)
    insight: Insight | None = None
    note = "No evaluations were recorded, so there is none to replay."
    if report.records > REPLAYED_MAX:
        note = f"Not replayed: more than {REPLAYED_MAX:,} records. swarm-audit reputation does it."
    elif report.counts.get("EVALUATION_REVEAL"):
        try:
            insight = look(list(read_all(paths, roster, counts)), roster, charter)
        except VerificationError as error:
            note = f"Cannot be replayed from what stands: {error}"
    return Dossier(
        charter=charter,
        roster=roster,
        report=report,
        story=story,
        anomalies=tuple(anomalies(story, roster, report)),
        reputation=insight.reputation if insight else None,
        signals=insight.signals if insight else (),
        reputation_note=note,
    )
