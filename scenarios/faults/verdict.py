"""What a fault cost the others: read from their ledgers and logs after the case.

Room: scenarios. Law: the verdict comes from what the nodes stored, not from what the case believes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ledger.record import open_record
from ledger.roster_store import load_roster
from ledger.store import Store
from node.config import load_site
from scenarios.audit import audit
from scenarios.faults.federation import ROUND_S_MAX, Federation
from scenarios.faults.logs import Line, RoundTime, round_times
from scenarios.main_job import export_bundles
from swarm.protocol.book import RoundBook


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """One case. Times in seconds, counts over the members that were not hurt."""

    name: str
    members: int
    rounds: int
    rounds_agreed: int
    """Rounds that a quorum agreed on, by the ledger of the members that were not hurt."""
    rounds_lost: int
    """Completed rounds that somebody no longer knows, or knows with another result."""
    rounds_over_deadline: int
    round_s_median: float
    round_s_max: float
    recovered_s: float | None
    """From the end of the fault until the hurt member's update was merged again."""
    digests: tuple[str, ...]
    """Different results that members ended with: one."""
    verdict: str
    """Of the audit over all bundles."""
    figures: dict[str, Any] = field(default_factory=dict)
    failures: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As the command writes it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Stored:
    """What a member's own store says at the end."""

    agreed: dict[int, str]
    """round → result, hexadecimal"""
    model: str
    """Digest of the model that it ended with."""


def stored(federation: Federation, member: int) -> Stored:
    """Read a member's store."""
    config = load_site(federation.sites[member].config)
    with Store.open(config.paths.ledger, read_only=True) as store:
        book = RoundBook(load_roster(store, federation.charter))
        for signed in store.records():
            book.learn(open_record(signed, roster=book.roster))
    found = {round_: book.agreed(round_) for round_ in book.agreed_rounds()}
    model = book.latest_model(member)
    return Stored(
        {round_: one.proposal.result.hex() for round_, one in found.items() if one},
        model[1].hex() if model else "",
    )


def closed_rounds(lines: list[Line]) -> set[int]:
    """Rounds that a node's log says it has closed as agreed."""
    return {
        line.round
        for line in lines
        if line.event == "round_closed" and line.round is not None and '"agreed": true' in line.text
    }


def judge(
    name: str,
    federation: Federation,
    logs: list[list[Line]],
    *,
    hurt: frozenset[int],
    recovered_s: float | None,
    figures: dict[str, Any],
    failures: Sequence[str] = (),
    away: frozenset[int] = frozenset(),
) -> CaseResult:
    """Compare what members completed while the case ran with what their ledgers hold now.

    hurt: who suffered the fault; away: who did not come back by the end (its result is not asked for);
    failures: what the case itself found wrong.
    """
    members = range(len(federation.sites))
    present = [member for member in members if member not in away]
    well = [member for member in present if member not in hurt] or list(present)
    ends = {member: stored(federation, member) for member in present}
    agreed = {member: end.agreed for member, end in ends.items()}
    lost = 0
    for member in present:
        for round_ in closed_rounds(logs[member]):
            results = {agreed[other].get(round_) for other in present}
            lost += len(results) != 1 or None in results
    times: list[RoundTime] = [t for member in well for t in round_times(logs[member]) if t.round]
    took = sorted(t.took_s for t in times)
    digests = tuple(sorted({end.model for end in ends.values()}))
    report = audit(
        tuple(one for at, one in enumerate(export_bundles(federation.job)) if at not in away),
        charter=federation.job.charter,
        charter_digest=federation.digest,
    )
    over = sum(one > ROUND_S_MAX for one in took)
    rounds = federation.charter.rounds.rounds
    rounds_agreed = len([round_ for round_ in agreed[well[0]] if round_ > 0])
    found = [
        *failures,
        *([f"{lost} completed rounds lost"] if lost else []),
        *([f"{over} rounds longer than {ROUND_S_MAX:.0f} s"] if over else []),
        *([f"{len(digests)} different results"] if len(digests) != 1 else []),
        *([f"the audit says {report.verdict}"] if report.verdict != "VERIFIED" else []),
        *(["nobody reached the last round"] if rounds not in agreed[well[0]] else []),
    ]
    return CaseResult(
        name=name,
        members=len(federation.sites),
        rounds=rounds,
        rounds_agreed=rounds_agreed,
        rounds_lost=lost,
        rounds_over_deadline=over,
        round_s_median=round(took[len(took) // 2], 2) if took else 0.0,
        round_s_max=round(took[-1], 2) if took else 0.0,
        recovered_s=None if recovered_s is None else round(recovered_s, 2),
        digests=digests,
        verdict=report.verdict,
        figures=figures,
        failures=tuple(found),
    )
