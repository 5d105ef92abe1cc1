"""What a federation is measured against: each hospital alone, and all data in one place.

Room: learning. Law: the comparison is fair: the same model, starting point, split, optimiser and
number of steps, each evaluated on the same validation rows of each site; only the data differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import mul
from typing import Any, cast

import numpy as np
from torch.utils.data import ConcatDataset, Dataset

from ledger.charter import Charter
from ledger.record import MetricValue
from swarm.learning.dataset import SiteData, Split, Table, count_rows
from swarm.learning.task import LearningTask
from swarm.learning.training import steps_of_a_round


@dataclass(frozen=True, kw_only=True, eq=False)
class Baseline:
    """A trained model that any site's validation rows can be put to."""

    task: LearningTask
    model: bytes

    def evaluate(self, data: SiteData) -> tuple[MetricValue, ...]:
        """Every metric on one site's validation rows, scaled as this model was trained."""
        return self.task.evaluate_on(self.model, data.validation)


def train_alone(
    charter: Charter, data: SiteData, *, allow: Sequence[str] = (), seed: int, threads: int = 1
) -> Baseline:
    """Learn from one site only: as many rounds of local steps as in the federation.

    The moments of "federated" standardisation are then the site's own.
    """
    task = LearningTask(charter, data, allow=allow, seed=seed, threads=threads)
    if task.needs_moments:
        task.set_moments(task.local_moments())
    return Baseline(task=task, model=_rounds(task, charter))


def train_pooled(
    charter: Charter,
    sites: Sequence[SiteData],
    *,
    allow: Sequence[str] = (),
    seed: int,
    threads: int = 1,
) -> Baseline:
    """Learn from all sites' training rows in one table, which no law would allow.

    The same number of steps as one member of the federation takes; with `local_epochs` the members'
    mean, weighted by samples, so that a bigger table does not mean more steps. Medians are pooled.
    """
    pooled = SiteData(train=_stack(sites), validation=sites[0].validation)
    task = LearningTask(
        _same_steps(charter, sites), pooled, allow=allow, seed=seed, threads=threads
    )
    if task.needs_moments:
        task.set_moments(task.local_moments())
    return Baseline(task=task, model=_rounds(task, charter))


def _rounds(task: LearningTask, charter: Charter) -> bytes:
    model = task.initial()
    for number in range(1, charter.rounds.rounds + 1):
        model = task.train(model, number).payload
    return model


def _same_steps(charter: Charter, sites: Sequence[SiteData]) -> Charter:
    rows = [count_rows(site.train) for site in sites]
    steps = [steps_of_a_round(count, charter.training) for count in rows]
    mean = round(sum(map(mul, rows, steps)) / sum(rows))
    training = replace(charter.training, local_steps=max(mean, 1), local_epochs=0)
    return replace(charter, training=training)


def _stack(sites: Sequence[SiteData]) -> Split:
    parts = [site.train for site in sites]
    tables = [part for part in parts if isinstance(part, Table)]
    if not tables:
        return ConcatDataset(cast("list[Dataset[Any]]", parts))
    if len(tables) != len(parts):
        raise ValueError("some sites have tables, others own data sets: they cannot be pooled")
    return Table(
        columns={
            name: np.concatenate([table.columns[name] for table in tables])
            for name in tables[0].columns
        },
        labels=np.concatenate([table.labels for table in tables]),
    )
