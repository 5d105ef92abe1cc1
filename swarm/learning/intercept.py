"""One hospital's offset to a shared model's scores, so that its chances fit its own patients.

Room: learning. Pure, float64. The offset maximises the likelihood of the site's own training labels given
score + offset, so afterwards the mean predicted chance of each class is its frequency among these
rows; it also undoes what class weights did to the chances. One offset moves all binary scores alike, so
AUC stays exactly as it was; with several classes one for each, and only the order within a class stays.
The simplest recalibration ("calibration in the large"): Steyerberg 2009, Clinical Prediction Models, §15.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from swarm.learning.moments import Floats

STEPS_MAX: Final = 100
TOLERANCE: Final = 1e-10
"""Of the gradient, as a part of the rows."""
SCORE_MAX: Final = 1e4
"""Of the training scores that the offset is fitted to; chances are 0 or 1 long before."""


def fit_intercept(
    scores: NDArray[np.floating], labels: NDArray[np.generic], head: str
) -> Floats | None:
    """Return the offset (k,) to outputs (n, k), or None where the rows cannot tell one.

    k is 1 for binary and regression. labels: (n,) class indices or targets. A class that no row has
    keeps its score; with a single class, or no row, there is nothing to fit.
    """
    rows = len(labels)
    if rows == 0:
        return None
    bounded: Floats = np.clip(
        np.nan_to_num(scores.astype(np.float64)).reshape(rows, -1), -SCORE_MAX, SCORE_MAX
    )
    if head == "regression":
        offset: Floats = (labels.astype(np.float64) - scores.reshape(rows)).mean(keepdims=True)
        return offset if np.isfinite(offset).all() else None
    truth = labels.astype(np.int64)
    if len(np.unique(truth)) < 2:
        return None
    return _binary(bounded[:, 0], truth) if head == "binary" else _multiclass(bounded, truth)


def _binary(scores: Floats, truth: NDArray[np.int64]) -> Floats:
    """Newton within a bracket: the mean chance rises with the offset, so it has one solution."""
    rate = truth.mean()
    logit = np.log(rate) - np.log1p(-rate)
    low, high = logit - scores.max(), logit - scores.min()
    offset = np.clip(logit - scores.mean(), low, high)
    for _ in range(STEPS_MAX):
        chance = np.exp(-np.logaddexp(0.0, -(scores + offset)))
        excess = chance.mean() - rate
        if abs(excess) <= TOLERANCE:
            break
        low, high = (low, offset) if excess > 0 else (offset, high)
        slope = (chance * (1 - chance)).mean()
        step = offset - excess / slope if slope > 0 else np.inf
        offset = step if low < step < high else (low + high) / 2
    return np.array([offset])


def _multiclass(scores: Floats, truth: NDArray[np.int64]) -> Floats:
    """Damped Newton over the classes that occur; their offsets sum to zero, as only differences count."""
    seen, labels = np.unique(truth, return_inverse=True)
    chosen = scores[:, seen]
    rates = np.bincount(labels) / len(labels)
    offset: Floats = np.zeros(len(seen))
    loss = _log_loss(chosen + offset, labels)
    for _ in range(STEPS_MAX):
        moved = chosen + offset
        chances = np.exp(moved - _log_totals(moved))
        gradient = chances.mean(axis=0) - rates
        if np.abs(gradient).max() <= TOLERANCE:
            break
        hessian = np.diag(chances.mean(axis=0)) - chances.T @ chances / len(labels)
        step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        scale = 1.0
        while scale > TOLERANCE:
            tried = offset - scale * step
            tried -= tried.mean()
            after = _log_loss(chosen + tried, labels)
            if after <= loss:
                break
            scale /= 2
        else:
            break
        offset, loss = tried, after
    result: Floats = np.zeros(scores.shape[1])
    result[seen] = offset
    return result


def _log_totals(scores: Floats) -> Floats:
    peak = scores.max(axis=1, keepdims=True)
    totals: Floats = peak + np.log(np.exp(scores - peak).sum(axis=1, keepdims=True))
    return totals


def _log_loss(scores: Floats, labels: NDArray[np.intp]) -> float:
    picked = scores[np.arange(len(labels)), labels]
    return float((_log_totals(scores)[:, 0] - picked).mean())
