"""The exams that extensions pass: run them in your own tests.

Room: swarm. Law: an extension point ships its exam (architecture.md). Each function returns when
the promise is kept and raises ConformanceError, which names the broken promise, when it is not.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from swarm.learning.aggregation import Vector
from swarm.learning.parameters import Layout, flatten, load
from swarm.learning.seeding import torch_seed


class ConformanceError(Exception):
    """An extension broke a promise; the text says which and how it showed."""


class AggregationRule(Protocol):
    """Merges one float32 vector per member into one; pure and the same bits everywhere."""

    def __call__(
        self, rows: Sequence[Vector], weights_micro: Sequence[int], digests: Sequence[bytes], /
    ) -> Vector:
        """Return (d,) float32."""


def check_aggregation_rule(rule: AggregationRule, *, seed: int = 0, members: int = 7) -> None:
    """Same bits in any order; inputs untouched; agreement kept; bounded by what came in."""
    generator = np.random.default_rng(seed)
    shape = (members, 1_001)  # odd, so that folded halves are unequal
    rows = list(generator.normal(scale=10.0, size=shape).astype(np.float32))
    weights = [int(weight) for weight in generator.integers(1, 1_000_000, size=members)]
    digests = [hashlib.sha256(row.tobytes()).digest() for row in rows]
    before = [row.copy() for row in rows]
    result = rule(rows, weights, digests)
    _demand(
        result.dtype == np.float32 and result.shape == rows[0].shape,
        f"result is {result.dtype} {result.shape}, not float32 {rows[0].shape}",
    )
    _demand(
        all(np.array_equal(row, old) for row, old in zip(rows, before, strict=True)),
        "the rule changed its inputs",
    )
    for _ in range(10):
        order = generator.permutation(members)
        again = rule(
            [rows[i] for i in order], [weights[i] for i in order], [digests[i] for i in order]
        )
        _demand(
            again.tobytes() == result.tobytes(),
            f"another order of the inputs gives other bits (seed {seed})",
        )
    low, high = np.min(rows, axis=0), np.max(rows, axis=0)
    _demand(
        bool(((result >= low) & (result <= high)).all()),
        "a coordinate lies outside of what any member sent",
    )
    same = rule([rows[0]] * members, weights, [digests[0]] * members)
    _demand(
        np.allclose(same, rows[0], rtol=1e-6), "members who agree do not get what they agree on"
    )


def check_model(
    build: Callable[[], nn.Module], *, features: Tensor, outputs: int, seed: int = 0
) -> None:
    """Same start for one seed; right shape; parameters survive the journey; it can learn.

    build: makes the module, as the charter's arguments would. features: at least two rows of what
    the model takes. outputs: 1 for binary and regression, else the number of classes.
    """
    with torch_seed(seed):
        module = build()
    with torch_seed(seed):
        twin = build()
    start = flatten(module)
    layout = Layout.of(module)
    _demand(layout.count > 0, "the model has no parameters")
    _demand(
        layout == Layout.of(twin) and start.tobytes() == flatten(twin).tobytes(),
        f"two models built from seed {seed} differ: use torch's generator only",
    )
    scores = _scores(module, features)
    shape = tuple(scores.shape)
    rows = len(features)
    _demand(
        shape == (rows, outputs) or (outputs == 1 and shape == (rows,)),
        f"output has shape {shape}, not ({rows}, {outputs})",
    )
    _demand(
        torch.allclose(_scores(module, features[:1]), scores[:1], atol=1e-5),
        "in evaluation mode a row's score depends on the rows beside it",
    )
    _demand(
        flatten(module).tobytes() == start.tobytes(), "evaluation changes the shared parameters"
    )
    with torch_seed(seed + 1):
        other = build()
    load(other, start)
    _demand(
        torch.equal(_scores(other, features), scores),
        "a model that is given the parameters gives other scores: some state is not shared",
    )
    _check_gradients(module, features, seed)


def _check_gradients(module: nn.Module, features: Tensor, seed: int) -> None:
    module.train()
    with torch_seed(seed):
        module(features).square().sum().backward()
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    _demand(bool(gradients), "no parameter gets a gradient")
    _demand(
        all(bool(torch.isfinite(gradient).all()) for gradient in gradients),
        "a gradient is not finite",
    )


def _scores(module: nn.Module, features: Tensor) -> Tensor:
    module.eval()
    with torch.inference_mode():
        scores: Tensor = module(features)
    return scores


def _demand(kept: bool, promise: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not kept:
        raise ConformanceError(promise)
