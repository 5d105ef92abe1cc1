"""A model's parameters as one flat float32 vector, and back.

Room: learning. Law: the layout (names, shapes, order) has a digest, so two nodes whose models differ
notice before they average. Float buffers (batch norm's running mean and variance) travel too;
integer buffers (its counter of batches) stay at home. A tied weight is stored once.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ledger.errors import ConfigError
from swarm.learning.mapped import RELEASE_ELEMENTS, release, roomy
from swarm.learning.rows import Vector, blocks

DOMAIN = b"swarm/layout/v1\n"
DISTANCE_ELEMENTS = 1 << 17


def shared_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield what is averaged: parameters, then persistent float buffers, in order of definition."""
    stored = set(module.state_dict(keep_vars=True))
    yield from module.named_parameters()  # tied ones once
    for name, buffer in module.named_buffers():
        if name in stored and buffer.is_floating_point():
            yield name, buffer


@dataclass(frozen=True)
class Layout:
    """Names and shapes of a model's shared tensors, in the order of the vector."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, module: nn.Module) -> Self:
        """Read a module's layout; ConfigError on tensors that a float32 vector cannot hold."""
        names, shapes = [], []
        for name, tensor in shared_tensors(module):
            if is_lazy(tensor):
                raise ConfigError(
                    f'model: parameter "{name}" is lazy; give the layer its input size'
                )
            if not tensor.is_floating_point():
                raise ConfigError(f'model: parameter "{name}" is {tensor.dtype}, not a float')
            names.append(name)
            shapes.append(tuple(tensor.shape))
        return cls(tuple(names), tuple(shapes))

    @property
    def count(self) -> int:
        """Number of float32 values."""
        return sum(math.prod(shape) for shape in self.shapes)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over names and shapes."""
        lines = (
            f"{name} {','.join(map(str, shape))}\n"
            for name, shape in zip(self.names, self.shapes, strict=True)
        )
        return hashlib.sha256(DOMAIN + "".join(lines).encode()).digest()

    def unflatten(self, vector: Vector) -> dict[str, Vector]:
        """Cut the vector (count,) into named arrays (views)."""
        if vector.shape != (self.count,):
            raise ValueError(f"expected {self.count} values, got shape {vector.shape}")
        result, start = {}, 0
        for name, shape in zip(self.names, self.shapes, strict=True):
            stop = start + math.prod(shape)
            result[name] = vector[start:stop].reshape(shape)
            start = stop
        return result

    def join(self, tensors: Mapping[str, Vector]) -> Vector:
        """Undo ``unflatten``; ValueError when names or shapes differ."""
        if set(tensors) != set(self.names):
            raise ValueError(f"expected the tensors {', '.join(self.names)}")
        for name, shape in zip(self.names, self.shapes, strict=True):
            if tensors[name].shape != shape:
                raise ValueError(f'tensor "{name}" has shape {tensors[name].shape}, not {shape}')
        parts = [tensors[name].astype(np.float32).reshape(-1) for name in self.names]
        return np.concatenate(parts) if parts else np.empty(0, np.float32)


def flatten(module: nn.Module) -> Vector:
    """Copy a module's shared tensors into one float32 vector (count,)."""
    tensors = [tensor.detach() for _, tensor in shared_tensors(module)]
    vector = roomy(sum(tensor.numel() for tensor in tensors))
    start = 0
    for tensor in tensors:
        stop = start + tensor.numel()
        vector[start:stop] = tensor.to("cpu", torch.float32).reshape(-1).numpy()
        start = stop
    return vector


def distance(one: Vector, other: Vector) -> float:
    """Euclidean distance of two vectors (d,), summed in float64, in blocks to spare memory.

    For claims and logs: what steers a rule takes the folded sums, which are the same everywhere.
    """
    squares = 0.0
    for piece in blocks(len(one), elements=DISTANCE_ELEMENTS):
        if piece.start % RELEASE_ELEMENTS == 0:
            release(one)
            release(other)
        difference = one[piece].astype(np.float64) - other[piece]
        squares += float(np.square(difference).sum())
    return math.sqrt(squares)


def load(module: nn.Module, vector: Vector) -> None:
    """Copy a vector (count,) into a module, in place; ValueError when the length differs."""
    views = Layout.of(module).unflatten(vector)
    with torch.no_grad():
        for name, tensor in shared_tensors(module):
            if tensor.dtype is torch.float32 and tensor.is_contiguous() and not tensor.is_cuda:
                _copy(views[name].reshape(-1), tensor.detach().reshape(-1).numpy())
            else:
                # A copy, since payloads are read-only buffers that torch must not alias.
                tensor.copy_(torch.from_numpy(views[name].copy()))


def _copy(source: Vector, target: Vector) -> None:
    for piece in blocks(source.size, elements=RELEASE_ELEMENTS):
        np.copyto(target[piece], source[piece])
        release(source)
