"""A model small enough that ten thousand swarms can be run: logistic regression in numpy.

Room: scenarios. It learns for real, from cases that its seed invents, and speaks the payloads of
swarm/learning, so that merges are the real ones and an auditor recomputes them.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from ledger.charter import Charter
from ledger.errors import PeerError
from ledger.record import Codec, GroupValue, MetricId, MetricValue, Reason
from node.learner_around import LearnerAround
from swarm.learning.aggregation import Vector
from swarm.learning.merging import Merger
from swarm.learning.moments import (
    Matrix,
    Moments,
    Standardiser,
    columns_digest,
    local_moments,
    merge_moments,
)
from swarm.learning.payload import (
    PayloadError,
    decode_moments,
    encode_moments,
)
from swarm.learning.trained import Trained
from swarm.learning.training_state import NO_MEMORY, Arrays

FEATURES: Final = 6
STEPS: Final = 2
LEARNING_RATE: Final = 0.5
MICRO: Final = 1_000_000
LAYOUT: Final = hashlib.sha256(b"swarm/simulated/layout").digest()
COLUMNS: Final = tuple(f"x{number}" for number in range(FEATURES))
COLUMNS_DIGEST: Final = columns_digest(COLUMNS)


@final
class TinyLearner:
    """One site's learning (node.service.Learner): FEATURES weights and one intercept."""

    def __init__(self, seed: int, *, rows: int, charter: Charter) -> None:
        self._merger = Merger.of(charter, layout_digest=LAYOUT, count=FEATURES + 1)
        draw = np.random.default_rng(seed)
        shift = draw.normal(size=FEATURES) * 0.5
        self._raw: NDArray[np.float64] = draw.normal(size=(rows, FEATURES)) * 3.0 + 5.0 + shift
        truth = np.array([1.0, -2.0, 0.5, 0.0, 1.5, -1.0])
        score = (self._raw - 5.0) @ truth / 3.0 + draw.normal(size=rows) * 0.3
        self._labels: NDArray[np.float64] = (score > 0).astype(np.float64)
        self._features: Matrix = Standardiser.identity(FEATURES).apply(self._raw - 5.0)

    @property
    def merger(self) -> Merger:
        """The charter's merges."""
        return self._merger

    def loss_of(self, parameters: Vector) -> float:
        """Mean log loss of a model over its own cases."""
        return self._loss(parameters[: FEATURES + 1].astype(np.float64))

    @property
    def samples(self) -> int:
        """How many cases it invented."""
        return len(self._labels)

    def initial(self) -> bytes:
        """Start from nothing."""
        start = np.zeros(FEATURES + 1, dtype=np.float32)
        return self._merger.encode_state(self._merger.strategy.begin(start))

    def local_moments(self) -> bytes:
        """Means and spreads of its own cases."""
        return encode_moments(local_moments(self._raw), COLUMNS_DIGEST)

    def set_moments(self, merged: bytes) -> None:
        """Standardise with the federation's."""
        moments = decode_moments(merged, COLUMNS_DIGEST, FEATURES)
        self._features = Standardiser.of(moments).apply(self._raw)

    def merge_moments(self, payloads: Sequence[tuple[bytes, bytes]]) -> bytes:
        """Merge (digest, payload) pairs in order of digest."""
        parts = [self._moments(payload) for _, payload in sorted(payloads)]
        return encode_moments(merge_moments(parts), COLUMNS_DIGEST)

    @property
    def update_bytes(self) -> tuple[int, int]:
        """Fewest and most bytes of an update."""
        return self._merger.update_bytes

    def train(
        self,
        base: bytes,
        round: int,  # noqa: A002 - the protocol's word
        memory: Arrays = NO_MEMORY,
        left_out: bool = False,  # noqa: FBT001, FBT002 - as the protocol has it
    ) -> Trained:
        """Take STEPS full gradient steps."""
        del round
        state = self._merger.decode_state(base)
        before = self._merger.strategy.parameters(state)
        weights = before.astype(np.float64)
        rows = np.hstack([self._features, np.ones((self.samples, 1))])
        for _ in range(STEPS):
            slope = rows.T @ (self._predict(weights, rows) - self._labels) / self.samples
            weights = weights - LEARNING_RATE * slope
        after = weights.astype(np.float32)
        moved = math.sqrt(float(np.square(after.astype(np.float64) - before).sum()))
        payload, remembered = self._merger.write(after, state, memory, left_out=left_out)
        return Trained(
            payload=payload,
            memory=remembered,
            samples=self.samples,
            steps=STEPS,
            norm_micro=round_micro(moved),
            loss_micro=round_micro(self._loss(weights)),
        )

    def check(self, payload: bytes, codec: int) -> None:
        """Refuse what could not be averaged. Raises PayloadError."""
        if codec == Codec.MOMENTS:
            if not self._moments(payload).is_of_one_site():
                raise PayloadError(Reason.NORM_BOUND, "moments that no hospital's values have")
        elif codec == self._merger.codec:
            self._merger.check(payload)
        else:
            raise PayloadError(Reason.BAD_SHAPE, f"codec {codec} is not the charter's")

    def check_result(self, payload: bytes, codec: int) -> None:
        """Refuse what is no model. Raises PayloadError."""
        if codec == Codec.MOMENTS:
            self._moments(payload)
        else:
            self._merger.decode_state(payload)

    def merge(
        self, inputs: Sequence[tuple[bytes, bytes, int]], origin: bytes | None = None
    ) -> bytes:
        """Merge (digest, payload, weight) as the charter says."""
        return self._merger.merge(inputs, origin)

    def evaluate(self, model: bytes, memory: Arrays) -> tuple[MetricValue, ...]:
        """Mean log loss over its own cases."""
        del memory
        state = self._merger.decode_state(model)
        weights = self._merger.strategy.parameters(state).astype(np.float64)
        micro = round_micro(self._loss(weights))
        return (
            MetricValue(
                metric=MetricId.LOG_LOSS,
                micro=micro,
                low_micro=micro,
                high_micro=micro,
                count=self.samples,
            ),
        )

    def evaluate_groups(self, model: bytes, memory: Arrays) -> tuple[GroupValue, ...]:
        """No charter of the simulations has subgroups."""
        del model, memory
        return ()

    def _moments(self, payload: bytes) -> Moments:
        return decode_moments(payload, COLUMNS_DIGEST, FEATURES)

    def _predict(
        self, weights: NDArray[np.float64], rows: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        return 1.0 / (1.0 + np.exp(-np.clip(rows @ weights, -30.0, 30.0)))

    def _loss(self, weights: NDArray[np.float64]) -> float:
        rows = np.hstack([self._features, np.ones((self.samples, 1))])
        right = np.where(self._labels > 0, self._predict(weights, rows), 0.0)
        wrong = np.where(self._labels > 0, 0.0, 1.0 - self._predict(weights, rows))
        return float(-np.log(np.maximum(right + wrong, 1e-12)).mean())


def round_micro(value: float) -> int:
    """Millionths, never negative; what is not finite counts as nothing."""
    return max(round(value * MICRO), 0) if math.isfinite(value) else 0


@final
class LyingLearner(LearnerAround[TinyLearner]):
    """Learns like the one that it holds and hands out something else."""

    def __init__(
        self, honest: TinyLearner, *, bad_update: str = "", bad_merge: bool = False
    ) -> None:
        """bad_update: "", "nan", "shape" or "huge". bad_merge: publish another result than the merge."""
        super().__init__(honest)
        self._bad_update = bad_update
        self._bad_merge = bad_merge

    def train(
        self,
        base: bytes,
        round: int,  # noqa: A002 - the protocol's word
        memory: Arrays,
        left_out: bool,  # noqa: FBT001 - as the protocol has it
    ) -> Trained:
        """Train, then spoil the payload."""
        trained = self.inner.train(base, round, memory, left_out)
        payload = trained.payload
        if self._bad_update == "nan":
            payload = payload[:-4] + np.array([np.nan], dtype="<f4").tobytes()
        elif self._bad_update == "shape":
            payload = payload[:-4]
        elif self._bad_update == "huge":
            payload = payload + bytes(4)
        return replace(trained, payload=payload)

    def merge(self, inputs: Sequence[tuple[bytes, bytes, int]], origin: bytes | None) -> bytes:
        """Merge, then move the result."""
        try:
            merged = self.inner.merge(inputs, origin)
        except PeerError:
            return self.inner.initial()
        if not self._bad_merge:
            return merged
        merger = self.inner.merger
        return merger.encode_state(merger.decode_state(merged) + np.float32(1.0))
