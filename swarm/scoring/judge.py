"""One site's measuring of others' contributions: bytes in, numbers out. What a node calls (node.hospital.Judge).

Room: scoring. It may run in a thread beside training: it has a module of its own, draws nothing and
leaves torch's settings alone. Spec: docs/reputation.md §2 and §12, docs/free-riders.md.
"""

import copy
from collections.abc import Sequence
from typing import final

import numpy as np
from torch import nn

from swarm.learning.models import Logistic
from swarm.learning.task import LearningTask
from swarm.scoring.evaluation import (
    ROWS_MAX,
    Contribution,
    Losses,
    leave_one_out,
    rows_within_budget,
)
from swarm.scoring.projection import Projection, project


@final
class Judge:
    """Losses and sketches, as the charter's merges read a payload."""

    def __init__(self, task: LearningTask, *, dimensions: int) -> None:
        """dimensions: of a sketch."""
        self._task = task
        self._dimensions = dimensions
        self._module: nn.Module | None = None

    @property
    def is_apart(self) -> bool:
        """Whether it may run beside training: a hospital's own code may draw or remember anything.

        Nor where training changes tensors that stay here: they are measured as training left them.
        """
        return not (self._task.has_own_code or self._task.has_own_tensors)

    def score(self, inputs: Sequence[tuple[bytes, bytes, int]], origin: bytes) -> Losses:
        """Return the loss of a merge on the own validation rows, and without each input in its order.

        inputs: (digest, payload, weight in millionths); origin: payload of the round's base.
        Raises PayloadError, and ValueError where nothing can be measured.
        """
        merger = self._task.merger
        state = merger.decode_state(origin)
        contributions = [
            Contribution(
                digest=digest,
                parameters=merger.read(payload, state)[: merger.count],
                weight_micro=weight,
            )
            for digest, payload, weight in inputs
        ]
        if self._module is None or self._task.has_own_tensors:
            self._module = copy.deepcopy(self._task.module)
        return leave_one_out(
            self._module,
            contributions,
            self._task.patients,
            self._task.head,
            layout=None if isinstance(self._module, Logistic) else self._task.layout,
            rows_max=self._rows_max(len(contributions)),
        )

    def _rows_max(self, contributions: int) -> int:
        """A linear model costs next to nothing; a network is put to as many patients as fit the budget."""
        if isinstance(self._task.module, Logistic):
            return ROWS_MAX
        return rows_within_budget(self._task.rows_a_round, contributions)

    def sketch(self, updates: Sequence[tuple[bytes, bytes]], seed: bytes) -> tuple[Projection, ...]:
        """Project what each payload adds to its base. updates: (payload, base). Raises PayloadError."""
        merger = self._task.merger
        return tuple(
            self._project(merger.difference(payload, merger.decode_state(base)), seed)
            for payload, base in updates
        )

    def _project(self, difference: np.ndarray, seed: bytes) -> Projection:
        origin = np.zeros_like(difference)
        return project(difference, origin, seed=seed, dimensions=self._dimensions)
