"""A model as named tensors with the moments that it needs: what a safetensors file holds.

Room: learning. Law: a snapshot without its scaling is useless, so both travel in one mapping.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ledger.errors import ConfigError
from swarm.learning.aggregation import Vector
from swarm.learning.moments import Moments
from swarm.learning.parameters import Layout

MODEL = "model."
MOMENTS = "moments"


def to_tensors(vector: Vector, layout: Layout, moments: Moments | None) -> dict[str, NDArray[Any]]:
    """Name every tensor `model.<name>`; add `moments` (3 d,) float64 where the model needs it."""
    views = layout.unflatten(vector)
    tensors: dict[str, NDArray[Any]] = {MODEL + name: view.copy() for name, view in views.items()}
    if moments is not None:
        tensors[MOMENTS] = moments.to_vector()
    return tensors


def from_tensors(
    tensors: Mapping[str, NDArray[Any]], layout: Layout
) -> tuple[Vector, Moments | None]:
    """Undo ``to_tensors``; ConfigError when the snapshot is of another model."""
    model = {
        name.removeprefix(MODEL): tensor
        for name, tensor in tensors.items()
        if name.startswith(MODEL)
    }
    try:
        vector = layout.join(model)
        moments = None
        if MOMENTS in tensors:
            moments = Moments.from_vector(tensors[MOMENTS].astype(np.float64))
    except ValueError as error:
        raise ConfigError(f"snapshot: not of this charter's model: {error}") from error
    return vector, moments
