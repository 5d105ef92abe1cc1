"""Examples by index: one face for a matrix in memory and for a hospital's own torch data set.

Room: learning. Law: a data set's tensors reach the model as they are; its labels are read once.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ledger.errors import ConfigError
from swarm.learning.dataset import ExampleSet
from swarm.learning.moments import Matrix


class Batches(Protocol):
    """What training and evaluation need of examples."""

    @property
    def labels(self) -> Tensor:
        """All labels (n,): int64 class indices, or float32 targets."""

    def __len__(self) -> int:
        """Count the examples."""

    def batch(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Stack the features (b, …) and labels (b,) of some examples."""


@dataclass(frozen=True, eq=False)
class MatrixBatches:
    """A preprocessed table: features (n, d), labels (n,)."""

    features: Tensor
    labels: Tensor

    @classmethod
    def of(cls, features: Matrix, labels: NDArray[Any]) -> "MatrixBatches":
        """Wrap numpy arrays; whole-number labels are classes."""
        kind = np.int64 if np.issubdtype(labels.dtype, np.integer) else np.float32
        return cls(torch.from_numpy(features), torch.from_numpy(labels.astype(kind)))

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Index both."""
        chosen = torch.from_numpy(indices)
        return self.features[chosen], self.labels[chosen]


class SetBatches:
    """A hospital's own data set of (x, y) pairs, loaded example by example."""

    def __init__(self, examples: ExampleSet, *, head: str, classes: int) -> None:
        self._examples = examples
        values = [_number(examples[index][1]) for index in range(len(examples))]
        dtype = torch.float32 if head == "regression" else torch.int64
        self.labels = torch.tensor(values, dtype=torch.float64).to(dtype)
        if head != "regression":
            wrong = sum(value not in range(classes) for value in values)
            if wrong:
                raise ConfigError(
                    f"data: {wrong} labels of the own data set are not a class index "
                    f"from 0 to {classes - 1}"
                )
        elif not torch.isfinite(self.labels).all():
            raise ConfigError("data: the own data set has labels that are not finite")

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Stack the examples' tensors."""
        rows = [torch.as_tensor(self._examples[int(index)][0]) for index in indices]
        return torch.stack(rows), self.labels[torch.from_numpy(indices)]


def _number(label: Any) -> float:
    try:
        return float(label)
    except (TypeError, ValueError):
        raise ConfigError("data: a label of the own data set is not a single number") from None
