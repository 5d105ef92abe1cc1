"""The built-in models' layers. Room: learning. Charter arguments are read in models.py.

Law: every starting parameter is drawn here, from PCG64's raw bits with exact arithmetic, so it is the same
on every machine, torch and numpy version.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

BLOCK_ELEMENTS = 1 << 18  # numbers drawn at a time, to spare memory
POOL = 2  # each convolution halves every length


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


class Cnn(nn.Module):
    """Convolutions over signals or pictures, each with ReLU and max-pooling by 2, then one linear layer.

    shape: of one example, (channels, length) or (channels, height, width). channels: of each
    convolution's output. kernel: odd, the width of each.
    """

    def __init__(
        self,
        shape: Sequence[int],
        outputs: int,
        channels: Sequence[int],
        *,
        kernel: int,
        batch_norm: bool,
    ) -> None:
        super().__init__()
        is_picture = len(shape) == 3
        convolution = nn.Conv2d if is_picture else nn.Conv1d
        norm = nn.BatchNorm2d if is_picture else nn.BatchNorm1d
        pool = nn.MaxPool2d if is_picture else nn.MaxPool1d
        layers: list[nn.Module] = []
        width, *lengths = shape
        for wider in channels:
            layers.append(convolution(width, wider, kernel, padding=kernel // 2))
            if batch_norm:
                layers.append(norm(wider))
            layers += [nn.ReLU(), pool(POOL, ceil_mode=True)]
            width, lengths = wider, [-(-length // POOL) for length in lengths]
        layers += [nn.Flatten(), nn.Linear(width * math.prod(lengths), outputs)]
        self.shape = tuple(shape)
        self.layers = nn.Sequential(*layers)

    def forward(self, examples: Tensor) -> Tensor:
        """(n, …) with as many values an example as the shape has → (n, outputs) logits."""
        scores: Tensor = self.layers(examples.reshape(len(examples), *self.shape))
        return scores


def start(module: nn.Module, seed: int) -> None:
    """Draw linear and convolution layers uniformly from ±1/√(inputs of one output), in order."""
    bits = np.random.PCG64(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            for tensor in (layer.weight, layer.bias):
                if tensor is not None:
                    _draw(tensor, bits, bound)


def _draw(tensor: Tensor, bits: np.random.PCG64, bound: float) -> None:
    values = np.empty(tensor.numel(), dtype=np.float32)
    for first in range(0, values.size, BLOCK_ELEMENTS):
        block = values[first : first + BLOCK_ELEMENTS]
        unit = (bits.random_raw(block.size) >> np.uint64(11)) * 2.0**-53
        block[:] = (2 * unit - 1) * bound
    with torch.no_grad():
        tensor.copy_(torch.from_numpy(values).reshape(tensor.shape))
