"""Charters and tables for tests of learning."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ledger.charter import Charter, load_charter
from ledger.record import MetricId, MetricValue
from swarm.learning.baselines import Baseline
from swarm.learning.dataset import SiteData, Table
from swarm.learning.task import LearningTask

# Tiny tensors on shared cores: a second thread of torch's mostly waits for the first.
torch.set_num_threads(1)

SHARED = Path(os.environ.get("SWARM_DATA") or Path(__file__).parents[2] / "shared" / "data")

TABLE_FEATURES = """
[[data.features]]
name = "age"
type = "number"
[[data.features]]
name = "dose"
type = "number"
[[data.features]]
name = "sex"
type = "category"
categories = ["F", "M"]
"""


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def make_charter(
    *,
    model: str = 'name = "logistic"',
    head: str = "binary",
    classes: str = '["0", "1"]',
    data: str = "",
    features: str = TABLE_FEATURES,
    training: str = "learning_rate = 0.1\nbatch_size = 16\nlocal_steps = 10",
    rounds: int = 5,
    label: str = "ill",
    aggregation: str = "",
) -> Charter:
    """A charter without members; the arguments are TOML."""
    labels = "" if head == "regression" else f"classes = {classes}"
    text = f"""
version = 1
federation = "test"
seed = 3
[model]
{model}
[data]
label = "{label}"
head = "{head}"
{labels}
{data}
{features}
[training]
{training}
[rounds]
rounds = {rounds}
[aggregation]
{aggregation}
"""
    return load_charter(text.encode(), complete=False)


def make_table(rows: int, seed: int, *, head: str = "binary", lacks: str | None = None) -> Table:
    """Rows whose label follows age and sex; some cells are missing, or all of ``lacks``."""
    generator = np.random.default_rng(seed)
    columns = {
        "age": generator.normal(60, 12, rows),
        "dose": generator.normal(3, 1, rows),
        "sex": generator.integers(0, 2, rows).astype(np.float64),
    }
    signal = (columns["age"] - 60) / 12 + columns["sex"] + generator.normal(0, 0.7, rows)
    columns["dose"][: rows // 8] = np.nan
    columns["sex"][rows // 2 : rows // 2 + 3] = np.nan
    if lacks is not None:
        columns[lacks][:] = np.nan
    if head == "regression":
        return Table(columns=columns, labels=signal)
    edges = [0.5] if head == "binary" else [-0.2, 1.0]
    return Table(columns=columns, labels=np.digitize(signal, edges))


def make_site(seed: int, rows: int = 80, **options: Any) -> SiteData:
    return SiteData(
        train=make_table(rows, 2 * seed, **options),
        validation=make_table(rows // 2, 2 * seed + 1, **options),
    )


def shared_folder(name: str) -> Path:
    """The folder of real data, or a reason to skip."""
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs the folder {name} of the shared data (SWARM_DATA)")
    return folder


def federate(charter: Charter, data: Sequence[SiteData], seed: int) -> Baseline:
    """All rounds in one process, weighted by samples: what the nodes do, without a network."""
    tasks = [
        LearningTask(charter, site, allow=(), seed=100 * seed + at, threads=1)
        for at, site in enumerate(data)
    ]
    payloads = [(digest(payload), payload) for payload in (t.local_moments() for t in tasks)]
    for task in tasks:
        task.set_moments(tasks[0].merge_moments(payloads))
    total = sum(task.samples for task in tasks)
    model = tasks[0].initial()
    for number in range(1, charter.rounds.rounds + 1):
        trained = [task.train(model, number) for task in tasks]
        model = tasks[0].merge(
            [(digest(t.payload), t.payload, t.samples * 1_000_000 // total) for t in trained]
        )
    return Baseline(task=tasks[0], model=model)


def auc(values: Iterable[MetricValue]) -> float:
    return next(v.micro / 1e6 for v in values if v.metric == MetricId.AUC)
