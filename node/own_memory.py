"""What a site remembers from one training to the next, and sends to nobody. Room: node.

One file for each own contribution: the arrays that its training left (the residual of a lossy codec,
control variates, own layers). It is on the disk before the CONTRIBUTION record that it belongs to is
signed, and called after that record's round and digest; so a node that dies at any instant goes on from
what its ledger says it has sent, to the same bits. docs/adr/0019-rules-codecs-and-memory.md
"""

from pathlib import Path
from typing import Final, final

from ledger.store_files import sync_directory
from node.payload_io import faults
from node.training_snapshots import Facts, read_snapshot, write_snapshot
from swarm.learning.training_state import Arrays, TrainingState

FORMAT: Final = "swarm-memory/1"
SUFFIX: Final = ".memory"


@final
class OwnMemory:
    """The files of one site, in a directory of their own."""

    def __init__(self, directory: Path, *, charter_digest: bytes) -> None:
        self._directory = directory
        self._charter = charter_digest.hex()

    def keep(self, round_: int, digest: bytes, arrays: Arrays) -> None:
        """Store what belongs to the own contribution ``digest`` of a round, durably. Raises StoreError."""
        if not arrays:
            return
        with faults(self._directory, "keep memory there"):
            self._directory.mkdir(parents=True, exist_ok=True)
            sync_directory(self._directory.parent)
        state = TrainingState(tensors=arrays)
        write_snapshot(self._path(round_, digest), self._facts(round_, digest), state)

    def load(self, round_: int, digest: bytes) -> Arrays:
        """Return what belongs to an own contribution; nothing if there is none or it is damaged."""
        state = read_snapshot(self._path(round_, digest), self._facts(round_, digest))
        return state.tensors if state is not None else {}

    def forget_others(self, round_: int, digest: bytes) -> None:
        """Remove what belongs to any other contribution: that one is on the ledger. Raises StoreError."""
        keep = self._path(round_, digest)
        with faults(self._directory, "remove memory there"):
            if self._directory.is_dir():
                for path in self._directory.iterdir():
                    if path != keep:
                        path.unlink(missing_ok=True)

    def _path(self, round_: int, digest: bytes) -> Path:
        return self._directory / f"{round_}-{digest.hex()}{SUFFIX}"

    def _facts(self, round_: int, digest: bytes) -> Facts:
        return {
            "format": FORMAT,
            "charter": self._charter,
            "round": str(round_),
            "contribution": digest.hex(),
        }
