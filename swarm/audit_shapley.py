"""Shapley values over stored payloads: the entry point ``swarm_audit.shapley``.

Room: swarm. Law: payloads are read as the nodes read them; nothing here decides anything.
"""

from collections.abc import Sequence
from typing import final

from ledger.charter import Charter
from ledger.errors import ConfigError, PeerError
from ledger.recompute import MergeInput
from ledger.shapley import RoundValues
from swarm.learning.merging import Merger
from swarm.learning.payload import HEADER
from swarm.learning.strategy import strategy_of
from swarm.scoring.shapley import gtg_shapley, progress


@final
class LearningShapley:
    """GTG-Shapley with the game of swarm.scoring.shapley.progress."""

    def values(
        self,
        charter: Charter,
        inputs: Sequence[MergeInput],
        base: bytes,
        goal: bytes,
        seed: bytes,
    ) -> RoundValues:
        """Estimate one round. Raises PeerError where payloads do not fit together."""
        try:
            _, _, count, layout = HEADER.unpack_from(base)
            vectors = strategy_of(charter).state_vectors
            merger = Merger.of(charter, layout_digest=layout, count=count // vectors)
            before, end = merger.decode_state(base), merger.decode_state(goal)
            rows = [merger.read(one.payload, before)[: merger.count] for one in inputs]
            weights = [one.weight_micro for one in inputs]
            walk, far = progress(rows, weights, before[: merger.count], end[: merger.count])
        except (ValueError, ConfigError) as error:
            raise PeerError(f"the payloads do not fit together: {error}") from error
        found = gtg_shapley(len(inputs), walk, seed=seed, scale=far)
        return RoundValues(
            values=found.values,
            errors=found.errors,
            whole=found.whole,
            distance=far,
            batches=found.batches,
            has_converged=found.converged,
        )
