"""A learner around another one: what a subclass does not change is the inner one's. Room: node."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from ledger.record import GroupValue, MetricValue
from node.hospital import Learner

if TYPE_CHECKING:
    from swarm.learning.trained import Trained
    from swarm.learning.training_state import Arrays

Inner = TypeVar("Inner", bound=Learner)


class LearnerAround(Generic[Inner]):
    """A `Learner` that asks ``inner`` for everything."""

    def __init__(self, inner: Inner) -> None:
        self.inner = inner

    @property
    def samples(self) -> int:
        """How many patients it trains on."""
        return self.inner.samples

    @property
    def update_bytes(self) -> tuple[int, int]:
        """Fewest and most bytes of an update."""
        return self.inner.update_bytes

    def initial(self) -> bytes:
        """Return the model that everybody begins with."""
        return self.inner.initial()

    def local_moments(self) -> bytes:
        """Return what this site gives to round zero."""
        return self.inner.local_moments()

    def set_moments(self, merged: bytes) -> None:
        """Use the federation's moments from now on."""
        self.inner.set_moments(merged)

    def merge_moments(self, payloads: Sequence[tuple[bytes, bytes]]) -> bytes:
        """Sum up (digest, payload) of round zero."""
        return self.inner.merge_moments(payloads)

    def train(
        self,
        base: bytes,
        round: int,  # noqa: A002 - the protocol's word
        memory: "Arrays",
        left_out: bool,  # noqa: FBT001 - as the protocol has it
    ) -> "Trained":
        """Take the charter's local steps from ``base``."""
        return self.inner.train(base, round, memory, left_out)

    def check(self, payload: bytes, codec: int) -> None:
        """Raise PeerError for an offer that cannot be merged."""
        self.inner.check(payload, codec)

    def check_result(self, payload: bytes, codec: int) -> None:
        """Raise PeerError for a result that cannot be used."""
        self.inner.check_result(payload, codec)

    def merge(self, inputs: Sequence[tuple[bytes, bytes, int]], origin: bytes | None) -> bytes:
        """Merge (digest, payload, weight in millionths)."""
        return self.inner.merge(inputs, origin)

    def evaluate(self, model: bytes, memory: "Arrays") -> tuple[MetricValue, ...]:
        """Measure a model on this site's validation patients."""
        return self.inner.evaluate(model, memory)

    def evaluate_groups(self, model: bytes, memory: "Arrays") -> tuple[GroupValue, ...]:
        """Measure it in subgroups of them."""
        return self.inner.evaluate_groups(model, memory)
