"""How good models are on patients of hospitals that took no part, and on all validation patients at once.

Room: scenarios. Law: alone, swarm and pooled are put to the very same rows. A table that nobody trained
on fills its gaps with its own medians, as a hospital that receives the model would, and is scaled by
the model's own moments.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

import numpy as np

from ledger.charter import Charter
from ledger.record import MetricId
from scenarios.releasing import Released
from swarm.learning import metrics
from swarm.learning.baselines import Baseline, plain
from swarm.learning.dataset import SiteData, Split, Table
from swarm.learning.task import LearningTask

NEAR: Final = 0.99
"""Of the pooled AUC: when learning counts as done."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """One model on one set of patients; None where a metric is undefined."""

    auc: float | None
    accuracy: float | None
    brier: float | None
    log_loss: float | None
    ece: float | None
    count: int


@dataclass(frozen=True, kw_only=True)
class External:
    """Everything measured on one set of patients that belongs to no hospital in particular.

    alone: per hospital, its own model. released: the swarm's model that is handed out; the mean over the
    hospitals' own where they differ.
    """

    alone: tuple[Quality, ...]
    pooled: Quality
    released: Quality


def quality(
    parts: Sequence[tuple[LearningTask, Split]], models: Sequence[bytes], head: str
) -> Quality:
    """Put one model, as each task understands it, to each task's rows; judge all rows together."""
    found = [task.scores(model, rows) for (task, rows), model in zip(parts, models, strict=True)]
    scores = np.concatenate([one for one, _ in found])
    labels = np.concatenate([one for _, one in found])
    raw = scores if head == "multiclass" else scores.reshape(-1)
    values = {
        v.metric: v.micro / metrics.MICRO
        for v in metrics.evaluate(raw, labels, head, seed=0, bootstrap=0)
    }
    return Quality(
        auc=values.get(MetricId.AUC),
        accuracy=values.get(MetricId.ACCURACY),
        brier=values.get(MetricId.BRIER),
        log_loss=values.get(MetricId.LOG_LOSS),
        ece=None if head == "regression" else metrics.ece(raw, labels, head),
        count=len(labels),
    )


NOT_JUDGED: Final = Quality(auc=None, accuracy=None, brier=None, log_loss=None, ece=None, count=0)
"""Where what a judgement needs is not here."""


def mean_quality(found: Sequence[Quality]) -> Quality:
    """Mean of each metric over the models that have it."""

    def mean(values: Iterable[float | None]) -> float | None:
        known = [one for one in values if one is not None]
        return fmean(known) if known else None

    return Quality(
        auc=mean(one.auc for one in found),
        accuracy=mean(one.accuracy for one in found),
        brier=mean(one.brier for one in found),
        log_loss=mean(one.log_loss for one in found),
        ece=mean(one.ece for one in found),
        count=found[0].count,
    )


def calibration_gap(task: LearningTask, model: bytes, head: str) -> float | None:
    """Mean chance that a hospital's own model gives its validation patients, less how often it happened.

    None but for two classes. Of few patients this is mostly chance: average it over splits.
    """
    if head != "binary":
        return None
    scores, labels = task.own_scores(model)
    chances = 1.0 / (1.0 + np.exp(-np.clip(scores.reshape(-1).astype(np.float64), -30.0, 30.0)))
    return float(chances.mean() - labels.mean()) if len(labels) else None


class Judge:
    """Puts payloads of one swarm, and baselines, to a table that nobody trained on."""

    def __init__(
        self, charter: Charter, table: Table, moments: bytes | None, *, allow: Sequence[str]
    ) -> None:
        self._charter = charter
        self._table = table
        self._allow = allow
        self._task = self._make(charter, moments)
        self._known: dict[bytes, Quality] = {}

    def swarm(self, model: bytes) -> Quality:
        """Judge a payload of the swarm."""
        if model not in self._known:
            head = self._charter.schema.head
            self._known[model] = quality([(self._task, self._table)], [model], head)
        return self._known[model]

    def baseline(self, baseline: Baseline) -> Quality:
        """Judge a model with the moments that it was trained with."""
        task = baseline.task
        moments = task.local_moments() if task.needs_moments else None
        own = self._make(plain(self._charter), moments)
        return quality([(own, self._table)], [baseline.model], self._charter.schema.head)

    def _make(self, charter: Charter, moments: bytes | None) -> LearningTask:
        data = SiteData(train=self._table, validation=self._table)
        task = LearningTask(charter, data, allow=self._allow, seed=0, threads=1)
        if moments is not None:
            task.set_moments(moments)
        return task


def judge_all(
    judge: Judge, alone: Sequence[Baseline], pooled: Baseline, released: Released
) -> External:
    """Judge everything."""
    return External(
        alone=tuple(judge.baseline(one) for one in alone),
        pooled=judge.baseline(pooled),
        released=mean_quality([judge.swarm(one) for one in released.models.values()]),
    )


def first_rounds(
    released: Released, judge: Callable[[bytes], Quality], pooled: Quality
) -> tuple[int | None, ...]:
    """Per hospital, the first round after which the model that it recorded had NEAR of the pooled AUC."""
    wanted = None if pooled.auc is None else NEAR * pooled.auc

    def is_near(model: bytes) -> bool:
        auc = judge(model).auc
        return auc is not None and wanted is not None and auc >= wanted

    return tuple(
        next(
            (
                number
                for number, by in sorted(released.rounds.items())
                if author in by and is_near(by[author])
            ),
            None,
        )
        for author in sorted(released.models)
    )
