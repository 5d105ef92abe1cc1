"""Whole nodes that score each other: every round, beside it, and every auditor gets the same numbers."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from ledger.charter import Charter
from ledger.insight import Insight, look
from ledger.record import EvaluationReveal, Kind, Record, Sketch, Verified, open_record
from ledger.roster import Roster
from ledger.store import Store
from scenarios.simulation.swarm import SimulatedSite
from swarm.scoring.judge import Judge
from tests.node.test_rounds_live import SHORT, assert_every_bundle_verifies, run
from tests.simulated import swarm_of

MEMBERS = 4
ROUNDS = 5


def judged(
    members: int, *, mode: str = "score", extra: str = "", rounds: int = ROUNDS
) -> tuple[Charter, list[SimulatedSite]]:
    text = f'weighting = "samples"\n[reputation]\nmode = "{mode}"\n{extra}'
    charter, sites = swarm_of(members, rounds=rounds, aggregation=text, **SHORT)
    dimensions = charter.reputation.sketch_dimensions
    return charter, [
        replace(site, judge=lambda task: Judge(task, dimensions=dimensions))  # type: ignore[arg-type]
        for site in sites
    ]


def records_of(directory: Path, charter: Charter, index: int) -> list[Verified[Record]]:
    roster = Roster.from_charter(charter)
    with Store.open(directory / f"{index}.db", read_only=True) as store:
        return [open_record(signed, roster=roster) for signed in store.records()]


def insight_of(directory: Path, charter: Charter, index: int) -> Insight:
    return look(records_of(directory, charter, index), Roster.from_charter(charter), charter)


def test_every_round_but_the_last_is_scored_and_sketched_and_all_agree(tmp_path: Path) -> None:
    charter, sites = judged(MEMBERS)
    swarm, _ = run(charter, sites, tmp_path)
    assert swarm.failures == []
    records = records_of(tmp_path, charter, 0)
    kinds: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for one in records:
        kinds[one.value.kind].append((one.value.round, one.value.author))
        if isinstance(one.value.body, EvaluationReveal):
            assert len(one.value.body.scores) == MEMBERS - 1
        if isinstance(one.value.body, Sketch):
            assert len(one.value.body.rows) == min(one.value.body.round, 3)
    everybody = [(round_, i) for round_ in range(2, ROUNDS + 1) for i in range(MEMBERS)]
    assert sorted(kinds[Kind.EVALUATION_COMMIT]) == everybody
    assert sorted(kinds[Kind.EVALUATION_REVEAL]) == everybody
    assert len(kinds[Kind.SKETCH]) == len(everybody)
    assert Kind.REJECTION not in kinds
    insights = [insight_of(tmp_path, charter, index) for index in range(MEMBERS)]
    assert len({one.reputation.state.digest() for one in insights}) == 1
    assert all(line.score_micro is not None for line in insights[0].reputation.rounds[-1].members)
    assert [one.round for one in insights[0].sketches] == list(range(1, ROUNDS))
    assert_every_bundle_verifies(tmp_path, charter, MEMBERS)
