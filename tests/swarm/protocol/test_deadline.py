"""How long each member is waited for, and who is not waited for any more."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.record import Reason
from swarm.protocol.deadline import ROUNDS_REMEMBERED, AdaptiveDeadline
from tests.federation import Federation
from tests.swarm.protocol.paper_swarm import PaperSwarm

POLICY = Federation(2, deadline_min_s=5.0, deadline_max_s=60.0, deadline_factor=3.0).charter.rounds
SLOW = 3


def deadline_after(*durations_s: float) -> float:
    deadline = AdaptiveDeadline(POLICY)
    for duration_s in durations_s:
        deadline.observe(SLOW, duration_s)
    return deadline.wait_s(SLOW)


def test_the_first_round_may_take_the_longest() -> None:
    assert deadline_after() == 60


def test_a_slow_but_living_hospital_is_waited_for() -> None:
    assert deadline_after(2, 2, 2) == 6
    assert deadline_after(2, 12, 12) == 36


def test_one_odd_round_changes_nothing() -> None:
    assert deadline_after(2, 2, 2, 2, 1_000) == 6
    assert deadline_after(4, 4, 0, 4, 4) == 12


def test_only_the_newest_rounds_count() -> None:
    assert deadline_after(*[20] * 10, *[2] * ROUNDS_REMEMBERED) == 6


def test_everybody_has_a_pace_of_his_own() -> None:
    deadline = AdaptiveDeadline(POLICY)
    deadline.observe(0, 2)
    deadline.observe(SLOW, 15)
    assert (deadline.wait_s(0), deadline.wait_s(SLOW)) == (6, 45)


def test_a_stranger_is_waited_for_like_the_slowest_after_the_first_round() -> None:
    deadline = AdaptiveDeadline(POLICY)
    deadline.begin_round()
    deadline.observe(0, 2)
    deadline.observe(1, 8)
    assert deadline.wait_s(SLOW) == 60, "the first round is not over"
    deadline.begin_round()
    assert deadline.wait_s(SLOW) == 24


@given(st.lists(st.floats(0, 1e9), max_size=12))
def test_the_charters_bounds_hold_whatever_was_measured(durations_s: list[float]) -> None:
    assert 5 <= deadline_after(*durations_s) <= 60


# Whole swarms


def lasted_s(swarm: PaperSwarm) -> list[float]:
    """How long each round lasted for member 0."""
    starts = [at for at, what in swarm[0].log if what.endswith("TRAIN")]
    return [after - before for before, after in pairwise(starts)]


def merged_of(swarm: PaperSwarm, author: int) -> dict[int, int]:
    """Agreed round → round of the contribution of ``author`` in it."""
    return {r: inputs[author] for r, inputs in swarm.agreed().items() if author in inputs}


@pytest.mark.parametrize("train_s", [12.0, 20.0, 40.0])
def test_a_hospital_that_becomes_slower_is_soon_waited_for_again(train_s: float) -> None:
    swarm = PaperSwarm(4, rounds=60)
    swarm.run(8)
    swarm[SLOW].train_s = train_s
    swarm.run(4_000)
    assert swarm.done(), swarm.course()
    assert {r: merged_of(swarm, SLOW).get(r) for r in range(58, 61)} == {
        r: r for r in range(58, 61)
    }, swarm.course()
    assert max(lasted_s(swarm)) < 61


def test_a_hospital_that_becomes_faster_again_holds_nobody_up() -> None:
    swarm = PaperSwarm(4, rounds=20)
    swarm[SLOW].train_s = 20
    swarm.run(100)
    swarm[SLOW].train_s = 1
    swarm.run(4_000)
    assert max(lasted_s(swarm)[-8:]) < 3


def test_a_hospital_that_hangs_costs_some_rounds_and_then_nothing() -> None:
    swarm = PaperSwarm(4, rounds=20)
    swarm.run(8)
    swarm.kill(SLOW)
    swarm.run(4_000)
    assert swarm.done(), swarm.course()
    slow = [seconds for seconds in lasted_s(swarm) if seconds > 3]
    inactive_after = swarm.federation.charter.rounds.inactive_after_rounds
    assert len(slow) <= inactive_after
    assert max(slow) < 10, "its usual time within the bounds, and a grace for its turn"


def test_a_hospital_that_hangs_from_the_first_round_costs_one_longest_wait() -> None:
    swarm = PaperSwarm(4, rounds=20)
    swarm.run(1.5)
    swarm.kill(SLOW)
    swarm.run(4_000)
    slow = [seconds for seconds in lasted_s(swarm) if seconds > 10]
    assert len(slow) == 1, "not one an hour, round after round"


def test_a_hospital_that_was_gone_for_long_is_back_without_asking() -> None:
    swarm = PaperSwarm(4, rounds=40)
    swarm.run(8)
    swarm.kill(SLOW)
    swarm.run(40)
    swarm.restart(SLOW)
    swarm.run(4_000)
    merged = merged_of(swarm, SLOW)
    assert set(range(35, 41)) <= merged.keys(), swarm.course()
    reasons = {
        reason for _, body in swarm.merges(0) for one in body.left_out for reason in [one.reason]
    }
    assert reasons <= {Reason.NOT_RECEIVED, Reason.INACTIVE, Reason.SUPERSEDED}


def test_training_that_takes_long_is_not_judged_by_the_pace_of_round_zero() -> None:
    """Sums and squares are there at once; the first model is not."""
    swarm = PaperSwarm(4, rounds=2, has_moments=True)
    for site, train_s in zip(swarm.sites, (20, 30, 40, 50), strict=True):
        site.train_s = train_s
    swarm.run(4_000)
    everybody: Sequence[int] = range(4)
    assert all(set(inputs) == set(everybody) for inputs in swarm.agreed().values())
