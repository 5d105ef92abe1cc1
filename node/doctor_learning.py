"""The doctor's look at data and model: whether they fit the charter, and a step of training works.

Room: node. Law: says counts and column names, never a cell; trains on a copy that is thrown away.
"""

from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter
from typing import Final

import numpy as np

from ledger.charter import Charter, Schema
from ledger.errors import ConfigError
from node.config import SiteConfig
from node.data import inspect_site_data
from node.findings import Finding, fail, ok, warn
from swarm.learning.dataset import SiteData, Table, count_rows

MICRO: Final = 1_000_000
FEW_OF_A_CLASS: Final = 5
TARGET_LARGE: Final = 3.0
"""Root mean square of a regression's label from which plain gradient steps tend to diverge."""


def check_learning(config: SiteConfig, charter: Charter) -> Iterator[Finding]:
    """Read the data, then build the model and take one step."""
    data, problems = inspect_site_data(
        config.data, charter.schema, directory=config.directory, allow=config.allow
    )
    for problem in problems:
        yield (fail if problem.severity == "error" else warn)("data", problem.message)
    if data is None:
        yield warn("model", "not checked: it needs the data", "correct the data first")
        return
    yield ok(
        "data",
        f"{config.data.described}: {count_rows(data.train)} rows to learn from, "
        f"{count_rows(data.validation)} to be measured on",
    )
    yield from _classes(charter.schema, data)
    yield from _target(charter.schema, data)
    yield _one_step(config, charter, data)


def _classes(schema: Schema, data: SiteData) -> Iterator[Finding]:
    if schema.head == "regression" or not isinstance(data.train, Table):
        return
    train = np.bincount(data.train.labels.astype(np.int64), minlength=len(schema.classes))
    counts = ", ".join(f"{name} {n}" for name, n in zip(schema.classes, train, strict=True))
    rare = [name for name, n in zip(schema.classes, train, strict=True) if n < FEW_OF_A_CLASS]
    if rare:
        yield warn(
            "classes",
            f"{counts} training rows: few of {', '.join(rare)}",
            "take part all the same; expect wide intervals here",
        )
    else:
        yield ok("classes", f"{counts} training rows")


def _target(schema: Schema, data: SiteData) -> Iterator[Finding]:
    """Columns are standardised, a regression's label is not: euros or grams make steps explode."""
    if schema.head != "regression" or not isinstance(data.train, Table):
        return
    if float(np.sqrt(np.mean(np.square(data.train.labels)))) > TARGET_LARGE:
        yield warn(
            "label",
            f'"{schema.label}" is far from 1 here, and training on squared errors may diverge',
            "agree on a larger unit (each site in data.query), or on a lower training.learning_rate",
        )


def _one_step(config: SiteConfig, charter: Charter, data: SiteData) -> Finding:
    from swarm.learning.task import LearningTask

    training = replace(charter.training, local_steps=1, local_epochs=0)
    try:
        started_s = perf_counter()
        task = LearningTask(
            replace(charter, training=training),
            data,
            allow=config.allow,
            seed=charter.seed,
            threads=config.run.threads,
        )
        if task.needs_moments:
            task.set_moments(task.merge_moments([(bytes(32), task.local_moments())]))
        model = task.initial()
        trained = task.train(model, 1)
        took_s = perf_counter() - started_s
    except ConfigError as error:
        return fail("model", str(error))
    except Exception as error:  # noqa: BLE001 - the model may be the hospital's own code
        return fail(
            "model",
            f"{charter.model.name} fails in training: {type(error).__name__}",
            "try it alone with the same features",
        )
    size = len(trained.payload)
    for what, count in (("updates", size), ("results", len(model))):
        if count > charter.rounds.payload_bytes_max:
            return fail(
                "model",
                f"its {what} have {count:,} bytes, the charter allows {charter.rounds.payload_bytes_max:,}",
                "raise rounds.payload_bytes_max in a new charter",
            )
    return ok(
        "model",
        f"{charter.model.name} builds and takes a step: updates of {size / 1000:,.1f} kB, "
        f"loss {trained.loss_micro / MICRO:.3f}, {took_s:.1f} s",
    )
