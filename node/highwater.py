"""How far this site has signed, kept outside the database: ``ledger.mark``. Room: node.

Law: the mark is durable before a record is shown to anybody (stored → marked → published), and nobody
signs where the database does not hold the marked record. So a database that was put back alone, or
lost, is noticed at the next start, without asking any peer. docs/adr/0009.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, final

from ledger.chain import LogHead
from ledger.errors import ConfigError
from ledger.record import NO_ID
from ledger.store import Store
from ledger.store_files import faults, sync_directory

REMEDY: Final = (
    "put the newest ledger.db back; if it is lost, ask the federation for a key rotation "
    "(`swarm-node roster propose rotate`), and never go on from an old copy"
)
_BYTES_MAX: Final = 1024
_TEXT: Final = re.compile(
    rb"swarm-ledger/mark/v1\nnet ([0-9a-f]{64})\nepoch ([0-9]{1,10})\n"
    rb"next_seq ([0-9]{1,16})\nhead ([0-9a-f]{64})\n"
)


class LostHistoryError(ConfigError):
    """This directory does not hold what this site has signed: going on would fork its log."""


@final
@dataclass(frozen=True, slots=True)
class Mark:
    """What the file says: the next free place of the own log, and the id of the record before it."""

    net: bytes
    epoch: int
    next_seq: int
    head_id: bytes

    def text(self) -> bytes:
        """Return the file's bytes."""
        return (
            f"swarm-ledger/mark/v1\nnet {self.net.hex()}\nepoch {self.epoch}\n"
            f"next_seq {self.next_seq}\nhead {self.head_id.hex()}\n"
        ).encode()


@final
class HighWater:
    """The mark of one node. Opening it is the check that must come before anything is signed."""

    def __init__(self, path: Path, net: bytes) -> None:
        self._path = path
        self._net = net

    @classmethod
    def checked(cls, store: Store, *, net: bytes, author: int, epoch: int) -> Self:
        """Compare the mark beside ``store`` with its own log of ``epoch``, then bring it up to date.

        A crash between storing and marking leaves the mark one group behind, which nobody has seen.
        Raises LostHistoryError, and StoreError if the disk fails.
        """
        water = cls(store.path.with_suffix(".mark"), net)
        heads = store.heads()
        head = heads.get((author, epoch))
        mark = water.read()
        if mark is None:
            if head is not None:
                raise LostHistoryError(
                    f"{water._path} is missing, so nothing shows that {store.path.name} is the newest: "
                    f"put both back as they were; if one is lost, ask the federation for a key rotation"
                )
        elif mark.net != net:
            if heads:
                raise LostHistoryError(
                    f"{water._path} is another federation's: one directory, one federation; "
                    "put the charter back that belongs to it"
                )
        elif mark.epoch >= epoch:
            water._compare(mark, store, author=author, epoch=epoch)
        due = water._mark(epoch, head)
        if mark != due:
            water._write(due)
        return water

    def _compare(self, mark: Mark, store: Store, *, author: int, epoch: int) -> None:
        if mark.epoch > epoch:
            raise LostHistoryError(
                f"{self._path}: this site has signed in key epoch {mark.epoch}, and this directory "
                f"knows only epoch {epoch}: {REMEDY}"
            )
        if mark.next_seq == 0:
            return
        marked = next(store.records(author, epoch, mark.next_seq - 1, limit=1), None)
        if marked is None:
            head = store.heads().get((author, epoch))
            raise LostHistoryError(
                f"{self._path}: this site has signed {mark.next_seq} records, and {store.path.name} "
                f"holds {head.next_seq if head else 0} of them: it is an older copy, or a new one: "
                f"{REMEDY}"
            )
        if marked.id != mark.head_id:
            raise LostHistoryError(
                f"{self._path}: record {mark.next_seq - 1} of this site's log is not the one in "
                f"{store.path.name}: two copies of this directory have signed; stop both and ask the "
                "federation for a key rotation"
            )

    def read(self) -> Mark | None:
        """Return what the file says; None if there is none. Raises LostHistoryError if it is damaged."""
        with faults(self._path):
            try:
                fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
            try:
                found = _TEXT.fullmatch(os.read(fd, _BYTES_MAX))
            finally:
                os.close(fd)
        if found is None:
            raise LostHistoryError(
                f"{self._path} is damaged, so nothing shows how far this site has signed: put its newest "
                "copy back; if it is lost, ask the federation for a key rotation"
            )
        net, epoch, next_seq, head_id = found.groups()
        return Mark(
            bytes.fromhex(net.decode()), int(epoch), int(next_seq), bytes.fromhex(head_id.decode())
        )

    def raise_to(self, head: LogHead) -> None:
        """Make ``head`` the mark, durably; then its record may be shown. Raises StoreError."""
        self._write(self._mark(head.epoch, head))

    def _mark(self, epoch: int, head: LogHead | None) -> Mark:
        next_seq, head_id = (head.next_seq, head.prev_id) if head else (0, NO_ID)
        return Mark(self._net, epoch, next_seq, head_id)

    def _write(self, mark: Mark) -> None:
        """Replace the file in one step: whoever reads it finds the old mark or the new one, whole."""
        partial = self._path.with_name(f".{self._path.name}.partial")
        with faults(self._path):
            fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(mark.text())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self._path)
            sync_directory(self._path.absolute().parent)
