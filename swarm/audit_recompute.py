"""Merges again, for an auditor who has the payloads: the entry point ``swarm_audit.recompute``.

Room: swarm. Law: the same functions as the node's, pure, no torch. What a payload must look like is
taken from its own header: whether it fits the charter's model, its digest has settled already.
"""

from collections.abc import Sequence
from typing import final

from ledger.errors import PeerError
from ledger.recompute import MergeInput
from ledger.record import Codec, Rule
from swarm.learning.aggregation import weighted_mean
from swarm.learning.moments import merge_moments
from swarm.learning.payload import (
    HEADER,
    decode_moments,
    decode_vector,
    encode_moments,
    encode_vector,
)
from swarm.protocol.payload import payload_digest


@final
class LearningRecomputation:
    """Digests and merges as the nodes make them."""

    def digest(self, codec: int, payload: bytes) -> bytes:
        """Return the digest by which the ledger names ``payload``."""
        return payload_digest(codec, payload)

    def merge(self, rule: int, inputs: Sequence[MergeInput]) -> bytes:
        """Return the digest of the merged payload. Raises PeerError if the inputs do not fit."""
        layout, count = _header(inputs[0].payload)
        try:
            if rule == Rule.MEAN:
                mean = weighted_mean(
                    [decode_vector(one.payload, layout, count) for one in inputs],
                    [one.weight_micro for one in inputs],
                    [one.digest for one in inputs],
                )
                return payload_digest(Codec.FLOAT32, encode_vector(mean, layout))
            ordered = sorted(inputs, key=lambda one: (one.digest, one.payload))
            parts = [decode_moments(one.payload, layout, count // 3) for one in ordered]
            merged = encode_moments(merge_moments(parts), layout)
            return payload_digest(Codec.MOMENTS, merged)
        except ValueError as error:
            raise PeerError(f"the inputs do not merge: {error}") from error


def _header(payload: bytes) -> tuple[bytes, int]:
    if len(payload) < HEADER.size:
        raise PeerError(f"a payload of {len(payload)} bytes has no header")
    _, _, count, layout = HEADER.unpack_from(payload)
    return layout, count
