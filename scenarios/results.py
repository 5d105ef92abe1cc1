"""From what the sites handed out to the outcome of a run, and to its JSON.

Room: scenarios. Law: learning and agreement are read from each hospital's own log in its own
exported bundle; bytes and memory from its status interface; nothing from inside a node.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ledger.audit_roster import rosters_in_force
from ledger.bundle import read_bundle
from ledger.charter import Charter
from ledger.frames import read_frames
from ledger.record import (
    Aggregation,
    Contribution,
    MetricId,
    Metrics,
    Reason,
    Record,
    open_record,
    parse_envelope,
)
from ledger.roster import Roster, quorum
from scenarios.outcome import (
    HospitalOutcome,
    LedgerOutcome,
    Level,
    Measured,
    Merge,
    Outcome,
    Point,
)
from scenarios.view import NodeView
from swarm.learning.fits import has_round_zero

MICRO: Final = 1_000_000
REASONS: Final[Mapping[int, str]] = {
    Reason.NOT_RECEIVED: "its update was not received in time",
    Reason.LATE: "its update came too late",
    Reason.BAD_DIGEST: "its update did not match its digest",
    Reason.BAD_SHAPE: "its update had another shape than the model",
    Reason.NOT_FINITE: "its update held values that are not finite",
    Reason.TOO_LARGE: "its update was larger than the charter allows",
    Reason.NORM_BOUND: "its update was beyond the norm bound",
    Reason.WRONG_BASE: "its update started from an unknown model",
    Reason.INACTIVE: "it was silent for several rounds",
}


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the scenario itself knows of a run."""

    scenario: str
    title: str
    seed: int
    wall_s: float


def read_roster(bundles: Sequence[Path], charter: Charter) -> Roster:
    """Return the roster in force: the charter's, and every update that the bundles have.

    Raises VerificationError when an update is not what a quorum signed.
    """
    return rosters_in_force([read_bundle(one) for one in bundles], charter)[0]


def read_own_logs(bundles: Sequence[Path], roster: Roster) -> dict[int, tuple[Record, ...]]:
    """Read each member's own log (current epoch last) from its own bundle, in roster order.

    Raises VerificationError when a record is not what its author signed.
    """
    logs: dict[int, tuple[Record, ...]] = {}
    for own, directory in enumerate(bundles):
        logs[own] = tuple(
            open_record(parse_envelope(envelope), roster=roster).value
            for (author, _epoch), path in sorted(read_bundle(directory).logs.items())
            if author == own
            for envelope in read_frames(path)
        )
    return logs


def read_merges(
    logs: Mapping[int, Sequence[Record]], *, rounds: int, roster: Roster
) -> tuple[Merge, ...]:
    """Fold AGGREGATION records into one line per round; the most common proposal is shown.

    Votes agree under rosters with the same members, and the quorum is theirs (docs/wire.md §4.4).
    """
    votes: dict[int, dict[int, tuple[int, Aggregation]]] = defaultdict(dict)
    for author, log in logs.items():
        for record in log:
            if isinstance(record.body, Aggregation):
                votes[record.round].setdefault(author, (record.roster, record.body))
    return tuple(_merge(number, votes[number], roster) for number in range(1, rounds + 1))


def _merge(number: int, votes: Mapping[int, tuple[int, Aggregation]], roster: Roster) -> Merge:
    groups: dict[object, list[int]] = defaultdict(list)
    for author, (version, body) in sorted(votes.items()):
        members = roster.active_at(version)
        if author in members:
            groups[(members, body.rule, body.inputs, body.result_digest)].append(author)
    largest = max(groups.values(), key=len, default=[])
    version, shown = votes[largest[0]] if largest else (0, None)
    return Merge(
        round=number,
        agreed=len(largest) >= quorum(len(roster.active_at(version))),
        merged={i.author: i.weight_micro for i in shown.inputs} if shown else {},
        left_out={
            out.author: REASONS.get(out.reason, f"reason {out.reason}") for out in shown.left_out
        }
        if shown
        else {},
        digests={author: body.result_digest.hex() for author, (_, body) in votes.items()},
        heard=frozenset(
            one.author
            for author, (_, body) in votes.items()
            for one in body.inputs
            if one.author != author
        ),
    )


def read_points(log: Sequence[Record], metric: MetricId) -> tuple[Point, ...]:
    """Read a site's own METRICS records, one point a round."""
    points: dict[int, Point] = {}
    for record in log:
        if not isinstance(record.body, Metrics):
            continue
        for value in record.body.values:
            if value.metric == metric:
                measured = Measured(
                    value=value.micro / MICRO,
                    low=value.low_micro / MICRO,
                    high=value.high_micro / MICRO,
                    count=value.count,
                )
                points[record.body.round] = Point(round=record.body.round, measured=measured)
    return tuple(points[number] for number in sorted(points))


def build_outcome(
    header: Header,
    charter: Charter,
    logs: Mapping[int, Sequence[Record]],
    ledger: LedgerOutcome,
    baselines: Mapping[int, tuple[Level, Level]],
    views: Sequence[NodeView],
    roster: Roster,
) -> Outcome:
    """Bring everything together. baselines: index → (alone, pooled); views: one of each member."""
    merges = read_merges(logs, rounds=charter.rounds.rounds, roster=roster)
    last = next((merge for merge in reversed(merges) if merge.agreed), None)
    hospitals = []
    for member, view in zip(roster.members, views, strict=True):
        log = logs[member.index]
        alone, pooled = baselines[member.index]
        bodies = [record.body for record in log]
        results = [body.result_digest for body in bodies if isinstance(body, Aggregation)]
        samples = [body.samples for body in bodies if isinstance(body, Contribution)]
        hospitals.append(
            HospitalOutcome(
                index=member.index,
                name=member.name,
                samples=samples[-1] if samples else 0,
                weight_micro=last.merged.get(member.index, 0) if last else 0,
                bytes_sent=view.bytes_sent,
                bytes_received=view.bytes_received,
                result_digest=results[-1].hex() if results else "",
                alone=alone,
                pooled=pooled,
                auc=read_points(log, MetricId.AUC),
                loss=read_points(log, MetricId.LOG_LOSS),
                memory_mb=view.memory_mb,
            )
        )
    return Outcome(
        scenario=header.scenario,
        title=header.title,
        seed=header.seed,
        wall_s=header.wall_s,
        rounds=charter.rounds.rounds,
        members_quorum=roster.q,
        model=charter.model.name,
        has_moments=has_round_zero(charter),
        hospitals=tuple(hospitals),
        merges=merges,
        ledger=ledger,
        is_gossip=charter.aggregation.is_gossip,
    )


def to_json(outcome: Outcome) -> dict[str, Any]:
    """Build the object that `--json` writes; a metric that is undefined is null."""
    return {
        "scenario": outcome.scenario,
        "seed": outcome.seed,
        "wall_s": round(outcome.wall_s, 3),
        "rounds": outcome.rounds,
        "rounds_agreed": outcome.rounds_agreed,
        "members": [_member(hospital) for hospital in outcome.hospitals],
        **{f"auc_{name}": _value(outcome.overall(name)) for name in ("alone", "swarm", "pooled")},
        "ledger": {
            "verdict": outcome.ledger.verdict,
            "records": outcome.ledger.records,
            "final": outcome.ledger.final,
            "anchored": outcome.ledger.anchored,
            "bundles": list(outcome.ledger.bundles),
            "charter": outcome.ledger.charter,
            "charter_digest": outcome.ledger.charter_digest,
        },
        "result_digests": [hospital.result_digest for hospital in outcome.hospitals],
        "failures": list(outcome.failures),
    }


def _member(hospital: HospitalOutcome) -> dict[str, Any]:
    swarm = hospital.swarm.auc
    return {
        "name": hospital.name,
        "auc_alone": _value(hospital.alone.auc),
        "auc_swarm": _value(swarm),
        "auc_pooled": _value(hospital.pooled.auc),
        "auc_swarm_low": None if swarm is None else swarm.low,
        "auc_swarm_high": None if swarm is None else swarm.high,
        "samples": hospital.samples,
        "weight_micro": hospital.weight_micro,
        "bytes_sent": hospital.bytes_sent,
        "bytes_received": hospital.bytes_received,
    }


def _value(measured: Measured | None) -> float | None:
    return None if measured is None else measured.value
