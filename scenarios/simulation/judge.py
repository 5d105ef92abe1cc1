"""How the tiny learner's members measure each other (node.hospital.Judge), and one that lies. Room: scenarios.

Real losses on invented cases, real projections; a liar's scores praise itself nowhere, since that is
refused, but turn the others' upside down, and its sketches are of nothing.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, final

import numpy as np

from ledger.charter import Charter
from scenarios.simulation.learner import TinyLearner
from swarm.learning.aggregation import weighted_mean
from swarm.scoring.projection import Projection, project

if TYPE_CHECKING:
    from swarm.scoring.evaluation import Losses


@final
class TinyJudge:
    """Losses with and without each input, and sketches. ``lies``: neither is what it says."""

    def __init__(self, learner: TinyLearner, charter: Charter, *, lies: bool) -> None:
        self._learner = learner
        self._dimensions = charter.reputation.sketch_dimensions
        self._lies = lies

    @property
    def is_apart(self) -> bool:
        """Simulated members compute one thing at a time."""
        return False

    def score(self, inputs: Sequence[tuple[bytes, bytes, int]], origin: bytes) -> "Losses":
        """Return the loss of the weighted mean, and without each input in its order."""
        from swarm.scoring.evaluation import Losses

        state = self._learner.merger.decode_state(origin)
        rows = [self._learner.merger.read(payload, state) for _, payload, _ in inputs]

        def loss(chosen: Sequence[int]) -> float:
            merged = weighted_mean(
                [rows[at] for at in chosen],
                [inputs[at][2] for at in chosen],
                [inputs[at][0] for at in chosen],
            )
            return self._learner.loss_of(merged)

        everybody = range(len(inputs))
        without = tuple(
            loss([at for at in everybody if at != left]) if len(inputs) > 1 else 0.0
            for left in everybody
        )
        together = loss(everybody)
        if self._lies:
            without = tuple(max(2 * together - one, 0.0) for one in without)
        return Losses(together=together, without=without, count=self._learner.samples)

    def sketch(self, updates: Sequence[tuple[bytes, bytes]], seed: bytes) -> tuple[Projection, ...]:
        """Project what each payload adds to its base."""
        merger = self._learner.merger
        differences = [
            merger.difference(payload, merger.decode_state(base)) for payload, base in updates
        ]
        shown = tuple(
            project(one, np.zeros_like(one), seed=seed, dimensions=self._dimensions)
            for one in differences
        )
        return (
            tuple(replace(one, exponent=one.exponent + 1) for one in shown) if self._lies else shown
        )
