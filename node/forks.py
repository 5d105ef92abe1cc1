"""Logs whose key has signed two records for one slot: frozen here, and who has to hear of it.

Room: node. Law: what froze a log is on the disk with the records that were let in because of it. A proof
stands by itself, so it is believed wherever it comes from, also inside a record that still waits.
Spec: docs/wire.md §4.6, docs/ledger.md §8, docs/adr/0011.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from typing import Final, final

import trio

from ledger.bodies import ForkProof
from ledger.canonical import RECORD_BYTES_MAX
from ledger.errors import StoreError, VerificationError
from ledger.fork import Fork, check_fork_proof, fork_proof
from ledger.fork_store import fork_key, fork_value, stored_proofs
from ledger.record import Record, SignedRecord, Verified
from ledger.roster import Roster
from ledger.store import Store
from node.highwater import LostHistoryError

Log = tuple[int, int]
"""(author, epoch)"""
PROOF_BYTES_MAX: Final = RECORD_BYTES_MAX - 300
"""Both halves of a proof in a FORK_PROOF, beside some 200 bytes of header."""


class OwnLogForkedError(LostHistoryError):
    """This site's key has signed two records for one slot: nobody takes its log any further."""

    def __init__(self, seq: int) -> None:
        super().__init__(
            f"this site's key has signed two different records {seq} of its log, so the others take "
            "nothing more of it: a second copy of the site has run; stop every copy, and ask the "
            "federation for a key rotation (swarm-node roster propose rotate)"
        )


@final
class Forks:
    """Which logs are frozen, from which slot on, and by what proof."""

    def __init__(self, store: Store, roster: Roster, own: Log) -> None:
        self._roster = roster
        self._own = own
        # These three are replaced, never changed: they are read while the disk's thread takes records in.
        self._slots: dict[Log, int] = {}
        self._proofs: dict[Log, ForkProof] = {}
        self._recorded: dict[Log, tuple[Log, int]] = {}
        self._news: dict[Log, Fork] = {}
        self._unsaved: dict[Log, ForkProof] = {}
        for body in stored_proofs(store, roster):
            try:
                self.believe(body)
            except VerificationError as error:
                raise StoreError(
                    f"{store.path}: a stored fork proof has changed: {error}"
                ) from error
        self._unsaved.clear()

    @property
    def slots(self) -> Mapping[Log, int]:
        """Frozen logs, and the lowest slot that is known to be signed twice."""
        return self._slots

    def is_told(self, log: Log) -> bool:
        """Whether a stored FORK_PROOF tells others why a log is frozen; until then they see our branch."""
        return log in self._recorded

    def holds_back(self, log: Log, seq: int) -> bool:
        """Whether a record is of the part of a frozen log that is not stored any more."""
        return seq >= self._slots.get(log, seq + 1)

    def believe(self, body: ForkProof) -> Fork:
        """Freeze what a proof proves. Raises VerificationError: it proves nothing, nobody is blamed."""
        fork = check_fork_proof(body, self._roster)
        log = (fork.author, fork.epoch)
        is_lower = fork.seq < self._slots.get(log, fork.seq + 1)
        if is_lower:
            self._slots = {**self._slots, log: fork.seq}
            self._news[log] = fork
        held = self._proofs.get(log)
        # One for each log: a liar makes nobody store more. Of the lowest slot whose proof fits in a record.
        if held is None or (_fits(body) and (is_lower or not _fits(held))):
            self._proofs = {**self._proofs, log: body}
            self._unsaved[log] = body
        return fork

    def found(self, one: SignedRecord, other: SignedRecord) -> Fork:
        """Freeze a log of which two records for one slot are here, both opened."""
        return self.believe(fork_proof(one, other))

    def stored(self, record: Verified[Record]) -> None:
        """A record is on the disk; where it is a FORK_PROOF, the log need not be accused again."""
        value = record.value
        if not isinstance(value.body, ForkProof):
            return
        with suppress(VerificationError):  # what an older program let in proves nothing
            fork = self.believe(value.body)
            log = (fork.author, fork.epoch)
            if log not in self._recorded:
                place = (value.author, value.epoch), value.seq
                self._recorded = {**self._recorded, log: place}

    def refuse_own(self) -> None:
        """Raise OwnLogForkedError if it is this site's own log that is frozen."""
        if self._own in self._slots:
            raise OwnLogForkedError(self._slots[self._own])

    def take_news(self) -> tuple[Fork, ...]:
        """What has been frozen, or at a lower slot, since the last call."""
        news, self._news = self._news, {}  # first of all: the disk's thread may find more meanwhile
        return tuple(news.values())

    def take_unsaved(self) -> dict[str, bytes]:
        """What the store has to remember, for the transaction that comes next."""
        unsaved, self._unsaved = self._unsaved, {}
        return {fork_key(log): fork_value(body) for log, body in unsaved.items()}

    def unrecorded(self) -> tuple[ForkProof, ...]:
        """Proofs that no stored record holds: this site publishes them, once for each log.

        Not one of two records that are proofs themselves: it fits in no record. Who compares heads
        with whoever holds the other branch finds such a fork by himself.
        """
        return tuple(
            body
            for log, body in sorted(self._proofs.items())
            if log not in self._recorded and _fits(body)
        )

    def places(self, counts: Mapping[Log, int]) -> Iterator[tuple[Log, int]]:
        """Records that prove forks and that are beyond what somebody with ``counts`` holds."""
        for log, seq in self._recorded.values():
            if seq >= counts.get(log, 0):
                yield log, seq


def _fits(body: ForkProof) -> bool:
    """Whether a record holds a proof, with the little that a record says besides."""
    return len(body.envelope_a) + len(body.envelope_b) <= PROOF_BYTES_MAX


@final
class ForkReporter:
    """Publishes what this site has found out: one FORK_PROOF for each log, unless somebody did."""

    def __init__(
        self,
        forks: Forks,
        *,
        record: Callable[[ForkProof], Awaitable[None]],
        may_sign: Callable[[], bool],
    ) -> None:
        """may_sign: False while the own log may still turn out to be an old copy."""
        self._forks = forks
        self._record = record
        self._may_sign = may_sign
        self._due = trio.Event()

    def wake(self) -> None:
        """Look again: something was found, or this node may sign now."""
        self._due.set()

    async def run(self) -> None:
        """Write what is due, until cancelled."""
        while True:
            await self._due.wait()
            self._due = trio.Event()
            for body in self._forks.unrecorded() if self._may_sign() else ():
                await self._record(body)
