"""Nothing that one hospital does, or suffers, stops the others: whole swarms on paper, fault by fault."""

from functools import partial
from itertools import pairwise
from random import Random

import pytest

from ledger.record import Reason
from swarm.protocol.phases import Phase
from swarm.protocol.stalls import Stalls, Standing
from tests.swarm.protocol.paper_swarm import PaperSwarm

LIAR = 3


def lasted_s(swarm: PaperSwarm, index: int = 0) -> list[float]:
    starts = [at for at, what in swarm[index].log if what.endswith("TRAIN")]
    return [after - before for before, after in pairwise(starts)]


def usual_s() -> float:
    swarm = PaperSwarm(4, rounds=5)
    swarm.run(500)
    return max(lasted_s(swarm))


def assert_done(swarm: PaperSwarm, *, rounds: int) -> None:
    assert swarm.done(), swarm.course()
    assert len(swarm.models()) == 1, swarm.course()
    for site in swarm.sites:
        if site.alive:
            assert site.machine.book.agreed(rounds) is not None, swarm.course()


# Who offers and does not serve


def test_who_offers_and_never_serves_costs_one_grace_and_not_a_deadline_every_round() -> None:
    swarm = PaperSwarm(4, rounds=12)
    swarm[LIAR].serves = False
    swarm.run(3_000)
    assert_done(swarm, rounds=12)
    first, *others = lasted_s(swarm)
    grace_s = swarm.federation.charter.rounds.grace_s
    assert first < usual_s() + 2 * grace_s
    assert max(others) < usual_s() + grace_s, swarm.course()
    for _, body in swarm.merges(0):
        assert [(one.author, one.reason) for one in body.left_out] == [(LIAR, Reason.NOT_RECEIVED)]


def test_who_serves_again_is_merged_again_without_asking() -> None:
    swarm = PaperSwarm(4, rounds=20)
    swarm[LIAR].serves = False
    swarm.run(15)
    swarm[LIAR].serves = True
    swarm.run(3_000)
    assert_done(swarm, rounds=20)
    assert all(LIAR in inputs for round_, inputs in swarm.agreed().items() if round_ > 12)


def test_who_serves_one_member_only_is_merged_through_that_one() -> None:
    """Whoever holds a payload serves it: withholding from some is withholding from nobody."""
    swarm = PaperSwarm(4, rounds=6)
    swarm[LIAR].serves_only = frozenset({1})
    swarm.run(500)
    assert_done(swarm, rounds=6)
    assert all(len(inputs) == 4 for inputs in swarm.agreed().values())


def test_a_download_that_does_not_move_is_told_from_a_slow_one() -> None:
    look = partial(Stalls().look, grace_s=10)
    unknown, known = {b"a": Standing(0, False)}, {b"a": Standing(0, True)}
    assert look(unknown, now_s=0) == frozenset()
    assert look(unknown, now_s=9.9) == frozenset()
    assert look(unknown, now_s=10) == {b"a"}
    assert look(known, now_s=11) == frozenset(), "somebody serves the manifest"
    assert look(known, now_s=40) == frozenset()
    assert look(known, now_s=41) == {b"a"}
    assert look({b"a": Standing(1, True)}, now_s=42) == frozenset(), "it moves"
    assert look({}, now_s=43) == frozenset()
    assert look(known, now_s=90) == frozenset(), "begun anew"


# A slow line


@pytest.mark.parametrize("fetch_s", [4.0, 6.0, 15.0])
def test_a_member_on_a_slow_line_finishes_its_downloads_and_contributes(fetch_s: float) -> None:
    swarm = PaperSwarm(4, rounds=60)
    swarm[LIAR].fetch_s = fetch_s
    swarm.run(4_000)
    assert_done(swarm, rounds=60)
    merged = [round_ for round_, inputs in swarm.agreed().items() if LIAR in inputs]
    assert len(merged) > 8, swarm.course()
    assert max(merged) > 50, "to the end"
    models = [record for record in swarm.federation[LIAR].records if record.value.kind == 6]
    assert len(models) > 8, "and evaluates, round after round"


def test_a_download_under_way_is_not_dropped_for_a_newer_one() -> None:
    swarm = PaperSwarm(4, rounds=30, deadline_max_s=6.0)
    swarm[LIAR].fetch_s = 20
    swarm.run(4_000)
    phases = [what.split()[1] for _, what in swarm[LIAR].log]
    for before, after in pairwise(phases):
        assert (before, after) != ("CATCH_UP", "CATCH_UP"), swarm.course()
    assert phases.count("CATCH_UP") >= 3


# Lost, and back


@pytest.mark.parametrize("seed", range(12))
def test_one_member_killed_at_any_time_costs_no_completed_round_and_rejoins(seed: int) -> None:
    random = Random(seed)
    victim = random.randrange(4)
    swarm = PaperSwarm(4, seed=seed, rounds=12, has_moments=True, jitter_s=0.5)
    swarm.run(random.random() * 15)
    swarm.kill(victim)
    before = swarm.agreed((victim + 1) % 4)
    swarm.run(swarm.now_s + random.random() * 30)
    swarm.restart(victim)
    swarm.run(3_000)
    assert_done(swarm, rounds=12)
    after = swarm.agreed(victim)
    assert {round_: after.get(round_) for round_ in before} == before, "no completed round undone"


def test_members_min_keeps_a_thin_round_open_until_somebody_is_back() -> None:
    swarm = PaperSwarm(4, rounds=6, members_min=3)
    swarm.run(4)
    swarm.kill(2)
    swarm.kill(3)
    swarm.run(300)
    assert {site.machine.phase for site in swarm.sites[:2]} == {Phase.COLLECT}
    swarm.restart(2)
    swarm.restart(3)
    swarm.run(3_000)
    assert_done(swarm, rounds=6)


# Both sides of a cut


@pytest.mark.parametrize("seed", range(4))
def test_both_sides_of_a_cut_go_on_and_healing_needs_nobody(seed: int) -> None:
    swarm = PaperSwarm(7, seed=seed, rounds=20, members_min=2)
    swarm.run(8)
    before = {index: swarm.agreed(index) for index in range(7)}
    swarm.partition({0, 1, 2}, {3, 4, 5, 6})
    swarm.run(80)
    for index in (0, 3):
        merged = swarm.merges(index)[-1]
        assert merged[0] > max(before[index]), "each side goes on, provisional"
        assert max(swarm.agreed(index)) <= max(before[index]) + 1
    swarm.heal()
    swarm.run(3_000)
    assert_done(swarm, rounds=20)
    for index in range(7):
        after = swarm.agreed(index)
        assert {round_: after[round_] for round_ in before[index]} == before[index]
    assert set(swarm.agreed()[20]) == set(range(7)), "everybody is in the last round again"


def test_a_side_with_too_few_waits_and_the_other_goes_on_agreed() -> None:
    swarm = PaperSwarm(4, rounds=20, members_min=3)
    swarm.run(8)
    swarm.partition({0}, {1, 2, 3})
    swarm.run(50)
    assert swarm[0].machine.phase is Phase.COLLECT
    assert max(swarm.agreed(1)) > max(swarm.agreed(0))
    swarm.heal()
    swarm.run(3_000)
    assert_done(swarm, rounds=20)


# Required


def test_a_run_fails_loudly_without_a_required_member() -> None:
    swarm = PaperSwarm(4, rounds=8, required='["hospital-d"]')
    swarm.run(4)
    swarm.kill(3)
    swarm.run(2_000)
    assert [site.failure for site in swarm.sites[:3]] == [("hospital-d",)] * 3
    assert swarm.now_s < 4 + 60 + 20, "after the longest wait, not for ever"
    assert all(len(inputs) == 4 for inputs in swarm.agreed().values())


def test_a_required_member_that_is_slow_is_no_failure() -> None:
    swarm = PaperSwarm(4, rounds=5, required='["hospital-d"]')
    swarm[3].train_s = 50
    swarm.run(2_000)
    assert_done(swarm, rounds=5)
    assert not any(site.failure for site in swarm.sites)


# Newcomers


@pytest.mark.parametrize("newcomers", ["model_first", "contribution_first"])
def test_a_newcomer_contributes_from_the_next_round_on(newcomers: str) -> None:
    swarm = PaperSwarm(
        5, rounds=20, absent=[4], newcomers=f'"{newcomers}"', start_wait_s=2.0, has_moments=True
    )
    swarm.run(15)
    reached = max(swarm.agreed())
    swarm.restart(4)
    swarm.run(3_000)
    assert_done(swarm, rounds=20)
    first = next(record for record in swarm.federation[4].records if record.value.kind == 2)
    assert reached < first.value.round <= reached + 3
    base = first.value.body.base_digest  # type: ignore[union-attr]
    assert swarm[0].machine.book.is_result(base) == (newcomers == "model_first")
    assert all(4 in inputs for round_, inputs in swarm.agreed().items() if round_ > reached + 4)


def test_models_are_withheld_from_who_has_not_contributed_where_the_charter_says_so() -> None:
    for newcomers in ("model_first", "contribution_first"):
        swarm = PaperSwarm(
            5, rounds=3, absent=[4], newcomers=f'"{newcomers}"', start_wait_s=2.0, has_moments=True
        )
        swarm.run(300)
        book = swarm[0].machine.book
        agreed = [book.agreed(round_) for round_ in (0, 3)]
        may = [book.may_fetch(4, one.proposal.result) for one in agreed if one]
        assert may == [True, newcomers == "model_first"], "moments are for everybody"
