"""What a federation is measured against: each hospital alone, and all data in one place.

Room: learning. Law: the comparison is fair: the same model, starting point, split, optimiser and
number of steps, each evaluated on the same validation rows of each site; only the data differ. With
early stopping each may go on for STOPPED_ROUNDS_FACTOR times the rounds and is released by the same rule.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import mul
from typing import Any, cast

import numpy as np
from torch.utils.data import ConcatDataset, Dataset

from ledger.charter import Charter
from ledger.record import MetricId, MetricValue
from swarm.learning.dataset import SiteData, Split, Table, count_rows
from swarm.learning.stopping import RoundLoss, released_round
from swarm.learning.task import LearningTask
from swarm.learning.training import steps_of_a_round

STOPPED_ROUNDS_FACTOR = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Baseline:
    """A trained model that any site's validation rows can be put to."""

    task: LearningTask
    model: bytes

    def evaluate(self, data: SiteData) -> tuple[MetricValue, ...]:
        """Every metric on one site's validation rows, scaled as this model was trained."""
        return self.task.evaluate_on(self.model, data.validation)


def train_alone(
    charter: Charter,
    data: SiteData,
    *,
    allow: Sequence[str] = (),
    seed: int,
    threads: int = 1,
    patience: int = 0,
) -> Baseline:
    """Learn from one site only: as many rounds of local steps as in the federation.

    The moments of "federated" standardisation are then the site's own. patience: as in
    stopping.released_round, by the site's own validation loss.
    """
    task = LearningTask(plain(charter), data, allow=allow, seed=seed, threads=threads)
    if task.needs_moments:
        task.set_moments(task.local_moments())
    return Baseline(task=task, model=_rounds(task, charter, patience))


def train_pooled(
    charter: Charter,
    sites: Sequence[SiteData],
    *,
    allow: Sequence[str] = (),
    seed: int,
    threads: int = 1,
    patience: int = 0,
) -> Baseline:
    """Learn from all sites' training rows in one table, which no law would allow.

    The same number of steps as one member of the federation takes; with `local_epochs` the members'
    mean, weighted by samples, so that a bigger table does not mean more steps. Each step sees as many
    rows as one step of all members together: with one member's batch, pooled would only be noisier
    than the federation, and flatter it. Medians are pooled.
    """
    validation = _stack([site.validation for site in sites]) if patience else sites[0].validation
    pooled = SiteData(train=_stack([site.train for site in sites]), validation=validation)
    task = LearningTask(
        _same_steps(plain(charter), sites), pooled, allow=allow, seed=seed, threads=threads
    )
    if task.needs_moments:
        task.set_moments(task.local_moments())
    return Baseline(task=task, model=_rounds(task, charter, patience))


def _rounds(task: LearningTask, charter: Charter, patience: int) -> bytes:
    model = task.initial()
    factor = STOPPED_ROUNDS_FACTOR if patience else 1
    losses: dict[int, RoundLoss] = {}
    best = model
    for number in range(1, factor * charter.rounds.rounds + 1):
        model = task.train(model, number).payload
        if not patience:
            continue
        measured = {value.metric: value for value in task.evaluate(model)}
        loss = measured[MetricId.LOG_LOSS]
        losses[number] = RoundLoss(loss=loss.micro / 1e6, count=loss.count)
        released = released_round(losses, patience=patience)
        best = model if released == number else best
        if number - released >= patience:
            break
    return best if patience else model


def plain(charter: Charter) -> Charter:
    """The same model and training without what is between sites: one site has nobody to merge with."""
    aggregation = replace(
        charter.aggregation,
        strategy="fedavg",
        server_rate=0.0,
        rule="mean",
        neighbour_mixing=False,
        codec="float32",
    )
    return replace(
        charter,
        aggregation=aggregation,
        training=replace(charter.training, proximal_mu=0.0),
        personalisation=replace(charter.personalisation, mode="none"),
    )


def _same_steps(charter: Charter, sites: Sequence[SiteData]) -> Charter:
    rows = [count_rows(site.train) for site in sites]
    steps = [steps_of_a_round(count, charter.training) for count in rows]
    mean = round(sum(map(mul, rows, steps)) / sum(rows))
    batch = sum(min(charter.training.batch_size, count) for count in rows)
    training = replace(
        charter.training, local_steps=max(mean, 1), local_epochs=0, batch_size=max(batch, 1)
    )
    return replace(charter, training=training)


def _stack(parts: Sequence[Split]) -> Split:
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
