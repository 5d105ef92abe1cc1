"""Local steps of one round on one site's examples.

Room: learning. Law: the same module, examples and seed give the same bits on the same machine with
one thread; nothing of the optimiser outlives the round. Between two steps everything that the next
one depends on is a TrainingState, so a node that dies goes on from there to the same bits.
Regression labels are used in the units of the data (no standardisation): scale the target in
`query` when it is far from 1, or the loss and the learning rate must be read in its square.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase as NormBase

from ledger.charter import Training
from ledger.errors import ConfigError
from swarm.learning.aggregation import Vector
from swarm.learning.batches import Batches
from swarm.learning.local import LocalSite
from swarm.learning.optimisers import make_optimiser
from swarm.learning.parameters import Layout, flatten, freeze
from swarm.learning.seeding import torch_seed
from swarm.learning.torch_state import GeneratorState, ModuleState
from swarm.learning.training_state import Keeper, Stateful, capture, restore

STEPS = "steps"  # how many were taken, in a training state
Correct: TypeAlias = Callable[[int], None]
"""Changes the gradients that ``backward`` left, before the step of that number (from 0) is taken."""
EVALUATION_ROWS = 4096  # rows a forward pass takes at once when nothing is learned


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainResult:
    """Parameters after the steps; mean training loss (unweighted, dropout off) before and after."""

    parameters: Vector
    steps: int
    samples: int
    loss_before: float
    loss_after: float


def train_site(site: LocalSite, correct: Correct | None = None) -> TrainResult:
    """Take the charter's local steps in place, from the parameters that the module holds.

    correct: a strategy's change of the gradients, called before each step. The site's keeper, if it
    has one, resumes from its state to the same bits as without a break, and is shown the state after
    every step. Raises ConfigError when the parameters stop being finite (the federation's learning
    rate is too high for this site), StateError when the keeper's state is not of this training; the
    module then holds nothing of use.
    """
    module, data, training, head = site.module, site.batches, site.training, site.head
    class_weights = class_weights_of(site)
    freeze(module, site.layout)
    resting = _resting_layers(module, site.layout)
    loss_before = mean_loss(module, data, head)
    optimiser = make_optimiser(list(module.parameters()), training)
    module.zero_grad()
    parts: dict[str, Stateful] = {
        "module": ModuleState(module),
        "optimiser": optimiser,
        "random": GeneratorState(),
    }
    with torch_seed(site.seed):
        steps = _resumed(site.keeper, parts)
        for indices in islice(batch_indices(len(data), training, site.seed), steps, None):
            _set_training(module, resting, rows=len(indices))
            batch_loss(module, data, indices, head, class_weights).backward()  # type: ignore[no-untyped-call]
            if correct is not None:
                correct(steps)
            optimiser.step()
            steps += 1
            if site.keeper is not None:
                site.keeper.after_step(partial(capture, parts, {STEPS: steps}))
    parameters = flatten(module, site.layout)
    if not np.isfinite(parameters).all():
        unit = ", or the label's unit too small" if head == "regression" else ""
        raise ConfigError(
            "training.learning_rate: training diverged (parameters are no longer finite); "
            f"{training.learning_rate} is too high for this site's data{unit}"
        )
    return TrainResult(
        parameters=parameters,
        steps=steps,
        samples=len(data),
        loss_before=loss_before,
        loss_after=mean_loss(module, data, head),
    )


def batch_loss(
    module: nn.Module,
    data: Batches,
    indices: NDArray[np.int64],
    head: str,
    class_weights: Tensor | None,
) -> Tensor:
    """Mean loss of some rows, each weighted by its class; a scalar that gradients flow from."""
    features, labels = data.batch(indices)
    losses = row_losses(module(features), labels, head)
    if class_weights is not None:
        losses = losses * class_weights[labels.long()]
    return losses.mean()


def _resumed(keeper: Keeper | None, parts: Mapping[str, Stateful]) -> int:
    """Put the kept state back and return how many steps it has behind it."""
    state = keeper.resume() if keeper is not None else None
    if state is None:
        return 0
    restore(parts, state)
    return state.numbers[STEPS]


def batch_indices(rows: int, training: Training, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield shuffled mini-batches, a fresh order each pass, until the charter's steps are taken.

    A last batch of one row joins the one before it: batch norm cannot normalise a single row.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    starts = _batch_starts(rows, training)
    stops = [*starts[1:], rows]
    steps = steps_of_a_round(rows, training)
    taken = 0
    while taken < steps:
        order = generator.permutation(rows)
        for start, stop in zip(starts, stops, strict=True):
            if taken == steps:
                return
            yield order[start:stop]
            taken += 1


def steps_of_a_round(rows: int, training: Training) -> int:
    """Optimiser steps that a site with so many rows takes in one round."""
    return training.local_steps or training.local_epochs * len(_batch_starts(rows, training))


def _batch_starts(rows: int, training: Training) -> list[int]:
    starts = list(range(0, rows, min(training.batch_size, rows)))
    if len(starts) > 1 and rows - starts[-1] == 1:
        starts.pop()
    return starts


def row_losses(outputs: Tensor, labels: Tensor, head: str) -> Tensor:
    """Loss of each row (n,): logistic, cross-entropy or squared error. outputs: (n, k) or (n,)."""
    if head == "multiclass":
        return functional.cross_entropy(outputs, labels.long(), reduction="none")
    outputs = outputs.reshape(len(labels))
    targets = labels.to(outputs.dtype)
    if head == "binary":
        return functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
    return functional.mse_loss(outputs, targets, reduction="none")


def predict(module: nn.Module, data: Batches) -> NDArray[np.float32]:
    """Raw outputs (n, k) in the order of the data, dropout off, running statistics untouched."""
    module.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(data), EVALUATION_ROWS):
            indices = np.arange(start, min(start + EVALUATION_ROWS, len(data)))
            parts.append(module(data.batch(indices)[0]).float().reshape(len(indices), -1))
    scores: NDArray[np.float32] = torch.cat(parts).numpy()
    return scores


def mean_loss(module: nn.Module, data: Batches, head: str) -> float:
    """Mean of ``row_losses`` over all rows with the module in evaluation mode."""
    outputs = torch.from_numpy(predict(module, data)).double()
    return float(row_losses(outputs, data.labels, head).mean())


def balanced_weights(counts: Tensor) -> Tensor:
    """Rows / (classes · rows of the class), (classes,): each class counts the same, a row 1 on average."""
    present = int((counts > 0).sum())
    return counts.sum() / (present * counts.clamp(min=1)).float()


def class_weights_of(site: LocalSite) -> Tensor | None:
    """Weights of the classes, (classes,); None: every row counts the same."""
    if site.training.class_weights == "none" or site.head == "regression":
        return None
    if site.training.class_weights == "balanced":
        return balanced_weights(torch.bincount(site.batches.labels.long()))
    if site.class_weights is None:
        raise ValueError('class_weights = "federated" needs the counts of round 0')
    return site.class_weights


def _resting_layers(module: nn.Module, layout: Layout) -> list[nn.Module]:
    """Norm layers whose running statistics are frozen: in training they would move on."""
    return [
        layer
        for name, layer in module.named_modules()
        if isinstance(layer, NormBase) and f"{name}.running_mean".lstrip(".") in layout.frozen
    ]


def _set_training(module: nn.Module, resting: Sequence[nn.Module], *, rows: int) -> None:
    module.train()
    for layer in resting:
        layer.eval()
    if rows == 1:  # only when the site or the charter's batch has a single row
        for layer in module.modules():
            if isinstance(layer, NormBase):
                layer.eval()
