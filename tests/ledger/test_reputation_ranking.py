"""The arithmetic: bounded, monotone, the same for any order, and out of reach of f liars."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.ranking import (
    MICRO,
    agreement_micro,
    lower_weighted_median,
    ranks_micro,
    score_of,
    step_towards,
    weight_micro,
)

changes = st.integers(-(2**53), 2**53) | st.integers(-3, 3)
score_lists = st.lists(changes, min_size=2, max_size=12).flatmap(
    lambda values: st.permutations(range(len(values))).map(
        lambda order: [(value, bytes([at])) for value, at in zip(values, order, strict=True)]
    )
)
micros = st.integers(0, MICRO)
votes_lists = st.lists(st.tuples(micros, st.integers(1, MICRO)), min_size=1, max_size=15)


@given(score_lists, st.randoms())
def test_ranks_do_not_depend_on_the_order(scores: list[tuple[int, bytes]], rng: object) -> None:
    order = list(range(len(scores)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    ranks = ranks_micro(scores)
    assert ranks_micro([scores[at] for at in order]) == [ranks[at] for at in order]


@given(score_lists)
def test_ranks_fill_the_scale_and_follow_change_then_id(scores: list[tuple[int, bytes]]) -> None:
    ranks = ranks_micro(scores)
    assert sorted(ranks) == [at * MICRO // (len(scores) - 1) for at in range(len(scores))]
    assert [s for _, s in sorted(zip(ranks, scores, strict=True))] == sorted(scores)


@given(score_lists, st.data())
def test_a_better_change_never_lowers_the_own_rank_nor_raises_anothers(
    scores: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(scores) - 1))
    better = list(scores)
    better[at] = (scores[at][0] + data.draw(st.integers(0, 2**53)), scores[at][1])
    before, after = ranks_micro(scores), ranks_micro(better)
    assert after[at] >= before[at]
    assert all(after[i] <= before[i] for i in range(len(scores)) if i != at)


@given(votes_lists, st.randoms())
def test_the_median_is_a_vote_with_half_the_weight_on_either_side(
    votes: list[tuple[int, int]], rng: object
) -> None:
    median = lower_weighted_median(votes)
    total = sum(weight for _, weight in votes)
    assert 2 * sum(weight for rank, weight in votes if rank <= median) >= total
    assert 2 * sum(weight for rank, weight in votes if rank < median) < total
    rng.shuffle(votes)  # type: ignore[attr-defined]
    assert lower_weighted_median(votes) == median


@given(votes_lists, st.data())
def test_a_higher_vote_never_lowers_the_score(
    votes: list[tuple[int, int]], data: st.DataObject
) -> None:
    tolerated = data.draw(st.integers(0, (len(votes) - 1) // 2))
    at = data.draw(st.integers(0, len(votes) - 1))
    rank, weight = votes[at]
    raised = [*votes[:at], (data.draw(st.integers(rank, MICRO)), weight), *votes[at + 1 :]]
    assert score_of(raised, tolerated=tolerated) >= score_of(votes, tolerated=tolerated)


@given(
    st.integers(0, 5).flatmap(
        lambda f: st.tuples(
            st.just(f),
            st.lists(st.tuples(micros, st.integers(1, MICRO)), min_size=f + 1, max_size=12),
            st.lists(st.tuples(micros, st.integers(1, MICRO)), min_size=f, max_size=f),
        )
    )
)
def test_f_liars_never_move_a_score_out_of_what_honest_evaluators_said(
    case: tuple[int, list[tuple[int, int]], list[tuple[int, int]]],
) -> None:
    tolerated, honest, liars = case
    said = [rank for rank, _ in honest]
    assert min(said) <= score_of(honest + liars, tolerated=tolerated) <= max(said)


@given(st.lists(micros, min_size=1, max_size=9), st.integers(1, MICRO))
def test_equal_weights_give_the_plain_lower_median(ranks: list[int], weight: int) -> None:
    median = sorted(ranks)[(len(ranks) - 1) // 2]
    assert lower_weighted_median([(rank, weight) for rank in ranks]) == median


@given(st.lists(st.tuples(micros, st.integers(1, MICRO)), min_size=1, max_size=9))
def test_with_as_few_votes_as_allowed_weights_do_not_matter(votes: list[tuple[int, int]]) -> None:
    votes = votes[: len(votes) - 1 + len(votes) % 2]
    middle = sorted(rank for rank, _ in votes)[len(votes) // 2]
    assert score_of(votes, tolerated=len(votes) // 2) == middle


@given(st.integers(0, 2**60), st.integers(0, 2**20), st.integers(1, 9), micros, micros)
def test_agreement_and_weight_are_bounded_and_fall_with_distance(
    distance: int, count: int, slope: int, unknown: int, floor: int
) -> None:
    agreement = agreement_micro(distance, count, slope=slope, unknown=unknown)
    assert 0 <= agreement <= MICRO
    assert agreement_micro(distance + 1, count, slope=slope, unknown=unknown) <= agreement
    assert floor <= weight_micro(agreement, floor=floor) <= MICRO
    assert weight_micro(0, floor=floor) == floor
    assert weight_micro(MICRO, floor=floor) == MICRO


def test_an_evaluator_without_ranks_has_the_unknown_agreement() -> None:
    assert agreement_micro(0, 0, slope=3, unknown=500_000) == 500_000
    assert agreement_micro(0, 1, slope=3, unknown=500_000) == MICRO


@given(micros, micros, st.integers(1, 100))
def test_a_step_stays_between_value_and_score(value: int, score: int, divisor: int) -> None:
    after = value + step_towards(value, score, divisor=divisor)
    assert min(value, score) <= after <= max(value, score)
    assert (after == value) == (score == value or 0 < score - value < divisor)


@given(micros, micros, micros, micros, st.integers(1, 100))
def test_steps_keep_order(value: int, other: int, score: int, better: int, divisor: int) -> None:
    low, high = sorted((value, other))
    worse, good = sorted((score, better))
    after = [v + step_towards(v, c, divisor=divisor) for v, c in ((low, worse), (high, good))]
    assert after[0] <= after[1]


@pytest.mark.parametrize(("value", "score", "step"), [(500_000, 0, -31_250), (1, 0, -1),
    (16, 0, -1), (17, 0, -2), (0, 15, 0), (0, 16, 1), (0, MICRO, 62_500)])  # fmt: skip
def test_a_step_rounds_down(value: int, score: int, step: int) -> None:
    assert step_towards(value, score, divisor=16) == step


@pytest.mark.parametrize("scores", [[], [(1, b"a")], [(1, b"a"), (2, b"a")]])
def test_ranks_need_two_contributions(scores: list[tuple[int, bytes]]) -> None:
    with pytest.raises(ValueError, match="ranks need"):
        ranks_micro(scores)


@pytest.mark.parametrize("votes", [[], [(1, 0)], [(1, -1), (1, 5)]])
def test_a_median_needs_weight(votes: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="median needs"):
        lower_weighted_median(votes)


@pytest.mark.parametrize(("votes", "tolerated"), [([(1, 1)] * 2, 1), ([], 0), ([(1, 1)], -1)])
def test_a_score_needs_2f_plus_1_votes(votes: list[tuple[int, int]], tolerated: int) -> None:
    with pytest.raises(ValueError, match="votes"):
        score_of(votes, tolerated=tolerated)
