"""Sites, models and plain float64 arithmetic for tests of strategies and personalisation."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ledger.charter import Charter, Training
from swarm.learning.batches import Batches, MatrixBatches
from swarm.learning.local import LocalSite
from swarm.learning.parameters import Layout
from swarm.learning.training import TrainResult, train_site
from swarm.learning.training_state import Keeper
from tests.learning import make_charter

Floats = NDArray[np.float64]

TRAINING: Training = make_charter(
    training="learning_rate = 0.2\nbatch_size = 8\nlocal_steps = 7"
).training
COLUMNS = 3


def charter_with(
    aggregation: str = "", personalisation: str = "", training: str = "", **options: Any
) -> Charter:
    """The tests' charter with tables of its own; the arguments are TOML."""
    steps = "learning_rate = 0.2\nbatch_size = 8\nlocal_steps = 7\n"
    tables = f"{training}\n[personalisation]\n{personalisation}"
    return make_charter(training=steps + tables, aggregation=aggregation, **options)


def rows(
    count: int = 30, *, seed: int = 0, flip: bool = False, shift: float = 0.0
) -> MatrixBatches:
    """Rows (count, 3) whose binary label follows the first two columns (or the opposite of them)."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(count, COLUMNS)).astype(np.float32)
    signal = features[:, 0] - 0.5 * features[:, 1] + generator.normal(scale=0.5, size=count)
    return MatrixBatches.of(features, ((signal + shift > 0) != flip).astype(np.int64))


def linear() -> nn.Module:
    """Logistic regression: weights (3,), then the bias."""
    module = nn.Linear(COLUMNS, 1)
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    return module


def normed(seed: int = 0) -> nn.Module:
    """A network with batch norm."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(COLUMNS, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))


def site_of(
    data: MatrixBatches,
    module: nn.Module | None = None,
    *,
    seed: int = 5,
    head: str = "binary",
    layout: Layout | None = None,
    **training: Any,
) -> LocalSite:
    """A site that trains as TRAINING says, with changes."""
    module = linear() if module is None else module
    return LocalSite(
        module=module,
        layout=layout or Layout.of(module),
        batches=data,
        training=replace(TRAINING, **training),
        head=head,
        seed=seed,
    )


def gradient(w: Floats, data: MatrixBatches, chosen: NDArray[np.int64] | None = None) -> Floats:
    """Of the mean logistic loss at (weights, bias), written out."""
    features, labels = data.features.numpy().astype(float), data.labels.numpy()
    if chosen is not None:
        features, labels = features[chosen], labels[chosen]
    table = np.column_stack([features, np.ones(len(labels))])
    return np.asarray(table.T @ (1 / (1 + np.exp(-table @ w)) - labels) / len(labels))


def train(
    module: nn.Module,
    data: Batches,
    training: Training,
    *,
    head: str,
    seed: int,
    keeper: Keeper | None = None,
) -> TrainResult:
    """Train all of a module with nothing that a strategy adds."""
    return train_site(
        LocalSite(
            module=module, layout=Layout.of(module), batches=data, training=training, head=head,
            seed=seed, keeper=keeper,
        )
    )  # fmt: skip
