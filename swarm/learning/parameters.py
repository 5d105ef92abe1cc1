"""A model's parameters as one flat float32 vector, and back.

Room: learning. Law: the layout (names, shapes, order) has a digest, so two nodes whose models differ
notice before they average. Float buffers (batch norm's running mean and variance) travel too;
integer buffers (its counter of batches) stay at home. A tied weight is stored once.

Partial training: with patterns in `training.trained` only the tensors that one of them matches are trained
and travel; all others stay as the starting model has them, and their bits are part of the layout's
digest, so that nobody averages adapters of different base models.
"""

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
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
FROZEN_DOMAIN = b"swarm/frozen/v1\n"
DISTANCE_ELEMENTS = 1 << 17
NAMES_SHOWN_MAX = 8


def shared_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield what is averaged: parameters, then persistent float buffers, in order of definition."""
    stored = set(module.state_dict(keep_vars=True))
    yield from module.named_parameters()  # tied ones once
    for name, buffer in module.named_buffers():
        if name in stored and buffer.is_floating_point():
            yield name, buffer


def all_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters (tied ones once) and every persistent buffer, in order of definition."""
    stored = set(module.state_dict(keep_vars=True))
    yield from module.named_parameters()
    for name, buffer in module.named_buffers():
        if name in stored:
            yield name, buffer


@dataclass(frozen=True)
class Layout:
    """Names and shapes of a model's shared tensors, in the order of the vector.

    frozen: names of the tensors that stay as the starting model has them, frozen_digest: SHA-256 of
    their bits; both empty without partial training.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    frozen: frozenset[str] = frozenset()
    frozen_digest: bytes = b""

    @classmethod
    def of(
        cls, module: nn.Module, *, trained: Sequence[str] = (), home: Collection[str] = ()
    ) -> Self:
        """Read the layout of a module that is as it starts.

        trained: patterns (`*`, `?`, `[…]`) of the tensors that are trained and travel; none = all.
        home: names of tensors that are trained and stay at this site (FedBN).
        Raises ConfigError on tensors that a float32 vector cannot hold and patterns without a tensor.
        """
        chosen = _chosen_by(module, trained) if trained else None
        names, shapes = [], []
        for name, tensor in shared_tensors(module):
            if is_lazy(tensor):
                raise ConfigError(
                    f'model: parameter "{name}" is lazy; give the layer its input size'
                )
            if not tensor.is_floating_point():
                raise ConfigError(f'model: parameter "{name}" is {tensor.dtype}, not a float')
            if name in home or (chosen is not None and name not in chosen):
                continue
            names.append(name)
            shapes.append(tuple(tensor.shape))
        if chosen is None:
            return cls(tuple(names), tuple(shapes))
        rest = {name: t for name, t in all_tensors(module) if name not in chosen}
        return cls(tuple(names), tuple(shapes), frozenset(rest), _bits_digest(rest))

    @property
    def count(self) -> int:
        """Number of float32 values."""
        return sum(math.prod(shape) for shape in self.shapes)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over names and shapes, and over the bits of what is frozen."""
        lines = (
            f"{name} {','.join(map(str, shape))}\n"
            for name, shape in zip(self.names, self.shapes, strict=True)
        )
        text = "".join(lines).encode()
        return hashlib.sha256(DOMAIN + text + self.frozen_digest).digest()

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


def _chosen_by(module: nn.Module, patterns: Sequence[str]) -> set[str]:
    """Names of the tensors that a pattern matches; a tied weight by any of its names."""
    aliases: dict[int, str] = {}
    matched, unused = set(), set(patterns)
    named = [*module.named_parameters(remove_duplicate=False), *all_tensors(module)]
    for name, tensor in named:
        first = aliases.setdefault(id(tensor), name)
        hits = {pattern for pattern in patterns if fnmatchcase(name, pattern)}
        unused -= hits
        if hits:
            matched.add(first)
    if unused:
        raise ConfigError(
            f'training.trained: no tensor of the model is called like "{min(unused)}"; '
            f"there are {', '.join(list(aliases.values())[:NAMES_SHOWN_MAX])}"
        )
    if not matched & {name for name, _ in module.named_parameters()}:
        raise ConfigError("training.trained: chooses no parameter of the model, so nothing learns")
    return matched


def _bits_digest(tensors: Mapping[str, Tensor]) -> bytes:
    digest = hashlib.sha256(FROZEN_DOMAIN)
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {','.join(map(str, tensor.shape))}\n".encode())
        plain = tensor.detach().to("cpu").contiguous().reshape(-1)
        digest.update(plain.view(torch.uint8).numpy().data)
    return digest.digest()


def freeze(module: nn.Module, layout: Layout) -> None:
    """Give no gradient to what the layout says is frozen."""
    for name, parameter in module.named_parameters():
        if name in layout.frozen:
            parameter.requires_grad_(False)


def _tensors(module: nn.Module, layout: Layout | None) -> Iterator[tuple[str, Tensor]]:
    """Yield those of the layout, or all that can be shared."""
    names = None if layout is None else set(layout.names)
    for name, tensor in shared_tensors(module):
        if names is None or name in names:
            yield name, tensor


def flatten(module: nn.Module, layout: Layout | None = None) -> Vector:
    """Copy the layout's tensors (without one: all shared ones) into one float32 vector (count,)."""
    tensors = [tensor.detach() for _, tensor in _tensors(module, layout)]
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


def load(module: nn.Module, vector: Vector, layout: Layout | None = None) -> None:
    """Copy a vector (count,) into a module, in place; ValueError when the length differs."""
    views = (layout or Layout.of(module)).unflatten(vector)
    with torch.no_grad():
        for name, tensor in _tensors(module, layout):
            if tensor.dtype is torch.float32 and tensor.is_contiguous() and not tensor.is_cuda:
                _copy(views[name].reshape(-1), tensor.detach().reshape(-1).numpy())
            else:
                # A copy, since payloads are read-only buffers that torch must not alias.
                tensor.copy_(torch.from_numpy(views[name].copy()))


def _copy(source: Vector, target: Vector) -> None:
    for piece in blocks(source.size, elements=RELEASE_ELEMENTS):
        np.copyto(target[piece], source[piece])
        release(source)
