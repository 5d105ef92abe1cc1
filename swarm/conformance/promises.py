"""How an exam says what is broken, and small sites to examine with. Room: swarm."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import numpy as np
from torch import nn

from ledger.charter import Training
from swarm.learning.batches import MatrixBatches
from swarm.learning.local import LocalSite
from swarm.learning.networks import Mlp, start
from swarm.learning.parameters import Layout
from swarm.learning.training_state import Arrays

COLUMNS: Final = 3
TRAINING: Final = Training(
    optimiser="sgd",
    learning_rate=0.1,
    weight_decay=0.0,
    momentum=0.0,
    batch_size=16,
    local_steps=6,
    local_epochs=0,
    class_weights="none",
    loss="auto",
)


class ConformanceError(Exception):
    """An extension broke a promise; the text says which and how it showed."""


def demand(kept: bool, promise: str) -> None:  # noqa: FBT001 - reads as a sentence
    """Raise ConformanceError with the broken promise unless it is kept."""
    if not kept:
        raise ConformanceError(promise)


@contextmanager
def untouched(
    what: str, *arrays: np.ndarray[tuple[int, ...], np.dtype[np.generic]]
) -> Iterator[None]:
    """Demand that nothing in the block changes these arrays."""
    before = [array.tobytes() for array in arrays]
    yield
    demand([array.tobytes() for array in arrays] == before, f"{what} was changed in place")


def bits(arrays: Arrays) -> dict[str, bytes]:
    """What named arrays hold, to compare."""
    return {name: f"{a.dtype} {a.shape}".encode() + a.tobytes() for name, a in arrays.items()}


def small_network(seed: int) -> nn.Module:
    """Return a network with batch norm, three inputs and one output."""
    module = Mlp(COLUMNS, 1, (4,), dropout=0.0, batch_norm=True)
    start(module, seed)
    return module


def small_rows(seed: int, rows: int = 48) -> MatrixBatches:
    """Rows (n, 3) and a binary label that follows the first two columns."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(rows, COLUMNS)).astype(np.float32)
    signal = features[:, 0] - features[:, 1] + generator.normal(scale=0.3, size=rows)
    return MatrixBatches.of(features, (signal > 0).astype(np.int64))


def small_site(
    seed: int, *, module: nn.Module | None = None, layout: Layout | None = None, steps: int = 6
) -> LocalSite:
    """Return a site with such a network, which trains with plain SGD."""
    module = small_network(0) if module is None else module
    return LocalSite(
        module=module,
        layout=layout or Layout.of(module),
        batches=small_rows(seed),
        training=replace(TRAINING, local_steps=steps),
        head="binary",
        seed=seed,
    )
