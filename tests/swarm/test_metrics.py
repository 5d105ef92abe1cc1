import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    f1_score,
    log_loss,
    mean_absolute_error,
    mean_squared_error,
    roc_auc_score,
)

from ledger.record import MetricId, Metrics, MetricValue
from swarm.learning.metrics import MICRO, auc, evaluate

U53_MAX = (1 << 53) - 1


def micro(values: list[MetricValue]) -> dict[int, float]:
    return {value.metric: value.micro / MICRO for value in values}


def ece_by_hand(chance: np.ndarray, happened: np.ndarray) -> float:
    bins = [(chance >= low / 15) & (chance < (low + 1) / 15) for low in range(15)]
    gaps = [abs(chance[b].mean() - happened[b].mean()) * b.mean() for b in bins if b.any()]
    return float(sum(gaps))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=60))
def test_the_area_under_the_curve_is_sklearns_with_ties(rows: list[tuple[int, bool]]) -> None:
    scores = np.array([float(score) for score, _ in rows])
    labels = np.array([label for _, label in rows])
    if labels.all() or not labels.any():
        assert np.isnan(auc(scores, labels))
    else:
        assert auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))


def test_binary_metrics_are_sklearns() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(size=200)
    labels = (scores + generator.normal(size=200) > 0).astype(np.int64)
    probability = 1 / (1 + np.exp(-scores))
    found = micro(evaluate(scores[:, None], labels, "binary", seed=1))
    assert found == pytest.approx(
        {
            MetricId.AUC: roc_auc_score(labels, scores),
            MetricId.LOG_LOSS: log_loss(labels, probability),
            MetricId.ACCURACY: accuracy_score(labels, scores > 0),
            MetricId.BRIER: brier_score_loss(labels, probability),
            MetricId.MACRO_F1: f1_score(labels, scores > 0, average="macro"),
            MetricId.ECE: ece_by_hand(probability, labels),
        },
        abs=1e-6,
    )


def test_multiclass_metrics_are_sklearns() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 150)
    scores = generator.normal(size=(150, 3)) + np.eye(3)[labels]
    probability = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    found = micro(evaluate(scores, labels, "multiclass", seed=1))
    assert found == pytest.approx(
        {
            MetricId.AUC: roc_auc_score(labels, probability, multi_class="ovr"),
            MetricId.LOG_LOSS: log_loss(labels, probability),
            MetricId.ACCURACY: accuracy_score(labels, scores.argmax(axis=1)),
            MetricId.MACRO_F1: f1_score(labels, scores.argmax(axis=1), average="macro"),
            MetricId.ECE: ece_by_hand(probability.max(axis=1), scores.argmax(axis=1) == labels),
        },
        abs=1e-6,
    )


def test_regression_metrics_are_sklearns() -> None:
    generator = np.random.default_rng(0)
    labels = generator.normal(size=100)
    scores = labels + generator.normal(size=100)
    assert micro(evaluate(scores[:, None], labels, "regression", seed=1)) == pytest.approx(
        {
            MetricId.MSE: mean_squared_error(labels, scores),
            MetricId.MAE: mean_absolute_error(labels, scores),
        },
        abs=1e-6,
    )


def test_auc_with_one_class_is_left_out_and_the_rest_stays() -> None:
    found = evaluate(np.array([0.1, 0.9]), np.array([1, 1]), "binary", seed=0)
    assert MetricId.AUC not in micro(found)
    assert MetricId.LOG_LOSS in micro(found)


def test_a_multiclass_site_that_lacks_a_class_is_measured_on_the_others() -> None:
    scores = np.eye(3)[[0, 1, 0, 1]]
    found = micro(evaluate(scores, np.array([0, 1, 0, 1]), "multiclass", seed=0))
    assert found[MetricId.AUC] == 1


def test_no_rows_have_no_metrics() -> None:
    assert evaluate(np.empty((0, 1)), np.empty(0), "binary", seed=0) == []


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.integers(2, 80))
def test_intervals_hold_their_value_and_follow_from_the_seed(seed: int, rows: int) -> None:
    generator = np.random.default_rng(seed)
    scores, labels = generator.normal(size=rows), generator.integers(0, 2, rows)
    values = evaluate(scores, labels, "binary", seed=seed)
    assert values == evaluate(scores, labels, "binary", seed=seed)
    assert all(v.low_micro <= v.micro <= v.high_micro and v.count == rows for v in values)


def test_the_interval_covers_the_truth_about_nineteen_times_in_twenty() -> None:
    truth = roc_auc_score([0] * 4000 + [1] * 4000, np.concatenate(_two_groups(0, 4000)))
    covered = 0
    for seed in range(1, 101):
        scores = np.concatenate(_two_groups(seed, 60))
        value = evaluate(scores, np.repeat([0, 1], 60), "binary", seed=seed)[0]
        covered += value.low_micro <= truth * MICRO <= value.high_micro
    assert 88 <= covered <= 100


def _two_groups(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(0, 1, rows), generator.normal(1, 1, rows)


@pytest.mark.parametrize("head", ["binary", "multiclass", "regression"])
def test_a_diverged_model_is_measured_as_bad_within_what_a_record_holds(head: str) -> None:
    width = 3 if head == "multiclass" else 1
    scores = np.full((6, width), np.nan)
    scores[0], scores[1], scores[2] = np.inf, -np.inf, 1e38
    values = evaluate(scores, np.array([0, 1, 0, 1, 0, 1]), head, seed=0)
    assert values
    assert all(0 <= v.low_micro <= v.micro <= v.high_micro <= U53_MAX for v in values)


@pytest.mark.parametrize("head", ["binary", "multiclass", "regression"])
def test_the_values_fit_into_a_record(head: str) -> None:
    scores = np.random.default_rng(0).normal(size=(20, 3 if head == "multiclass" else 1))
    values = evaluate(scores, np.arange(20) % 2, head, seed=0)
    body = Metrics(round=1, model_digest=bytes(32), values=tuple(values))
    assert Metrics.from_value(body.to_value()) == body
