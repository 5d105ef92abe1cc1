"""Everything that the next training step depends on, as named arrays: what a restart goes on from.

Room: learning. Law: whoever takes part in training and remembers something between two steps is
`Stateful`; an array that is not in here does not survive a crash. Knows no torch, no file, no clock.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
NO_MEMORY: Final[Arrays] = MappingProxyType({})


class StateError(ValueError):
    """A saved state is of another model or optimiser: begin the round anew."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingState:
    """A moment between two steps: named arrays, and integers (how many steps were taken, …)."""

    tensors: Arrays
    numbers: Mapping[str, int] = field(default_factory=dict)


class Stateful(Protocol):
    """Something that training changes from step to step: a model, an optimiser, a residual."""

    def state(self) -> Arrays:
        """Return its arrays by name; they may be views and change with the next step."""

    def restore(self, tensors: Arrays) -> None:
        """Undo ``state``, bit for bit. Raises StateError when the arrays are not its own."""


class Keeper(Protocol):
    """Decides when a state is kept, and keeps it (node/training_snapshots.py)."""

    def resume(self) -> TrainingState | None:
        """Return the state that was kept for this very piece of training, if there is one."""

    def after_step(self, capture: Callable[[], TrainingState]) -> None:
        """Keep a state if it is time to; its arrays are valid only until this returns."""

    def discard(self) -> None:
        """Forget what was kept: it did not fit, or it is not needed any more."""


def together(parts: Mapping[str, Arrays]) -> Arrays:
    """Join the arrays of several, each called ``part.array``."""
    return {f"{name}.{key}": array for name, part in parts.items() for key, array in part.items()}


def part_of(arrays: Arrays, name: str) -> Arrays:
    """Return one part of what ``together`` joined."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): a for key, a in arrays.items() if key.startswith(prefix)}


def capture(parts: Mapping[str, Stateful], numbers: Mapping[str, int]) -> TrainingState:
    """Gather what every part remembers, as ``part.array``."""
    tensors = together({name: part.state() for name, part in parts.items()})
    return TrainingState(tensors=tensors, numbers=dict(numbers))


def restore(parts: Mapping[str, Stateful], state: TrainingState) -> None:
    """Give every part its arrays back. Raises StateError; then some parts are neither old nor new."""
    unknown = {name.partition(".")[0] for name in state.tensors} - set(parts)
    if unknown:
        raise StateError(
            f"saved state has parts that training has not: {', '.join(sorted(unknown))}"
        )
    for name, part in parts.items():
        part.restore(part_of(state.tensors, name))


def take(
    tensors: Arrays, name: str, *, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Return one saved array. Raises StateError unless it is there with that shape and type."""
    array = tensors.get(name)
    if array is None or array.shape != shape or array.dtype != dtype:
        found = "absent" if array is None else f"{array.dtype}{array.shape}"
        raise StateError(f"saved {name} is {found}, expected {dtype}{shape}")
    return array
