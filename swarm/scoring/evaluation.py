"""The loss of a merge with and without each contribution, on one member's own patients.

Room: scoring. Law: nothing is merged again. The weighted mean without member j follows from the mean m
with everybody: m + w_j / (W − w_j) · (m − u_j). All n + 1 models are put to the patients in one pass:
a linear model as one matrix product, any other with torch.func's vmap over stacked parameters, and in
a loop where a module cannot be mapped (it draws numbers, or looks into its values).

What is measured is a contribution to the mean, whatever robust rule the federation merges with: a rule
that drops an update would hide what the update is worth.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from swarm.learning.aggregation import weighted_mean
from swarm.learning.batches import Batches
from swarm.learning.models import Logistic
from swarm.learning.parameters import Layout, load
from swarm.learning.rows import Vector
from swarm.learning.training import row_losses

TOGETHER_VALUES_MAX: Final = 1 << 22
"""Parameters (16 MiB) and features of stacked models held at a time; raise it where memory is plenty."""
ROWS_MAX: Final = 512
"""Patients looked at: their number hardly sharpens a median over many members any more."""


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """One member's update as its payload says: parameters (d,), weight in millionths."""

    digest: bytes
    parameters: Vector
    weight_micro: int


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Mean loss of ``count`` patients under the merge, and without each contribution in its order."""

    together: float
    without: tuple[float, ...]
    count: int


def leave_one_out(
    module: nn.Module,
    contributions: Sequence[Contribution],
    patients: Batches,
    head: str,
    *,
    layout: Layout | None = None,
) -> Losses:
    """Evaluate the mean of at least two contributions and each mean that lacks one of them.

    module: what it holds is lost where models are not mapped. layout: of the parameters, where some of
    the module's tensors stay as they are; None: all shared ones.
    patients: at least one; the first ROWS_MAX of them are looked at.
    Raises ValueError for fewer contributions or patients, or where one has all the weight.
    """
    rows = min(len(patients), ROWS_MAX)
    if len(contributions) < 2 or not rows:
        raise ValueError("scores need two contributions and one patient")
    ordered = [(one.parameters, one.weight_micro, one.digest) for one in contributions]
    vectors, weights, digests = (list(column) for column in zip(*ordered, strict=True))
    center = weighted_mean(vectors, weights, digests)
    total = sum(weights)
    if max(weights) >= total:
        raise ValueError("a contribution with all the weight cannot be left out")
    shares = [weight / (total - weight) for weight in weights]
    features, labels = patients.batch(np.arange(rows))
    module.eval()
    losses: list[float] = []
    with torch.no_grad():
        for part in _stacks(center, vectors, shares, features.numel()):
            losses += _losses(module, layout, part, features, labels, head)
    return Losses(together=losses[0], without=tuple(losses[1:]), count=rows)


def _stacks(
    center: Vector, vectors: Sequence[Vector], shares: Sequence[float], features: int
) -> Iterator[Tensor]:
    """Yield (b, d) models: the mean first, then the mean without each, so many that memory holds them."""
    size = max(1, TOGETHER_VALUES_MAX // max(center.size, features))
    whole = torch.from_numpy(center)
    for start in range(-1, len(vectors), size):
        chosen = range(start, min(start + size, len(vectors)))
        part = torch.empty((len(chosen), center.size))
        for row, at in zip(part, chosen, strict=True):
            if at < 0:
                row.copy_(whole)
            else:  # m + s (m − u)
                torch.sub(whole, torch.tensor(vectors[at]), out=row)
                torch.add(whole, row, alpha=shares[at], out=row)
        yield part


def _losses(
    module: nn.Module,
    layout: Layout | None,
    models: Tensor,
    features: Tensor,
    labels: Tensor,
    head: str,
) -> list[float]:
    if isinstance(module, Logistic) and layout is None:
        outputs = _linear(module, models, features)
    else:
        try:
            outputs = _mapped(module, layout or Layout.of(module), models, features)
        except (RuntimeError, ValueError):
            outputs = torch.stack([_one(module, layout, model, features) for model in models])
    count = len(models)
    flat = outputs.double().reshape(count * len(features), -1)
    every = row_losses(flat, labels.repeat(count), head)
    means: list[float] = every.reshape(count, -1).mean(dim=1).tolist()
    return means


def _linear(module: Logistic, models: Tensor, features: Tensor) -> Tensor:
    """All scores in one product, (b, n, k)."""
    outputs, inputs = module.linear.weight.shape
    split = outputs * inputs
    weight = models[:, :split].reshape(-1, inputs)
    scores = (features @ weight.T).reshape(len(features), len(models), outputs)
    return scores.permute(1, 0, 2) + models[:, None, split:]


def _mapped(module: nn.Module, layout: Layout, models: Tensor, features: Tensor) -> Tensor:
    stacked, start = {}, 0
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        width = int(np.prod(shape, dtype=np.int64))
        stacked[name] = models[:, start : start + width].reshape(-1, *shape)
        start += width

    def one(tensors: dict[str, Tensor]) -> Tensor:
        scores: Tensor = functional_call(module, tensors, (features,), tie_weights=True)
        return scores

    result: Tensor = vmap(one)(stacked)
    return result


def _one(module: nn.Module, layout: Layout | None, model: Tensor, features: Tensor) -> Tensor:
    load(module, model.numpy(), layout)
    scores: Tensor = module(features)
    return scores
