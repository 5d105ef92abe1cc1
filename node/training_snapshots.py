"""Snapshots inside a round: a node that dies in a long training goes on from the last one. Room: node.

One safetensors file, replaced whole (written, flushed, renamed), with a digest over all of it. It says of
which round, base model, charter, data and moments it is, and whatever is of another, torn or changed counts
as none: training then begins anew, to the same bits. docs/adr/0015-payloads-and-snapshots.md
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import trio
from blake3 import blake3

from ledger.errors import StoreError
from ledger.store_files import sync_directory
from node.learner_around import LearnerAround
from node.network import EventLog
from node.payload_io import faults
from swarm.learning.training_state import NO_MEMORY, Arrays, Keeper, TrainingState

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from swarm.learning.task import LearningTask
    from swarm.learning.trained import Trained

FORMAT: Final = "swarm-training/1"
INTERVAL_S: Final = 60.0
HEADER_BYTES_MAX: Final = 16 << 20
_TYPES: Final = {
    "float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip

Facts = Mapping[str, str]


@final
class TrainingSnapshots:
    """The one snapshot file of a site."""

    def __init__(
        self,
        path: Path,
        *,
        charter_digest: bytes,
        data_commitment: bytes,
        log: EventLog,
        interval_s: float = INTERVAL_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """data_commitment: to the patients that train here, as CONTRIBUTION signs it."""
        self._path = path
        self._charter = charter_digest.hex()
        self._data = data_commitment.hex()
        self._log = log
        self._interval_s = interval_s
        self._clock_s = clock_s

    def keeper(self, round_: int, base: bytes, moments: str) -> "SnapshotKeeper":
        """Return what keeps the training of one round from one base model's payload.

        moments: digest of what the patients are standardised with; empty without round zero.
        """
        facts = {
            "format": FORMAT,
            "charter": self._charter,
            "round": str(round_),
            "base": blake3(base).hexdigest(),
            "data": self._data,
            "moments": moments,
        }
        return SnapshotKeeper(
            self._path, facts, log=self._log, interval_s=self._interval_s, clock_s=self._clock_s
        )


@final
class SnapshotKeeper(Keeper):
    """Keeps the state of one training, every so often, and at once when it is told to stop."""

    def __init__(
        self,
        path: Path,
        facts: Facts,
        *,
        log: EventLog,
        interval_s: float,
        clock_s: Callable[[], float],
    ) -> None:
        self._path = path
        self._facts = facts
        self._log = log
        self._interval_s = interval_s
        self._clock_s = clock_s
        self._kept_s = clock_s()

    def resume(self) -> TrainingState | None:
        """Return the state that was kept for this very training."""
        state = read_snapshot(self._path, self._facts)
        if state is not None:
            self._log.info("training_resumed", round=int(self._facts["round"]), **state.numbers)
        return state

    def after_step(self, capture: Callable[[], TrainingState]) -> None:
        """Keep the state if it is time to, or if the node leaves (raises trio.Cancelled then)."""
        try:
            trio.from_thread.check_cancelled()
        except trio.Cancelled:
            self._keep(capture())
            raise
        except RuntimeError:
            pass  # not a thread of trio's: nobody can tell us to stop
        if self._clock_s() - self._kept_s >= self._interval_s:
            self._keep(capture())
            self._kept_s = self._clock_s()

    def discard(self) -> None:
        """Remove the file."""
        with faults(self._path, "remove a snapshot"):
            self._path.unlink(missing_ok=True)

    def _keep(self, state: TrainingState) -> None:
        started_s = self._clock_s()
        try:
            write_snapshot(self._path, self._facts, state)
        except StoreError as error:
            # It only spares work; where the disk itself is ill, the ledger will say so.
            self._log.warning("snapshot_failed", why=str(error))
            return
        seconds = round(self._clock_s() - started_s, 3)
        self._log.debug("snapshot_kept", seconds=seconds, **state.numbers)


@final
class ResumingLearner(LearnerAround["LearningTask"]):
    """A site's learning task whose training outlives the process."""

    def __init__(self, task: "LearningTask", snapshots: TrainingSnapshots) -> None:
        super().__init__(task)
        self._snapshots = snapshots
        self._moments = ""

    def set_moments(self, merged: bytes) -> None:
        """Standardise with these from now on; no snapshot made with others is gone on from."""
        super().set_moments(merged)
        self._moments = blake3(merged).hexdigest()

    def train(
        self,
        base: bytes,
        round: int,  # noqa: A002 - the protocol's word
        memory: Arrays = NO_MEMORY,
        left_out: bool = False,  # noqa: FBT001, FBT002 - as the protocol has it
    ) -> "Trained":
        """Take the charter's local steps, or those that are left."""
        keeper = self._snapshots.keeper(round, base, self._moments)
        return self.inner.train(base, round, memory, left_out, keeper)


def write_snapshot(path: Path, facts: Facts, state: TrainingState) -> None:
    """Replace the file by a new one, durably. No copy of the tensors is made. Raises StoreError."""
    arrays = {name: _plain(array) for name, array in sorted(state.tensors.items())}
    described: dict[str, Any] = {}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        kind = _TYPES[array.dtype.name]
        described[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [start, end]}
    numbers = json.dumps(dict(state.numbers), sort_keys=True)
    metadata = {**facts, "numbers": numbers}
    digest = _digest(metadata, arrays)
    header = json.dumps({"__metadata__": {**metadata, "digest": digest}, **described}).encode()
    header += b" " * (-len(header) % 8)
    temporary = path.with_suffix(".part")
    with faults(path, "keep a snapshot"):
        with temporary.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for array in arrays.values():
                file.write(_bytes_of(array))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)


def read_snapshot(path: Path, facts: Facts) -> TrainingState | None:
    """Read the file; None unless it is whole and of these facts. Raises StoreError."""
    from safetensors import SafetensorError, safe_open

    with faults(path, "read a snapshot"):
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="np") as file:
                metadata = dict(file.metadata() or {})
                digest = metadata.pop("digest", "")
                if {key: metadata.get(key) for key in facts} != dict(facts):
                    return None
                arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
        except SafetensorError:
            return None
    if _digest(metadata, arrays) != digest:
        return None
    return TrainingState(tensors=arrays, numbers=json.loads(metadata["numbers"]))


def _plain(array: "NDArray[Any]") -> "NDArray[Any]":
    import numpy as np

    return np.ascontiguousarray(array).reshape(array.shape)


def _bytes_of(array: "NDArray[Any]") -> memoryview:
    return array.reshape(-1).view("uint8").data


def _digest(metadata: Facts, arrays: "Mapping[str, NDArray[Any]]") -> str:
    digest = blake3(json.dumps(dict(metadata), sort_keys=True).encode())
    for name, array in arrays.items():
        digest.update(f"\n{name} {array.dtype.name} {array.shape} {array.nbytes}\n".encode())
        digest.update(_bytes_of(array))
    return digest.hexdigest()
