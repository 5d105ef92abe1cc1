"""Merges again, for an auditor who has the payloads: the entry point ``swarm_audit.recompute``.

Room: swarm. Law: the same functions as the node's. What a model looks like is taken from the payloads'
own headers: whether it fits the charter's model, its digest has settled already.
"""

from collections.abc import Sequence
from typing import final

import numpy as np

from ledger.charter import Charter
from ledger.errors import ConfigError, PeerError
from ledger.recompute import MergeInput
from ledger.record import Rule
from swarm.learning.merging import Merger
from swarm.learning.moments import merge_moments
from swarm.learning.payload import HEADER, decode_moments, encode_moments
from swarm.learning.strategy import strategy_of
from swarm.protocol.payload import payload_digest
from swarm.scoring.projection import project


@final
class LearningRecomputation:
    """Digests and merges as the nodes make them."""

    def digest(self, codec: int, payload: bytes) -> bytes:
        """Return the digest by which the ledger names ``payload``."""
        return payload_digest(codec, payload)

    def merge(
        self, charter: Charter, rule: int, inputs: Sequence[MergeInput], origin: bytes | None
    ) -> bytes:
        """Return the merged payload. Raises PeerError if the inputs do not fit."""
        try:
            if rule == Rule.MOMENTS:
                return _merge_moments(inputs)
            layout, values = _header(inputs[0].payload if origin is None else origin)
            # A state holds so many vectors of the model's length; where no base is needed, one.
            vectors = strategy_of(charter).state_vectors
            merger = Merger.of(charter, layout_digest=layout, count=values // vectors)
            return merger.merge(
                [(one.digest, one.payload, one.weight_micro) for one in inputs], origin
            )
        except (ValueError, ConfigError) as error:
            raise PeerError(f"the inputs do not merge: {error}") from error

    def sketch(
        self, charter: Charter, payload: bytes, base: bytes, seed: bytes
    ) -> tuple[int, bytes]:
        """Return exponent and values of what an update adds to its base. Raises PeerError."""
        try:
            layout, values = _header(base)
            vectors = strategy_of(charter).state_vectors
            merger = Merger.of(charter, layout_digest=layout, count=values // vectors)
            difference = merger.difference(payload, merger.decode_state(base))
            shown = project(
                difference,
                np.zeros_like(difference),
                seed=seed,
                dimensions=charter.reputation.sketch_dimensions,
            )
        except (ValueError, ConfigError) as error:
            raise PeerError(f"the update cannot be sketched: {error}") from error
        return shown.exponent, shown.to_bytes()


def _merge_moments(inputs: Sequence[MergeInput]) -> bytes:
    layout, values = _header(inputs[0].payload)
    ordered = sorted(inputs, key=lambda one: (one.digest, one.payload))
    parts = [decode_moments(one.payload, layout, values // 3) for one in ordered]
    return encode_moments(merge_moments(parts), layout)


def _header(payload: bytes) -> tuple[bytes, int]:
    if len(payload) < HEADER.size:
        raise PeerError(f"a payload of {len(payload)} bytes has no header")
    _, _, count, layout = HEADER.unpack_from(payload)
    return layout, count
