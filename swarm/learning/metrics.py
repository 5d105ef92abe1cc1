"""How good a model is on one site's validation rows, with 95 % bootstrap intervals.

Room: learning. Law: a metric is an integer in millionths with the number of rows behind it, so
records hold no floats; one that cannot be computed (AUC with one class) is left out, never guessed.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ledger.record import MetricId, MetricValue
from swarm.learning.moments import Floats

MICRO = 1_000_000
MICRO_MAX = (1 << 53) - 1  # a record's integers are u53
SCORE_MAX = 1e30  # a diverged model is bad, not undefined
PERCENTILES = (2.5, 97.5)
CALIBRATION_BINS = 15
ELEMENTS_MAX = 1 << 20  # resamples are drawn in chunks of at most this many counts (8 MiB)

# Rows' counts (b, n) in b resamples → the metric's value in each, NaN where it is undefined.
Statistic: TypeAlias = Callable[[Floats], Floats]


def to_micro(value: float) -> int:
    """Millionths of a value ≥ 0, rounded, bounded to what a record can hold."""
    return round(max(0.0, min(float(MICRO_MAX), value * MICRO)))


def evaluate(
    scores: NDArray[np.floating],
    labels: NDArray[np.generic],
    head: str,
    *,
    seed: int,
    bootstrap: int = 200,
) -> list[MetricValue]:
    """Every metric of a head, each with its 95 % percentile interval over seeded resamples.

    scores: the model's raw outputs: binary logits (n,), multiclass logits (n, k), or regression
    predictions (n,). labels: (n,) class indices (0 = negative) or, for regression, targets.
    An interval is stretched to hold its value, which a skewed bootstrap can miss.
    """
    rows = len(labels)
    if rows == 0:
        return []
    bounded: Floats = np.clip(np.nan_to_num(scores.astype(np.float64)), -SCORE_MAX, SCORE_MAX)
    heads = {"binary": _binary, "multiclass": _multiclass, "regression": _regression}
    statistics = heads[head](bounded, labels)
    generator = np.random.Generator(np.random.PCG64(seed))
    counts = _resamples(generator, rows, bootstrap)
    values = []
    for metric, statistic in sorted(statistics.items()):  # records list metrics by number
        value = float(statistic(np.ones((1, rows)))[0])
        if np.isnan(value):
            continue
        draws = np.concatenate([statistic(chunk) for chunk in counts]) if counts else np.empty(0)
        draws = draws[~np.isnan(draws)]
        low, high = np.percentile(draws, PERCENTILES) if draws.size else (value, value)
        values.append(
            MetricValue(
                metric=metric,
                micro=to_micro(value),
                low_micro=to_micro(min(low, value)),
                high_micro=to_micro(max(high, value)),
                count=rows,
            )
        )
    return values


def auc(scores: Floats, labels: NDArray[np.generic]) -> float:
    """Area under the ROC curve; ties count one half; NaN with one class."""
    return float(_auc(scores, labels.astype(bool))(np.ones((1, len(labels))))[0])


def ece(scores: NDArray[np.floating], labels: NDArray[np.generic], head: str) -> float:
    """Expected calibration error: how far predicted chances are from what then happens, 0 to 1.

    scores: binary logits (n,) or multiclass logits (n, k); labels: (n,) class indices, n ≥ 1. Rows go
    into CALIBRATION_BINS equal parts of [0, 1] by the chance of the positive class (binary) or of the
    guessed one; the bins' |mean chance - frequency| are averaged by their rows.
    Guo et al. 2017, https://arxiv.org/abs/1706.04599
    """
    if head == "regression":
        raise ValueError("only classes have chances")
    bounded: Floats = np.clip(np.nan_to_num(scores.astype(np.float64)), -SCORE_MAX, SCORE_MAX)
    statistics = (_binary if head == "binary" else _multiclass)(bounded, labels)
    return float(statistics[MetricId.ECE](np.ones((1, len(labels))))[0])


def _calibration(chance: Floats, happened: NDArray[np.bool_]) -> Statistic:
    """How far chances (n,) are from what happened, over the bins of CALIBRATION_BINS."""
    bins = np.minimum((chance * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    gaps: Floats = np.zeros((len(chance), CALIBRATION_BINS))
    gaps[np.arange(len(chance)), bins] = chance - happened
    return lambda counts: np.abs(counts @ gaps).sum(axis=1) / counts.sum(axis=1)


def _resamples(generator: np.random.Generator, rows: int, resamples: int) -> list[Floats]:
    """How often each row is drawn, (resamples, rows) in chunks: a multinomial for each resample."""
    chunk = max(1, ELEMENTS_MAX // rows)
    result = []
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = generator.integers(0, rows, size=(size, rows))
        drawn += np.arange(size)[:, None] * rows
        flat = np.bincount(drawn.reshape(-1), minlength=size * rows)
        result.append(flat.reshape(size, rows).astype(np.float64))
    return result


def _auc(scores: Floats, positive: NDArray[np.bool_]) -> Statistic:
    """Rank statistic: pairs won by the positives plus half the ties, over all pairs."""
    order = np.argsort(scores, kind="stable")
    ranked, is_positive = scores[order], positive[order].astype(np.float64)
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))

    def statistic(counts: Floats) -> Floats:
        ordered = counts[:, order]
        won = np.add.reduceat(ordered * is_positive, starts, axis=1)
        lost = np.add.reduceat(ordered * (1 - is_positive), starts, axis=1)
        below = np.cumsum(lost, axis=1) - lost / 2
        pairs = won.sum(axis=1) * lost.sum(axis=1)
        wins = (won * below).sum(axis=1)
        result: Floats = np.full(len(pairs), np.nan)
        np.divide(wins, pairs, out=result, where=pairs > 0)
        return result

    return statistic


def _mean(losses: Floats) -> Statistic:
    return lambda counts: (counts @ losses) / counts.sum(axis=1)


def _macro_f1(guess: NDArray[np.int64], truth: NDArray[np.int64]) -> Statistic:
    """F1 of each class that occurs among labels or guesses, averaged."""
    classes = np.union1d(truth, guess)[:, None]
    hits = ((truth == classes) & (guess == classes)).astype(np.float64)  # (k, n)
    named = (truth == classes).astype(np.float64) + (guess == classes)

    def statistic(counts: Floats) -> Floats:
        total = counts @ named.T
        scores: Floats = np.zeros(total.shape)
        np.divide(2 * (counts @ hits.T), total, out=scores, where=total > 0)
        mean: Floats = scores.sum(axis=1) / len(classes)
        return mean

    return statistic


def _binary(scores: Floats, labels: NDArray[np.generic]) -> dict[MetricId, Statistic]:
    scores = scores.reshape(len(labels))
    positive = labels.astype(bool)
    probability = np.exp(-np.logaddexp(0.0, -scores))
    return {
        MetricId.AUC: _auc(scores, positive),
        MetricId.LOG_LOSS: _mean(np.logaddexp(0.0, np.where(positive, -scores, scores))),
        MetricId.ACCURACY: _mean(((scores > 0) == positive).astype(np.float64)),
        MetricId.BRIER: _mean((probability - positive) ** 2),
        MetricId.MACRO_F1: _macro_f1((scores > 0).astype(np.int64), positive.astype(np.int64)),
        MetricId.ECE: _calibration(probability, positive),
    }


def _multiclass(scores: Floats, labels: NDArray[np.generic]) -> dict[MetricId, Statistic]:
    classes = scores.shape[1]
    truth = labels.astype(np.int64)
    peak = scores.max(axis=1, keepdims=True)
    log_total = peak[:, 0] + np.log(np.exp(scores - peak).sum(axis=1))
    losses = log_total - scores[np.arange(len(truth)), truth]
    guess = scores.argmax(axis=1)
    # One against the rest needs comparable scores: log-probabilities, not logits.
    one_vs_rest = [_auc(scores[:, c] - log_total, truth == c) for c in range(classes)]
    present = [c for c in range(classes) if 0 < (truth == c).sum() < len(truth)]

    def macro_auc(counts: Floats) -> Floats:
        if not present:
            return np.full(len(counts), np.nan)
        areas: Floats = np.stack([one_vs_rest[c](counts) for c in present])
        mean: Floats = areas.sum(axis=0) / len(present)
        return mean

    return {
        MetricId.AUC: macro_auc,
        MetricId.LOG_LOSS: _mean(losses),
        MetricId.ACCURACY: _mean((guess == truth).astype(np.float64)),
        MetricId.MACRO_F1: _macro_f1(guess, truth),
        MetricId.ECE: _calibration(1.0 / np.exp(scores - peak).sum(axis=1), guess == truth),
    }


def _regression(scores: Floats, labels: NDArray[np.generic]) -> dict[MetricId, Statistic]:
    errors = scores.reshape(len(labels)) - labels.astype(np.float64)
    return {MetricId.MSE: _mean(errors**2), MetricId.MAE: _mean(np.abs(errors))}
