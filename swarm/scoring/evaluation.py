"""The loss of a merge with and without each contribution, on one member's own patients.

Room: scoring. Law: nothing is merged again. The weighted mean without member j follows from the mean m
with everybody: m + w_j / (W − w_j) · (m − u_j). All n + 1 models are put to the patients in one pass:
a linear model as one matrix product, any other with torch.func's vmap over stacked parameters, and in
a loop where a module is large or cannot be mapped (it draws numbers, or looks into its values).

What is measured is a contribution to the mean, whatever robust rule the federation merges with: a rule
that drops an update would hide what the update is worth.
"""

import contextlib
import math
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
from swarm.learning.parameters import Layout
from swarm.learning.rows import Vector
from swarm.learning.training import row_losses

TOGETHER_VALUES_MAX: Final = 1 << 20
"""Parameters (4 MiB) of stacked models held at a time: they stay near the processor."""
MAPPED_VALUES_MAX: Final = 1 << 15
ROWS_MAX: Final = 512
"""Patients looked at: their number hardly sharpens a median over many members any more."""
ROWS_MIN: Final = 32
BUDGET: Final = 0.15
"""Part of its training's work that a member spends on scoring a network."""
PASSES: Final = 3
"""Forward passes that a training step on a row costs."""


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
    rows_max: int = ROWS_MAX,
) -> Losses:
    """Evaluate the mean of at least two contributions and each mean that lacks one of them.

    module: put into evaluation mode; what it holds is not changed. layout: of the parameters, where some of
    the module's tensors stay as they are; None: all shared ones.
    patients: at least one; at most ``rows_max`` of them, evenly chosen, are looked at.
    Raises ValueError for fewer contributions or patients, or where one has all the weight.
    """
    rows = min(len(patients), rows_max)
    if len(contributions) < 2 or not rows:
        raise ValueError("scores need two contributions and one patient")
    ordered = [(one.parameters, one.weight_micro, one.digest) for one in contributions]
    vectors, weights, digests = (list(column) for column in zip(*ordered, strict=True))
    center = weighted_mean(vectors, weights, digests)
    total = sum(weights)
    if max(weights) >= total:
        raise ValueError("a contribution with all the weight cannot be left out")
    shares = [weight / (total - weight) for weight in weights]
    features, labels = patients.batch(np.arange(rows) * len(patients) // rows)
    if layout is None and not isinstance(module, Logistic):
        layout = Layout.of(module)
    module.eval()
    losses: list[float] = []
    with torch.no_grad():
        for part in _stacks(center, vectors, shares, features.numel()):
            losses += _losses(module, layout, part, features, labels, head)
    return Losses(together=losses[0], without=tuple(losses[1:]), count=rows)


def rows_within_budget(trained_rows: int, contributions: int) -> int:
    """How many patients a network may be put to, so that scoring costs BUDGET of a round's training.

    trained_rows: rows that the member's local steps see in a round, each as often as it is seen.
    """
    affordable = int(BUDGET * PASSES * trained_rows / (contributions + 1))
    return max(ROWS_MIN, min(affordable, ROWS_MAX))


def _stacks(
    center: Vector, vectors: Sequence[Vector], shares: Sequence[float], features: int
) -> Iterator[Tensor]:
    """Yield (b, d) models: the mean first, then the mean without each. One is done with before the next."""
    whole = torch.from_numpy(center)
    if center.size > MAPPED_VALUES_MAX:  # one after the other, in one place
        yield whole[None]
        place = np.empty_like(center)
        for vector, share in zip(vectors, shares, strict=True):
            np.subtract(center, vector, out=place)
            np.multiply(place, np.float32(share), out=place)
            np.add(center, place, out=place)
            yield torch.from_numpy(place)[None]
        return
    size = max(1, TOGETHER_VALUES_MAX // max(center.size, features))
    for start in range(-1, len(vectors), size):
        chosen = range(start, min(start + size, len(vectors)))
        left_out = [at for at in chosen if at >= 0]
        part = whole.repeat(len(chosen), 1)
        if left_out:  # m + s (m − u)
            away = whole - torch.from_numpy(np.stack([vectors[at] for at in left_out]))
            factors = torch.tensor([shares[at] for at in left_out], dtype=whole.dtype)
            part[len(chosen) - len(left_out) :] += away.mul_(factors[:, None])
        yield part


def _losses(
    module: nn.Module,
    layout: Layout | None,
    models: Tensor,
    features: Tensor,
    labels: Tensor,
    head: str,
) -> list[float]:
    if layout is None:
        outputs = _linear(models, features)
    else:
        outputs = _outputs(module, layout, models, features)
    count = len(models)
    flat = outputs.double().reshape(count * len(features), -1)
    every = row_losses(flat, labels.repeat(count), head)
    means: list[float] = every.reshape(count, -1).mean(dim=1).tolist()
    return means


def _linear(models: Tensor, features: Tensor) -> Tensor:
    """All scores of swarm.learning.models.Logistic in one product, (b, n, k)."""
    inputs = features.shape[1]
    outputs = models.shape[1] // (inputs + 1)
    split = outputs * inputs
    weight = models[:, :split].reshape(-1, inputs)
    scores = (features @ weight.T).reshape(len(features), len(models), outputs)
    return scores.permute(1, 0, 2) + models[:, None, split:]


def _outputs(module: nn.Module, layout: Layout, models: Tensor, features: Tensor) -> Tensor:
    """(b, n, k) raw outputs: mapped over small models, one by one where weights outweigh the rows."""

    def one(vector: Tensor) -> Tensor:
        named, start = {}, 0
        for name, shape in zip(layout.names, layout.shapes, strict=True):
            stop = start + math.prod(shape)
            named[name] = vector[start:stop].reshape(shape)
            start = stop
        scores: Tensor = functional_call(module, named, (features,), tie_weights=True)
        return scores

    if models.shape[1] <= MAPPED_VALUES_MAX:
        with contextlib.suppress(RuntimeError, ValueError):  # it draws, or looks into its values
            mapped: Tensor = vmap(one)(models)
            return mapped
    return torch.stack([one(model) for model in models])
