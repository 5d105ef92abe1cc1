"""torch's own update rules as plain functions over plain state.

Room: learning. torch's optimiser classes load its compiler merely to switch it off, 76 MB and 0.7 s
of a node's start (docs/adr/0004); the functions under them do the same arithmetic without it, and their
state is a list of tensors that a snapshot can hold.
"""

from collections.abc import Sequence
from typing import Any, Final, Protocol, final

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from ledger.charter import Training
from swarm.learning.torch_state import restore_some, set_tensor, to_array
from swarm.learning.training_state import Arrays

BETAS: Final = (0.9, 0.999)
EPSILON: Final = 1e-8


class Optimiser(Protocol):
    """One step along the gradients that ``backward`` left."""

    def step(self) -> None:
        """Update the parameters in place and forget their gradients."""

    def state(self) -> Arrays:
        """What it remembers between steps, by name (training_state.Stateful)."""

    def restore(self, tensors: Arrays) -> None:
        """Undo ``state``. Raises StateError."""


def make_optimiser(parameters: Sequence[nn.Parameter], training: Training) -> Optimiser:
    """Return the charter's optimiser with fresh state. Frozen parameters stay as they are."""
    learnable = [parameter for parameter in parameters if parameter.requires_grad]
    return Sgd(learnable, training) if training.optimiser == "sgd" else Adam(learnable, training)


def _with_gradients(parameters: Sequence[nn.Parameter]) -> tuple[list[int], list[Tensor]]:
    """Which parameters this step reached (a model may leave some out), and their gradients."""
    reached = [at for at, parameter in enumerate(parameters) if parameter.grad is not None]
    gradients = [gradient for p in parameters if (gradient := p.grad) is not None]
    return reached, gradients


def _forget(parameters: Sequence[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None


@final
class Sgd:
    """Stochastic gradient descent with momentum and weight decay."""

    def __init__(self, parameters: Sequence[nn.Parameter], training: Training) -> None:
        self._parameters = parameters
        self._training = training
        self._momentum: list[Tensor | None] = [None for _ in parameters]

    @torch.no_grad()
    def step(self) -> None:
        """Take one step."""
        reached, gradients = _with_gradients(self._parameters)
        momentum = [self._momentum[at] for at in reached]
        sgd(
            [self._parameters[at] for at in reached],
            gradients,
            momentum,
            foreach=False,
            weight_decay=self._training.weight_decay,
            momentum=self._training.momentum,
            lr=self._training.learning_rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )
        for at, buffer in zip(reached, momentum, strict=True):
            self._momentum[at] = buffer
        _forget(self._parameters)

    def state(self) -> Arrays:
        """Momentum of every parameter that a step has reached; none without momentum."""
        return _named("momentum", self._momentum)

    def restore(self, tensors: Arrays) -> None:
        """Undo ``state``."""
        restore_some(self._momentum, list(self._parameters), tensors, "momentum")


@final
class Adam:
    """Adam, or AdamW with decoupled weight decay. Kingma & Ba 2015; Loshchilov & Hutter 2019."""

    def __init__(self, parameters: Sequence[nn.Parameter], training: Training) -> None:
        self._parameters = parameters
        self._training = training
        self._rule = adamw if training.optimiser == "adamw" else adam
        self._means = [torch.zeros_like(parameter) for parameter in parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in parameters]
        self._steps = [torch.zeros(()) for _ in parameters]

    @torch.no_grad()
    def step(self) -> None:
        """Take one step."""
        reached, gradients = _with_gradients(self._parameters)
        self._rule(
            [self._parameters[at] for at in reached],
            gradients,
            [self._means[at] for at in reached],
            [self._squares[at] for at in reached],
            [],
            [self._steps[at] for at in reached],
            foreach=False,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=self._training.learning_rate,
            weight_decay=self._training.weight_decay,
            eps=EPSILON,
            maximize=False,
        )
        _forget(self._parameters)

    def state(self) -> Arrays:
        """Running means, squares and step counts of every parameter."""
        slots = {"mean": self._means, "square": self._squares, "steps": self._steps}
        return {k: v for name, tensors in slots.items() for k, v in _named(name, tensors).items()}

    def restore(self, tensors: Arrays) -> None:
        """Undo ``state``."""
        slots = {"mean": self._means, "square": self._squares, "steps": self._steps}
        for name, mine in slots.items():
            for at, tensor in enumerate(mine):
                set_tensor(tensor, tensors, f"{name}.{at}")


def _named(name: str, tensors: Sequence[Tensor | None]) -> dict[str, NDArray[Any]]:
    return {f"{name}.{at}": to_array(t) for at, t in enumerate(tensors) if t is not None}
