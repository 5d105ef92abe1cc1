"""One charter's merges: how updates are written, read and combined, and what the next round starts from.

Room: learning. Law: pure functions of the charter, the payloads and the origin, without torch: every
member computes the same bits, and so does an auditor (swarm/audit_recompute.py). Spec: docs/wire.md §5.6.
An update travels as float32 as it is; any other codec writes its difference from the reference of the
model that it was trained from, and its reader adds that to the reference of the round's own base.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias, final

import numpy as np

from ledger.charter import AggregationPolicy, Charter
from ledger.record import Codec, Reason
from ledger.rules import CODEC_OF_NAME, liars_among
from swarm.learning import robust
from swarm.learning.aggregation import weighted_mean, weighted_mean_one_by_one
from swarm.learning.codecs import (
    NotFiniteError,
    Residual,
    UpdateCodec,
    codec_of,
    decode_update,
)
from swarm.learning.mapped import RELEASE_ELEMENTS, release
from swarm.learning.payload import (
    HEADER,
    PayloadError,
    decode_vector,
    encode_packed,
    encode_vector,
    open_packed,
    payload_bytes,
)
from swarm.learning.rows import Vector, blocks
from swarm.learning.strategy import Strategy, strategy_of
from swarm.learning.training_state import Arrays

Input: TypeAlias = tuple[bytes, bytes, int]
"""(digest, payload, weight in millionths) of one contribution."""

VALUE_MAX: Final = 2.0**50
"""No value of an update is larger: its square, summed over a model and over rounds, still is a number."""
LOST: Final = "lost"
SENT: Final = "sent"


@final
@dataclass(frozen=True, kw_only=True)
class Merger:
    """The merges of one charter for one model. layout_digest, count: of its shared vector, d values."""

    policy: AggregationPolicy
    strategy: Strategy
    layout_digest: bytes
    count: int
    forgets_late: bool
    """Whether an update that was not merged in its round never is."""

    @classmethod
    def of(cls, charter: Charter, *, layout_digest: bytes, count: int) -> "Merger":
        """Return the merges of a charter. Raises ConfigError where the charter does not fit together."""
        return cls(
            policy=charter.aggregation,
            strategy=strategy_of(charter),
            layout_digest=layout_digest,
            count=count,
            forgets_late=charter.rounds.staleness_max == 0,
        )

    @property
    def codec(self) -> Codec:
        """How updates are written."""
        return CODEC_OF_NAME[self.policy.codec]

    @cached_property
    def _packer(self) -> UpdateCodec | None:
        if self.codec == Codec.FLOAT32:
            return None
        return codec_of(self.policy.codec, keep_micro=self.policy.keep_share_micro)

    @property
    def update_length(self) -> int:
        """Values of an update, u."""
        return self.strategy.update_length(self.count)

    @property
    def update_bytes(self) -> tuple[int, int]:
        """Fewest and most bytes of an update's payload."""
        if self._packer is None:
            exact = payload_bytes(Codec.FLOAT32, self.update_length)
            return exact, exact
        return HEADER.size + 1, HEADER.size + 1 + self._packer.bytes_max(self.update_length)

    # States

    def encode_state(self, state: Vector) -> bytes:
        """Write a state (s·d,): the payload of a result."""
        return encode_vector(state, self.layout_digest)

    def decode_state(self, payload: bytes) -> Vector:
        """Read a result. Raises PayloadError."""
        return decode_vector(payload, self.layout_digest, self.strategy.state_vectors * self.count)

    # Updates

    def write(
        self, update: Vector, state: Vector, memory: Arrays, *, left_out: bool
    ) -> tuple[bytes, Arrays]:
        """Return an update's payload and what the sender must remember of it.

        memory: what it remembers of the last one. left_out: the last one was never merged and never
        will be, so what it brought joins this one.
        """
        if self._packer is None:
            return encode_vector(update, self.layout_digest), {}
        before = Residual(self._remembered(memory, LOST))
        if left_out and SENT in memory:
            before = before.unsent(self._remembered(memory, SENT))
        body, seen, after = before.compress(self._packer, update - self.strategy.reference(state))
        payload = encode_packed(self.codec, body, update.size, self.layout_digest)
        return payload, {LOST: after.lost} | ({SENT: seen} if self.forgets_late else {})

    def _remembered(self, memory: Arrays, name: str) -> Vector:
        array = memory.get(name)
        if array is None or array.shape != (self.update_length,) or array.dtype != np.float32:
            return np.zeros(self.update_length, dtype=np.float32)
        return array

    def check(self, payload: bytes) -> None:
        """Refuse an update that could not be merged. Raises PayloadError with a Reason."""
        values = self._decode(payload)
        for piece in blocks(values.size, elements=RELEASE_ELEMENTS):
            if (np.abs(values[piece]) > VALUE_MAX).any():
                raise PayloadError(Reason.NORM_BOUND, f"a value beyond {VALUE_MAX:g}")
            release(values)
        try:
            self.strategy.examine(values)
        except ValueError as error:
            raise PayloadError(Reason.BAD_SHAPE, str(error)) from error

    def read(self, payload: bytes, state: Vector | None) -> Vector:
        """Return the update (u,) in a payload, as seen from a state. Raises PayloadError."""
        values = self._decode(payload)
        if self._packer is None:
            return values
        if state is None:
            raise ValueError("a compressed update needs the model that it adds to")
        values += self.strategy.reference(state)
        return values

    def difference(self, payload: bytes, state: Vector) -> Vector:
        """Return how far an update (u,) is from a state's reference. Raises PayloadError."""
        values = self._decode(payload)
        return values if self._packer else values - self.strategy.reference(state)

    def _decode(self, payload: bytes) -> Vector:
        if self._packer is None:
            return decode_vector(payload, self.layout_digest, self.update_length)
        body = open_packed(
            payload, self.codec, self.layout_digest, self.update_length, bytes_max=self.update_bytes[1]
        )  # fmt: skip
        try:
            return decode_update(self._packer, body, self.update_length)
        except NotFiniteError as error:
            raise PayloadError(Reason.NOT_FINITE, str(error)) from error
        except ValueError as error:
            raise PayloadError(Reason.BAD_SHAPE, str(error)) from error

    # Merging

    def merge(self, inputs: Sequence[Input], origin: bytes | None) -> bytes:
        """Merge contributions to the payload of a result, the same bytes in any order.

        origin: payload of the round's base; None where the charter's merges do not start from it.
        Raises PayloadError for payloads that do not fit, ValueError where nothing finite comes out.
        """
        state = None
        if self.policy.needs_base:
            if origin is None:
                raise ValueError("this charter's merges start from the round's base")
            state = self.decode_state(origin)
        merged = self._combined(inputs, state)
        if state is None:
            return self.encode_state(self.strategy.begin(merged))
        return self.encode_state(self.strategy.step(state, merged))

    def _combined(self, inputs: Sequence[Input], state: Vector | None) -> Vector:
        digests = [digest for digest, _, _ in inputs]
        payloads = [payload for _, payload, _ in inputs]
        weights_micro = [weight for _, _, weight in inputs]
        if self.policy.rule == "mean" and self._packer is not None:
            return weighted_mean_one_by_one(
                lambda i: self.read(payloads[i], state), weights_micro, digests
            )
        rows = [self.read(payload, state) for payload in payloads]
        if self.policy.rule == "mean":
            return weighted_mean(rows, weights_micro, digests)
        if state is None:
            raise ValueError("a robust rule measures from the round's base")
        rule = robust.rule_of(self.policy.rule, mixes=self.policy.neighbour_mixing)
        return rule(
            rows,
            weights_micro,
            digests,
            origin=self.strategy.reference(state),
            liars=liars_among(len(rows), self.policy.liars_share_micro),
        )
