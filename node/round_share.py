"""How much of one round a log may hold, so that no member fills the others' disks with records.

Room: node. Follows from the log and the roster alone, so all nodes stop at the same record, and nobody
names one that another refuses. Rounds end with the charter's, so a log as a whole is bounded too.
Spec: docs/wire.md §4.1.
"""

from dataclasses import dataclass
from typing import Final, final

from ledger.errors import VerificationError
from ledger.record import Record, Verified
from ledger.roster import Roster
from ledger.store import Store
from node.forks import Log

ROUND_RECORDS: Final = 128
ROUND_RECORDS_MEMBER: Final = 16
"""Records of one log and round: so many, and so many more for each member that there ever was."""
ROUND_BYTES: Final = 512 * 1024
ROUND_BYTES_MEMBER: Final = 64 * 1024
"""The same in bytes: a third of the members forking in one round, proven, takes 43 KiB a member."""
_AFTER_THE_LAST: Final = 1
"""CLOSE belongs to the round after the charter's last."""


@dataclass(slots=True)
class _Share:
    """What is held of the newest round of one log."""

    round: int
    records: int = 0
    bytes_count: int = 0


@final
class RoundShares:
    """What every log has taken of its round."""

    def __init__(self, store: Store, roster: Roster, *, rounds: int | None) -> None:
        """rounds: the charter's; None: any."""
        self._store = store
        self._round_max = None if rounds is None else rounds + _AFTER_THE_LAST
        self._records_max = ROUND_RECORDS + ROUND_RECORDS_MEMBER * len(roster.members)
        self._bytes_max = ROUND_BYTES + ROUND_BYTES_MEMBER * len(roster.members)
        self._shares: dict[Log, _Share] = {}

    def admit(self, checked: Verified[Record]) -> None:
        """Refuse a record that is too much, or of no round that there is. Raises VerificationError."""
        record = checked.value
        if self._round_max is not None and record.round > self._round_max:
            raise _refusal(record, f"round {record.round}", f"at most {self._round_max}")
        share = self._share(record)
        if share.records >= self._records_max:
            expected = f"at most {self._records_max} of one log"
            raise _refusal(record, f"more records in round {record.round}", expected)
        if share.bytes_count + len(checked.signed.record_bytes) > self._bytes_max:
            expected = f"at most {self._bytes_max} of one log"
            raise _refusal(record, f"more bytes in round {record.round}", expected)

    def took(self, checked: Verified[Record]) -> None:
        """A record that was admitted continues its log."""
        share = self._share(checked.value)
        share.records += 1
        share.bytes_count += len(checked.signed.record_bytes)

    def forget(self, log: Log) -> None:
        """Count a log anew, when it is asked for: some of it is gone."""
        self._shares.pop(log, None)

    def _share(self, record: Record) -> _Share:
        log = (record.author, record.epoch)
        share = self._shares.get(log)
        if share is None:
            share = self._shares[log] = self._count(log, record.round)
        elif record.round > share.round:  # a log goes back to no round
            share = self._shares[log] = _Share(record.round)
        return share

    def _count(self, log: Log, round_: int) -> _Share:
        share = _Share(round_)
        for signed in self._store.records(author=log[0], epoch=log[1], round=round_):
            share.records += 1
            share.bytes_count += len(signed.record_bytes)
        return share


def _refusal(record: Record, message: str, expected: str) -> VerificationError:
    return VerificationError(
        "E_FLOOD",
        message,
        author=record.author,
        epoch=record.epoch,
        seq=record.seq,
        expected=expected,
    )
