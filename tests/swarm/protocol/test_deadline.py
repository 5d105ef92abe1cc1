"""How long a round waits."""

from hypothesis import given
from hypothesis import strategies as st

from swarm.protocol.deadline import ROUNDS_REMEMBERED, AdaptiveDeadline
from tests.federation import Federation

POLICY = Federation(2, deadline_min_s=5.0, deadline_max_s=60.0, deadline_factor=3.0).charter.rounds


def deadline_after(*durations_s: float) -> float:
    deadline = AdaptiveDeadline(POLICY)
    for duration_s in durations_s:
        deadline.observe(duration_s)
    return deadline.duration_s()


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


@given(st.lists(st.floats(0, 1e9), max_size=12))
def test_the_charters_bounds_hold_whatever_was_measured(durations_s: list[float]) -> None:
    assert 5 <= deadline_after(*durations_s) <= 60
