"""The models a charter can name, and the door for a hospital's own.

Room: learning. Law: no class name that comes from a peer is ever imported: `python:` models load
only from packages that the site's own configuration allows. Built-in models start from the same
bits on every machine and torch version: their numbers come from PCG64, not from torch.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Final

from torch import nn

from ledger.charter import ModelSpec
from ledger.errors import ConfigError
from swarm.learning.networks import Cnn, Logistic, Mlp, start
from swarm.learning.own_code import PYTHON, load_own
from swarm.learning.seeding import torch_seed

__all__ = ["Logistic", "build_model"]

LAYERS_MAX: Final = 16
UNITS_MAX: Final = 65_536
KERNEL_MAX: Final = 63
VALUES_MAX: Final = 1 << 24
"""Of one example of a `cnn`."""


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
    if inputs < 1 and spec.name in ("logistic", "mlp"):
        raise ConfigError(f'model.name: "{spec.name}" needs [[data.features]] in the charter')
    match spec.name:
        case "logistic":
            _known_arguments(spec, ())
            return Logistic(inputs, outputs)
        case "mlp":
            make = _mlp(spec, inputs)
        case "cnn":
            make = _cnn(spec, inputs)
        case _:
            raise ConfigError(
                f'model.name: "{spec.name}" is unknown; use "logistic", "mlp", "cnn" or '
                '"python:package.module:Class"'
            )
    with torch_seed(seed):  # layers draw numbers as they are made; they are replaced below
        model = make(outputs)
    start(model, seed)
    return model


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


def _mlp(spec: ModelSpec, inputs: int) -> Callable[[int], nn.Module]:
    _known_arguments(spec, ("hidden", "dropout", "batch_norm"))
    hidden = _widths(spec, "hidden", (16,))
    batch_norm = _batch_norm(spec)
    dropout = spec.arguments.get("dropout", 0.0)
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise ConfigError("model.arguments.dropout: need a number from 0 to below 1")
    return lambda outputs: Mlp(
        inputs, outputs, hidden, dropout=float(dropout), batch_norm=batch_norm
    )


def _cnn(spec: ModelSpec, inputs: int) -> Callable[[int], nn.Module]:
    _known_arguments(spec, ("shape", "channels", "kernel", "batch_norm"))
    shape = _widths(spec, "shape", ())
    if len(shape) not in (2, 3) or math.prod(shape) > VALUES_MAX:
        raise ConfigError(
            "model.arguments.shape: need [channels, length] or [channels, height, width], "
            "like [1, 64] or [1, 8, 8]"
        )
    if inputs and inputs != math.prod(shape):
        raise ConfigError(
            f"model.arguments.shape: {list(shape)} are {math.prod(shape)} values, "
            f"and the charter's columns are {inputs}"
        )
    channels = _widths(spec, "channels", (8, 16))
    kernel = spec.arguments.get("kernel", 3)
    if type(kernel) is not int or not 1 <= kernel <= KERNEL_MAX or kernel % 2 == 0:
        raise ConfigError(f"model.arguments.kernel: need an odd number from 1 to {KERNEL_MAX}")
    batch_norm = _batch_norm(spec)
    return lambda outputs: Cnn(shape, outputs, channels, kernel=kernel, batch_norm=batch_norm)


def _widths(spec: ModelSpec, key: str, usual: tuple[int, ...]) -> tuple[int, ...]:
    widths = spec.arguments.get(key, usual)
    if (
        not isinstance(widths, tuple)
        or len(widths) > LAYERS_MAX
        or any(type(width) is not int or not 0 < width <= UNITS_MAX for width in widths)
    ):
        raise ConfigError(
            f"model.arguments.{key}: need a list of at most {LAYERS_MAX} whole numbers "
            f"from 1 to {UNITS_MAX}, like [32, 16]"
        )
    return tuple(width for width in widths if isinstance(width, int))


def _batch_norm(spec: ModelSpec) -> bool:
    batch_norm = spec.arguments.get("batch_norm", False)
    if not isinstance(batch_norm, bool):
        raise ConfigError("model.arguments.batch_norm: need true or false")
    return batch_norm


def _known_arguments(spec: ModelSpec, known: Sequence[str]) -> None:
    unknown = sorted(set(spec.arguments) - set(known))
    if unknown:
        valid = ", ".join(known) or "no arguments"
        raise ConfigError(
            f'model.arguments: "{spec.name}" does not know {", ".join(unknown)}; it takes {valid}'
        )
