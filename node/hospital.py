"""One hospital as its node sees it: who it is, what it works on, and what it asks of learning."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ledger.charter import Charter
from ledger.keys import Signer
from ledger.record import GroupValue, MetricValue
from swarm.learning.fits import has_round_zero
from swarm.learning.trained import Trained
from swarm.learning.training_state import Arrays
from swarm.protocol.retention import KEEP_ROUNDS, Keep

if TYPE_CHECKING:
    from swarm.scoring.evaluation import Losses
    from swarm.scoring.projection import Projection


class Learner(Protocol):
    """What a node asks of learning: bytes in, bytes out (swarm/learning/task.py)."""

    @property
    def samples(self) -> int: ...  # noqa: D102
    def initial(self) -> bytes: ...  # noqa: D102
    def local_moments(self) -> bytes: ...  # noqa: D102
    def set_moments(self, merged: bytes) -> None: ...  # noqa: D102
    def merge_moments(self, payloads: Sequence[tuple[bytes, bytes]]) -> bytes: ...  # noqa: D102
    @property
    def update_bytes(self) -> tuple[int, int]: ...  # noqa: D102
    def train(self, base: bytes, round: int, memory: Arrays, left_out: bool) -> Trained: ...  # noqa: A002, D102, FBT001
    def check(self, payload: bytes, codec: int) -> None: ...  # noqa: D102
    def check_result(self, payload: bytes, codec: int) -> None: ...  # noqa: D102
    def merge(  # noqa: D102
        self, inputs: Sequence[tuple[bytes, bytes, int]], origin: bytes | None
    ) -> bytes: ...
    def evaluate(self, model: bytes, memory: Arrays) -> tuple[MetricValue, ...]: ...  # noqa: D102
    def evaluate_groups(self, model: bytes, memory: Arrays) -> tuple[GroupValue, ...]: ...  # noqa: D102


class Judge(Protocol):
    """What a node asks of whoever measures contributions (swarm/scoring/judge.py)."""

    @property
    def is_apart(self) -> bool: ...  # noqa: D102
    def score(  # noqa: D102
        self, inputs: Sequence[tuple[bytes, bytes, int]], origin: bytes
    ) -> "Losses": ...
    def sketch(  # noqa: D102
        self, updates: Sequence[tuple[bytes, bytes]], seed: bytes
    ) -> "tuple[Projection, ...]": ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Hospital:
    """Who this node is and what it works on."""

    charter: Charter
    own: int
    signer: Signer
    witness: Signer
    learner: Learner
    software_digest: bytes
    data_commitment: bytes
    sync_interval_s: float
    linger_s: float
    leaves: bool = False
    """Whether it only comes to say goodbye for good."""
    keep: Keep = Keep(rounds=KEEP_ROUNDS)  # noqa: RUF009 - frozen
    """Which payloads stay."""
    inbox: Path | None = None
    """Where `roster submit` leaves updates for a node that runs; None: nowhere."""
    judge: Judge | None = None
    """Who measures contributions; None: nobody does, whatever the charter says."""

    @property
    def has_moments(self) -> bool:
        """Whether round zero sums something up."""
        return has_round_zero(self.charter)
