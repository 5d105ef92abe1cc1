"""torch's side of a training state: tensors as arrays and back, a module, the random generator.

Room: learning. Law: the same bits come back, whatever the type; nothing is copied on the way out.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, final

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from swarm.learning.training_state import Arrays, StateError, take

GENERATOR = "generator"
_KEPT: Final = frozenset({
    torch.float64, torch.float32, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool,
})  # fmt: skip
_SAME_BITS: Final = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def to_array(tensor: Tensor) -> NDArray[Any]:
    """View a tensor as an array of a type that files have too."""
    array: NDArray[Any] = _plain(tensor).contiguous().numpy()
    return array


def _plain(tensor: Tensor) -> Tensor:
    """View complex numbers as pairs, and what is then of no kept type as integers of the same bits."""
    plain = tensor.detach()
    if plain.is_complex():
        plain = torch.view_as_real(plain)
    return plain if plain.dtype in _KEPT else plain.view(_SAME_BITS[plain.itemsize])


@torch.no_grad()
def set_tensor(tensor: Tensor, tensors: Arrays, name: str) -> None:
    """Copy a saved array into a tensor. Raises StateError unless shape and type are the same."""
    now = to_array(tensor)
    _plain(tensor).copy_(torch.from_numpy(take(tensors, name, shape=now.shape, dtype=now.dtype)))


@final
class ModuleState:
    """All that a module holds in tensors: parameters and every buffer, also those that never travel."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def state(self) -> Arrays:
        """Arrays by the tensors' names."""
        return {name: to_array(tensor) for name, tensor in self._tensors()}

    def restore(self, tensors: Arrays) -> None:
        """Copy all back."""
        mine = dict(self._tensors())
        if mine.keys() != tensors.keys():
            raise StateError("saved state is of a model with other tensors")
        for name, tensor in mine.items():
            set_tensor(tensor, tensors, name)

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from self._module.named_parameters()
        yield from self._module.named_buffers()


@final
class GeneratorState:
    """torch's global generator, from which dropout draws. Only inside ``torch_seed``."""

    def state(self) -> Arrays:
        """Its state, as bytes."""
        return {GENERATOR: to_array(torch.default_generator.get_state())}

    def restore(self, tensors: Arrays) -> None:
        """Go on drawing where it was."""
        state = torch.default_generator.get_state()
        set_tensor(state, tensors, GENERATOR)
        torch.default_generator.set_state(state)


def restore_some(
    slots: list[Tensor | None], like: list[Tensor], tensors: Mapping[str, NDArray[Any]], name: str
) -> None:
    """Fill ``slots`` from ``name.0``, ``name.1`` …; what was not saved was not there yet."""
    for at, pattern in enumerate(like):
        slots[at] = None
        if f"{name}.{at}" in tensors:
            slot = slots[at] = torch.empty_like(pattern)
            set_tensor(slot, tensors, f"{name}.{at}")
