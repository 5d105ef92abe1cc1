"""The models a charter can name, and the door for a hospital's own.

Room: learning. Law: no class name that comes from a peer is ever imported: `python:` models load
only from packages that the site's own configuration allows. Built-in models start from the same
bits on every machine and torch version: their numbers come from PCG64, not from torch.
"""

import inspect
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ledger.charter import ModelSpec
from ledger.errors import ConfigError
from swarm.learning.own_code import PYTHON, load_own
from swarm.learning.seeding import torch_seed

HIDDEN_LAYERS_MAX = 16
HIDDEN_UNITS_MAX = 65_536
BLOCK_ELEMENTS = 1 << 18  # numbers drawn at a time, to spare memory


class Logistic(nn.Module):
    """Linear scores; starts at zero, so every site's first step is the same convex problem."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(n, inputs) → (n, outputs) logits."""
        scores: Tensor = self.linear(features)
        return scores


class Mlp(nn.Module):
    """Fully connected layers with ReLU, optional batch norm before and dropout after it."""

    def __init__(
        self, inputs: int, outputs: int, hidden: Sequence[int], *, dropout: float, batch_norm: bool
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in hidden:
            layers.append(nn.Linear(inputs, width))
            if batch_norm:
                layers.append(nn.BatchNorm1d(width))
            layers.append(nn.ReLU())
            if dropout:
                layers.append(nn.Dropout(dropout))
            inputs = width
        layers.append(nn.Linear(inputs, outputs))
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """(n, inputs) → (n, outputs) logits."""
        scores: Tensor = self.layers(features)
        return scores


def build_model(
    spec: ModelSpec, *, inputs: int, outputs: int, seed: int, allow: Sequence[str]
) -> nn.Module:
    """Build the charter's model with its seeded starting parameters.

    inputs: width of the feature matrix (0 for the hospital's own data sets). outputs: 1 for binary
    and regression, else the number of classes. allow: top packages from which `python:` may load.
    Raises ConfigError in one line when the name or an argument is wrong.
    """
    if spec.name.startswith(PYTHON):
        with torch_seed(seed):
            return _own_model(spec, inputs=inputs, outputs=outputs, allow=allow)
    if inputs < 1:
        raise ConfigError(f'model.name: "{spec.name}" needs [[data.features]] in the charter')
    if spec.name == "logistic":
        _known_arguments(spec, ())
        return Logistic(inputs, outputs)
    if spec.name == "mlp":
        return _mlp(spec, inputs=inputs, outputs=outputs, seed=seed)
    raise ConfigError(
        f'model.name: "{spec.name}" is unknown; use "logistic", "mlp" or "python:package.module:Class"'
    )


def _own_model(spec: ModelSpec, *, inputs: int, outputs: int, allow: Sequence[str]) -> nn.Module:
    """Call the hospital's class; it may ask for `inputs` and `outputs` by name."""
    factory = load_own(spec.name, allow=allow, key="model.name")
    arguments = dict(spec.arguments)
    try:
        accepted = inspect.signature(factory).parameters
        for name, value in (("inputs", inputs), ("outputs", outputs)):
            if name in accepted and name not in arguments:
                arguments[name] = value
        model = factory(**arguments)
    except Exception as error:
        raise ConfigError(
            f'model.arguments: "{spec.name}" refused them: {type(error).__name__}: {error}'
        ) from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f'model.name: "{spec.name}" gave a {type(model).__name__}, not a Module')
    return model


def _mlp(spec: ModelSpec, *, inputs: int, outputs: int, seed: int) -> Mlp:
    _known_arguments(spec, ("hidden", "dropout", "batch_norm"))
    hidden = spec.arguments.get("hidden", (16,))
    dropout = spec.arguments.get("dropout", 0.0)
    batch_norm = spec.arguments.get("batch_norm", False)
    if (
        not isinstance(hidden, tuple)
        or len(hidden) > HIDDEN_LAYERS_MAX
        or any(type(width) is not int or not 0 < width <= HIDDEN_UNITS_MAX for width in hidden)
    ):
        raise ConfigError(
            f"model.arguments.hidden: need a list of at most {HIDDEN_LAYERS_MAX} layer widths "
            f"from 1 to {HIDDEN_UNITS_MAX}, like [32, 16]"
        )
    widths = tuple(width for width in hidden if isinstance(width, int))
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise ConfigError("model.arguments.dropout: need a number from 0 to below 1")
    if not isinstance(batch_norm, bool):
        raise ConfigError("model.arguments.batch_norm: need true or false")
    with torch_seed(seed):  # nn.Linear draws numbers as it is made; they are replaced below
        model = Mlp(inputs, outputs, widths, dropout=float(dropout), batch_norm=batch_norm)
    _start_linear_layers(model, seed)
    return model


def _start_linear_layers(module: nn.Module, seed: int) -> None:
    """Draw every linear layer uniformly from ±1/√inputs: PCG64's raw bits and exact arithmetic."""
    bits = np.random.PCG64(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            bound = 1 / math.sqrt(layer.in_features)
            for tensor in (layer.weight, layer.bias):
                values = np.empty(tensor.numel(), dtype=np.float32)
                for start in range(0, values.size, BLOCK_ELEMENTS):
                    block = values[start : start + BLOCK_ELEMENTS]
                    unit = (bits.random_raw(block.size) >> np.uint64(11)) * 2.0**-53
                    block[:] = (2 * unit - 1) * bound
                with torch.no_grad():
                    tensor.copy_(torch.from_numpy(values).reshape(tensor.shape))


def _known_arguments(spec: ModelSpec, known: Sequence[str]) -> None:
    unknown = sorted(set(spec.arguments) - set(known))
    if unknown:
        valid = ", ".join(known) or "no arguments"
        raise ConfigError(
            f'model.arguments: "{spec.name}" does not know {", ".join(unknown)}; it takes {valid}'
        )
