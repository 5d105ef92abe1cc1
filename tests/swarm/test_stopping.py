"""The released model is the best agreed one, found without looking past the patience."""

import pytest

from swarm.learning.stopping import RoundLoss, mean_loss, released_round


def losses(*values: float) -> dict[int, RoundLoss]:
    return {at: RoundLoss(loss=value, count=10) for at, value in enumerate(values, start=1)}


def test_loss_is_weighted_by_patients() -> None:
    mean = mean_loss([(0.2, 90), (0.7, 10)])
    assert mean is not None
    assert (mean.loss, mean.count) == (pytest.approx(0.25), 100)
    assert mean_loss([]) is None


def test_without_patience_the_last_round_is_released() -> None:
    assert released_round(losses(0.3, 0.1, 0.5), patience=0) == 3


def test_the_best_round_before_patience_ran_out_is_released() -> None:
    assert released_round(losses(0.6, 0.5, 0.4, 0.45, 0.44), patience=2) == 3
    # A better model after the stop was never trained.
    assert released_round(losses(0.6, 0.5, 0.55, 0.56, 0.1), patience=2) == 2
    assert released_round(losses(0.6, 0.5, 0.55, 0.1), patience=3) == 4


def test_of_equals_the_earlier_is_released_and_unmeasured_rounds_are_passed_over() -> None:
    assert released_round(losses(0.5, 0.4, 0.4), patience=5) == 2
    some = {2: RoundLoss(loss=0.5, count=1), 5: RoundLoss(loss=0.4, count=1)}
    assert released_round(some, patience=9) == 5
    with pytest.raises(ValueError, match="no round"):
        released_round({}, patience=1)
