"""One site's examples: tables that node/data.py read, or the hospital's own torch data sets.

Room: learning. Law: importing this module imports no torch, so a node can read its data first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from swarm.learning.moments import Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Rows of clinical data as read: nothing imputed, nothing scaled.

    columns: feature name → (n,) float64, NaN where missing; a category column holds the index of
    its value in the charter's list. labels: (n,) class indices, or targets for regression.
    """

    columns: Mapping[str, Floats]
    labels: NDArray[np.float64] | NDArray[np.int64]

    @property
    def rows(self) -> int:
        """Number of patients (or visits)."""
        return len(self.labels)

    def take(self, chosen: NDArray[np.bool_]) -> "Table":
        """Keep the chosen rows (n,), in their order."""
        columns = {name: values[chosen] for name, values in self.columns.items()}
        return Table(columns=columns, labels=self.labels[chosen])


@runtime_checkable
class ExampleSet(Protocol):
    """A torch Dataset of known length: item i is (x, y), x a tensor, y a class index or target."""

    def __len__(self) -> int:
        """Count the examples."""

    def __getitem__(self, index: int, /) -> tuple[Any, Any]:
        """Return example ``index``."""


Split: TypeAlias = Table | ExampleSet


@dataclass(frozen=True, kw_only=True, eq=False)
class SiteData:
    """What one site learns from and what it is measured on; no row is in both."""

    train: Split
    validation: Split


def count_rows(split: Split) -> int:
    """Examples in a table or data set."""
    return split.rows if isinstance(split, Table) else len(split)
