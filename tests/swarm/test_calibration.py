"""Expected calibration error: zero for honest chances, the gap for others."""

import numpy as np
import pytest

from swarm.learning.metrics import ece


def logits(chance: np.ndarray) -> np.ndarray:
    return np.log(chance / (1 - chance))


def test_honest_chances_have_no_error_and_boasts_have_their_gap() -> None:
    labels = np.array([1] * 7 + [0] * 3)
    assert ece(logits(np.full(10, 0.7)), labels, "binary") == pytest.approx(0.0, abs=1e-12)
    assert ece(logits(np.full(10, 0.9)), labels, "binary") == pytest.approx(0.2)


def test_bins_do_not_cancel_each_other() -> None:
    chance = np.array([0.1] * 10 + [0.9] * 10)
    labels = np.array([1] * 5 + [0] * 5 + [1] * 5 + [0] * 5)
    assert ece(logits(chance), labels, "binary") == pytest.approx(0.4)


def test_several_classes_are_judged_by_the_guess() -> None:
    scores = np.log(np.array([[0.62, 0.28, 0.1]] * 10))
    labels = np.array([0] * 6 + [1] * 4)
    assert ece(scores, labels, "multiclass") == pytest.approx(0.02)
    assert ece(scores, np.full(10, 2), "multiclass") == pytest.approx(0.62)


def test_a_diverged_model_still_has_a_number_and_a_regression_has_none() -> None:
    assert ece(np.array([np.inf, -np.inf, np.nan]), np.array([0, 1, 1]), "binary") <= 1.0
    with pytest.raises(ValueError, match="chances"):
        ece(np.zeros(2), np.zeros(2), "regression")
