"""Whole nodes that score each other: every round, beside it, and every auditor gets the same numbers."""

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import trio

from ledger.audit_reputation import read_claim
from ledger.bundle import export_bundle
from ledger.charter import Charter
from ledger.evidence import Offence
from ledger.insight import Insight, look
from ledger.record import EvaluationReveal, Kind, Record, Rejection, Sketch, Verified, open_record
from ledger.roster import Roster
from ledger.store import Store
from ledger.verify import Brought, verify_bundles
from ledger.weights import weights_micro
from node.network_memory import MemoryHub
from node.overview import overview_facts
from node.service import Service
from scenarios.simulation.swarm import VIRTUAL_S_MAX, SimulatedSite, Swarm
from swarm.protocol.phases import Phase
from swarm.scoring.judge import Judge
from tests.equivocation import WithLiar, in_round
from tests.node.test_forks_live import SEED, until_honest_end
from tests.node.test_rounds_live import SHORT, assert_every_bundle_verifies, run
from tests.node.test_rules_live import audit, keeping_all
from tests.simulated import fresh, swarm_of

MEMBERS = 4
LIAR = SLOW = 3
VICTIM = 2
ROUNDS = 5


def judged(
    members: int,
    *,
    mode: str = "score",
    extra: str = "",
    rounds: int = ROUNDS,
    looks: bool = False,
) -> tuple[Charter, list[SimulatedSite]]:
    text = f'weighting = "samples"\n[reputation]\nmode = "{mode}"\n{extra}'
    charter, sites = swarm_of(members, rounds=rounds, aggregation=text, **SHORT)
    dimensions = charter.reputation.sketch_dimensions
    return charter, [
        replace(site, judge=lambda task: Judge(task, dimensions=dimensions), looks=looks)  # type: ignore[arg-type]
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
    swarm, _ = run(charter, sites, tmp_path, tamper=keeping_all)
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
    assert audit(tmp_path, charter, 1) == []


def test_who_is_slow_scores_when_it_can_and_holds_nobody_up(tmp_path: Path) -> None:
    charter, sites = judged(MEMBERS, rounds=3)
    plain, plain_sites = swarm_of(MEMBERS, rounds=3, aggregation='weighting = "samples"', **SHORT)
    _, without_s = run(plain, plain_sites, fresh(tmp_path / "off"), train_s={SLOW: 3.0})
    swarm, with_s = run(charter, sites, fresh(tmp_path / "on"), train_s={SLOW: 3.0})
    assert swarm.failures == []
    # In simulations everything is computed one after the other, and scoring costs as training does.
    assert with_s < 1.5 * without_s, (with_s, without_s)
    state = insight_of(tmp_path / "on", charter, SLOW).reputation
    unrevealed = [p for out in state.rounds for line in out.members for p in line.penalties]
    assert unrevealed == []


def test_a_node_killed_between_commit_and_reveal_opens_what_it_hid(tmp_path: Path) -> None:
    charter, sites = judged(MEMBERS, rounds=4)
    killed: list[int] = []

    def tamper(index: int, service: Service) -> None:
        if index == VICTIM and not killed:
            service.judging.open = trio.sleep_forever  # type: ignore[method-assign]

    async def trouble(swarm: Swarm) -> None:
        while not killed:
            await trio.sleep(0.01)
            service = swarm.services.get(VICTIM)
            if service is not None and service.judging._seq is not None:
                await swarm.kill(VICTIM)
                killed.append(service.machine.round)
                await trio.sleep(0.5)
                swarm.start(VICTIM)

    swarm, _ = run(charter, sites, tmp_path, tamper=tamper, faults=trouble)
    assert swarm.failures == []
    assert killed
    records = [one for one in records_of(tmp_path, charter, 0) if one.value.author == VICTIM]
    commits = [one.value.seq for one in records if one.value.kind == Kind.EVALUATION_COMMIT]
    opened = [
        one.value.body.commit_seq for one in records if isinstance(one.value.body, EvaluationReveal)
    ]
    assert commits == opened
    assert len(commits) >= 2
    assert_every_bundle_verifies(tmp_path, charter, MEMBERS)


def test_a_false_sketch_is_refused_by_all_costs_and_is_shown_by_the_payloads(
    tmp_path: Path,
) -> None:
    charter, sites = judged(MEMBERS, rounds=4)

    def tamper(index: int, service: Service) -> None:
        keeping_all(index, service)
        judge = service._hospital.judge
        if index == LIAR and judge is not None:
            honest = judge.sketch
            judge.sketch = lambda pairs, seed: tuple(  # type: ignore[method-assign]
                replace(one, values=tuple(reversed(one.values))) for one in honest(pairs, seed)
            )

    swarm, _ = run(charter, sites, tmp_path, tamper=tamper)
    assert swarm.failures == []
    records = records_of(tmp_path, charter, 0)
    shown = {one.id: one.value.author for one in records if isinstance(one.value.body, Sketch)}
    refusals = {
        (one.value.author, shown[one.value.body.target_id])
        for one in records
        if isinstance(one.value.body, Rejection)
    }
    honest = set(range(MEMBERS)) - {LIAR}
    # The liar projects what others show falsely too, and is alone with it: nobody is blamed.
    assert refusals == {(one, LIAR) for one in honest} | {(LIAR, one) for one in honest}
    insight = insight_of(tmp_path, charter, 1)
    assert {
        (line.member, one.proof.offence)
        for out in insight.reputation.rounds
        for line in out.members
        for one in line.penalties
    } == {(LIAR, Offence.FALSE_SKETCH)}
    assert [found[1:] for found in audit(tmp_path, charter, 1)] == [("E_SKETCH", LIAR)]


def test_above_evaluators_max_a_drawn_panel_scores(tmp_path: Path) -> None:
    charter, sites = judged(MEMBERS, extra="evaluators_max = 3\n", rounds=4)
    swarm, _ = run(charter, sites, tmp_path)
    assert swarm.failures == []
    by_round: defaultdict[int, set[int]] = defaultdict(set)
    for one in records_of(tmp_path, charter, 0):
        if isinstance(one.value.body, EvaluationReveal):
            by_round[one.value.round].add(one.value.author)
    assert [len(by_round[round_]) for round_ in range(2, 5)] == [3] * 3
    assert len(set(map(frozenset, by_round.values()))) > 1
    insight = insight_of(tmp_path, charter, 2)
    assert {out.votes_needed for out in insight.reputation.rounds} == {1}
    assert all(
        line.score_micro is not None
        for out in insight.reputation.rounds[1:]
        for line in out.members
    )
    assert_every_bundle_verifies(tmp_path, charter, MEMBERS)


def test_node_and_auditor_say_the_same_of_everybody(tmp_path: Path) -> None:
    charter, sites = judged(MEMBERS, rounds=4, looks=True)
    swarm, _ = run(charter, sites, tmp_path)
    assert swarm.failures == []
    seen = [swarm.services[index].overview for index in range(MEMBERS)]
    facts = [overview_facts(one.insight) for one in seen]
    assert all(one is not None and one["round"] == 4 for one in facts)
    target = fresh(tmp_path / "audit")
    with Store.open(tmp_path / "2.db", read_only=True) as store:
        bundle = export_bundle(store, charter.source_bytes, target / "bundle")
    (target / "claim.json").write_text(json.dumps(facts[1]))
    claim = read_claim(target / "claim.json")
    report = verify_bundles(
        [bundle], charter.source_bytes, charter.digest_hex, brought=Brought(reputation=claim)
    )
    assert report.verdict == "VERIFIED", report.to_text()
    claim[1] += 1
    report = verify_bundles(
        [bundle], charter.source_bytes, charter.digest_hex, brought=Brought(reputation=claim)
    )
    assert [one.error.code for one in report.findings] == ["E_REPUTATION"]


def test_weights_follow_reputation_within_bounds_and_the_auditor_gets_them(tmp_path: Path) -> None:
    extra = "weight_floor = 0.5\nweight_ceiling = 2.0\n"
    charter, sites = judged(MEMBERS, mode="weigh", extra=extra, rounds=6)
    swarm, _ = run(charter, sites, tmp_path)
    assert swarm.failures == []
    book = swarm.services[0].book
    assert book.agreed_rounds() == tuple(range(7))
    samples = [book.offers(1)[author].samples for author in range(MEMBERS)]
    plain = dict(enumerate(weights_micro(samples, charter.aggregation)))
    for round_ in range(1, 7):
        agreed = book.agreed(round_)
        assert agreed is not None
        weights = {one.author: one.weight_micro for one in agreed.proposal.inputs}
        assert (weights == plain) is (round_ < 4), (round_, weights, plain)
    assert_every_bundle_verifies(tmp_path, charter, MEMBERS)


def test_who_weighs_otherwise_than_reputation_says_is_found(tmp_path: Path) -> None:
    charter, sites = judged(MEMBERS, mode="weigh", rounds=5)

    def tamper(index: int, service: Service) -> None:
        if index == LIAR:
            service.weighing._ceiling = service.weighing._floor

    swarm, _ = run(charter, sites, tmp_path, tamper=tamper)
    assert not [text for text in swarm.failures if "hospital-d" not in text], swarm.failures
    with Store.open(tmp_path / "0.db", read_only=True) as store:
        bundle = export_bundle(store, charter.source_bytes, tmp_path / "bundle")
    report = verify_bundles([bundle], charter.source_bytes, charter.digest_hex)
    found = [(one.step, one.error.code, one.error.author) for one in report.findings]
    assert found == [(12, "E_AGG_WEIGHT", LIAR)]


def test_below_the_floor_a_member_gets_everything_later_and_holds_nobody_up(
    tmp_path: Path,
) -> None:
    charter, sites = judged(MEMBERS, extra="access_floor = 0.499\n", rounds=8, looks=True)
    low: list[int] = []

    async def at_the_end(swarm: Swarm) -> None:
        def running() -> list[int]:
            return [index for index, one in swarm.ended.items() if not one.is_set()]

        # The last model stays withheld: somebody stops that node.
        while len(running()) > 1:  # noqa: ASYNC110 - any three of four
            await trio.sleep(1)
        low.extend(running())
        for index in low:
            await swarm.kill(index)

    swarm, _ = run(charter, sites, tmp_path, faults=at_the_end)
    assert swarm.failures == []
    assert len(low) == 1
    others = set(range(MEMBERS)) - set(low)
    for index in others:
        service = swarm.services[index]
        assert service.machine.phase is Phase.DONE
        assert service.access.below == set(low)
        newest, older = (service.book.agreed(round_) for round_ in (8, 4))
        assert newest is not None
        assert older is not None
        assert service.access.withholds(low[0], newest.proposal.result)
        assert not service.access.withholds(low[0], older.proposal.result)
    assert newest.proposal.result not in swarm.services[low[0]].transfer.blobs.stored()
    late = swarm.services[low[0]].book.last_offer_round(low[0])
    assert late > 4, "it went on with the models that it got"
    assert_every_bundle_verifies(tmp_path, charter, MEMBERS)


def test_below_a_proven_fork_reputation_moves_no_weight_at_any_node(tmp_path: Path) -> None:
    """Who was shown the longer branch would weigh by reputation, and who was not would not."""
    charter, sites = judged(MEMBERS, mode="weigh", rounds=6)
    hub = MemoryHub(seed=SEED)
    liar = sites[LIAR].identity.ledger()
    forked = in_round(Kind.CONTRIBUTION, 4)
    world = WithLiar(hub, tmp_path, charter, liar, is_forked=forked, fooled=(1,))
    swarm = Swarm(charter, sites, tmp_path, hub, SEED, world)
    swarm.run_to_end(until_honest_end, virtual_s_max=VIRTUAL_S_MAX)
    assert swarm.failures == []
    honest = [one for index, one in swarm.services.items() if index != LIAR]
    for service in honest:
        assert service.journal.forks.is_told((LIAR, 0))
        for round_ in (4, 5, 6):
            agreed = service.book.agreed(round_)
            assert agreed is not None, round_
            inputs = agreed.proposal.inputs
            samples = [service.book.offers(round_)[one.author].samples for one in inputs]
            assert [one.weight_micro for one in inputs] == weights_micro(
                samples, charter.aggregation
            )
    for index in range(LIAR):
        with Store.open(tmp_path / f"{index}.db", read_only=True) as store:
            bundle = export_bundle(store, charter.source_bytes, tmp_path / f"bundle-{index}")
        report = verify_bundles([bundle], charter.source_bytes, charter.digest_hex)
        assert report.findings == ()
