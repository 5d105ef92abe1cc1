"""Every hospital's log as this node holds it, and the pen that writes its own.

A record is on the disk before anybody hears of it (law 5): `append` and `ingest` return only after the
store has committed, `append` also after the mark beside it was moved (highwater.py). One writer at a
time, so one slot is never signed twice.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, final

import trio

from ledger.chain import LAMPORT_STEP_MAX, LogHead, check_next, compose
from ledger.errors import StoreError, SwarmError, UnavailableError, VerificationError
from ledger.fork import Fork
from ledger.keys import Signer
from ledger.record import (
    NO_ID,
    Ack,
    Body,
    Kind,
    Record,
    SignedRecord,
    Verified,
    decode_record,
    open_record,
    sign_record,
)
from ledger.roster import Roster
from ledger.roster_store import store_update, stored_updates
from ledger.roster_update import SignedUpdate
from ledger.store import Store
from node.compute import Compute
from node.forks import Forks, Log
from node.highwater import HighWater
from node.intake import Batch, Intake
from node.round_share import RoundShares
from swarm.protocol.messages import Counts, Head, Heads
from swarm.protocol.sync import Gap, fit, gaps

_AT_ANY_TIME: Final = (Kind.FORK_PROOF, Kind.REJECTION, Kind.SKETCH)
"""About no round, or about the one that they name: what is newest in the log is right for them."""
ACKS_ALL: Final = 1 << 16
"""More logs than there can be members: acknowledge them all."""
LAMPORT_FOLLOWED_MAX: Final = 1 << 52
"""Beyond this nobody's clock is followed, so that a liar cannot use the numbers up for everybody."""


class RosterChangedError(SwarmError):
    """A roster update is stored: the node starts anew under it."""

    def __init__(self, version: int) -> None:
        super().__init__(f"roster {version} is in force: the node starts anew under it")
        self.version = version


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of records that a peer sent."""

    stored: tuple[Verified[Record], ...]
    gap: bool
    """Some of them wait for others that are missing here: time to compare heads."""
    refused: tuple[VerificationError, ...]
    forks: tuple[Fork, ...] = ()
    """Logs that are frozen from now on, or at a lower slot."""
    ask: frozenset[int] = frozenset()
    """Members whose records name another record for a slot than is stored here."""
    is_rewritten: bool = False
    """The branch that a cut keeps has replaced another one: what was learned of that is void."""


def lamport_of(record_bytes: bytes) -> int:
    """Lamport time of a stored record."""
    lamport: int = decode_record(record_bytes)[9]
    return lamport


@final
class Journal:
    """The logs of all members; this node's own is written here and nowhere else."""

    def __init__(
        self,
        *,
        store: Store,
        roster: Roster,
        own: int,
        signer: Signer,
        disk: Compute,
        time_ms: Callable[[], int],
        rounds: int | None = None,
    ) -> None:
        """rounds: the charter's; no record of a later one is taken. None: of any."""
        self._store = store
        self._roster = roster
        self._own = own
        self._signer = signer
        self._disk = disk
        self._time_ms = time_ms
        self._epoch = roster.epoch(own)
        self._updates = tuple(stored_updates(store))
        self._is_over, self._next_version = False, roster.version
        self._mark = HighWater.checked(store, net=roster.net, author=own, epoch=self._epoch)
        self._heads: dict[Log, LogHead] = dict(store.heads())
        self._acked: dict[Log, int] = {}
        self._acked_in: dict[Log, int] = {}
        """log → own record that acknowledged it last"""
        self.forks = Forks(store, roster, (own, self._epoch))
        self.forks.refuse_own()
        shares = RoundShares(store, roster, rounds=rounds)
        self.intake = Intake(store, roster, (own, self._epoch), self.forks, shares)
        self.round_records = 0
        """Own records of the newest own round: what is beyond a log's share of it (round_share.py) others refuse."""
        self._own_round = -1
        self._pen = trio.Lock()

    def replay(self) -> Iterable[Verified[Record]]:
        """Yield every stored record again, checked again; call once, before anything else."""
        for signed in self._store.records():
            try:
                record = open_record(signed, roster=self._roster)
            except VerificationError as error:
                raise StoreError(
                    f"{self._store.path}: a stored record is refused: {error}; the file has changed, or "
                    "the charter is another federation's"
                ) from error
            self._note_acks(record.value)
            self.forks.stored(record)
            yield record
        self.forks.refuse_own()

    @property
    def roster(self) -> Roster:
        """The roster under which this node writes; a newer one needs a new journal."""
        return self._roster

    @property
    def updates(self) -> tuple[SignedUpdate, ...]:
        """Every roster update that is stored, oldest first."""
        return self._updates

    async def change_roster(self, signed: SignedUpdate) -> Roster:
        """Store a roster update with what it cuts off; after that this journal writes nothing.

        Raises VerificationError (nothing has changed) and StoreError.
        """
        with trio.CancelScope(shield=True):
            async with self._pen:
                if self._is_over:
                    raise UnavailableError("a roster update has been stored just now")
                after = await self._disk.run(store_update, self._store, self._roster, signed)
                self._is_over, self._next_version = True, after.version
                self._updates = (*self._updates, signed)
        return after

    def counts(self) -> Counts:
        """How many records of each log are held."""
        return {log: head.next_seq for log, head in self._heads.items()}

    def claim(self) -> Heads:
        """How many records of each log are held and which is the last: what peers are told.

        Of a log that a cut has ended, and that is not held up to the cut, no more than what lies
        before a fork: so peers show the branch that was kept, whichever is here.
        """
        claimed = {log: Head(head.next_seq, head.prev_id) for log, head in self._heads.items()}
        for log, slot in self.forks.slots.items():
            if (
                log in claimed
                and slot < claimed[log].count
                and self.intake.is_cut_short(log, self._heads)
            ):
                claimed[log] = Head(slot, NO_ID)
        return {log: head for log, head in claimed.items() if head.count}

    def heads(self) -> Mapping[Log, LogHead]:
        """Where every log stands."""
        return self._heads

    async def append(
        self,
        kind: Kind,
        round_: int,
        body: Body,
        *,
        acks_max: int = 0,
        state: Mapping[str, bytes] | None = None,
    ) -> Verified[Record]:
        """Write, sign and store one record of our own. Cancellation waits until it is stored.

        acks_max: how many logs it acknowledges at most. state: goes into the store with it, in one
        transaction.
        """
        with trio.CancelScope(shield=True):
            async with self._pen:
                if self._is_over:
                    raise RosterChangedError(self._next_version)
                return await self._append(kind, round_, body, acks_max=acks_max, state=state or {})

    async def _append(
        self,
        kind: Kind,
        round_: int,
        body: Body,
        *,
        acks_max: int,
        state: Mapping[str, bytes],
    ) -> Verified[Record]:
        head = self._heads.get((self._own, self._epoch))
        if kind in _AT_ANY_TIME and head is not None:
            round_ = max(round_, head.round)
        # A record comes after everything that is stored here, acknowledged or not. A clock that is
        # further ahead than one step may go is followed step by step, and acknowledged once reached.
        reach = min((head.lamport if head else 0) + LAMPORT_STEP_MAX, LAMPORT_FOLLOWED_MAX) - 1
        acks = self._due_acks(reach, acks_max) if acks_max else ()
        record = compose(
            head,
            roster=self._roster,
            author=self._own,
            epoch=self._epoch,
            kind=kind,
            round=round_,
            time_ms=self._time_ms(),
            acks=acks,
            lamports=[min(one.lamport, reach) for one in self._heads.values()],
            times_ms=[self._heads[a.author, a.epoch].time_ms for a in acks],
            body=body,
        )
        signed = sign_record(record, self._signer)
        after = check_next(head, signed)
        await self._disk.run(self._store_own, signed, after, state)
        self._heads[self._own, self._epoch] = after
        self._note_acks(record)
        self.forks.stored(signed)
        return signed

    def _store_own(
        self, signed: Verified[Record], after: LogHead, state: Mapping[str, bytes]
    ) -> None:
        """Store, then mark: in one piece of the disk's work, so that no reader comes in between."""
        self._store.append([signed], state=state)
        self._mark.raise_to(after)

    def _due_acks(self, reach: int, most: int) -> tuple[Ack, ...]:
        """Heads of other logs that moved on since this node last acknowledged them.

        Where they are more than ``most``, those that have waited longest, from the next member on.
        Nobody acknowledges two branches: not a frozen log, nor one that a cut may have replaced.
        """
        due = [
            (author, epoch)
            for (author, epoch), head in sorted(self._heads.items())
            if author != self._own
            and (author, epoch) not in self.forks.slots
            and self._roster.cut(author, epoch) is None
            and head.next_seq - 1 > self._acked.get((author, epoch), -1)
            and head.lamport <= reach
        ]
        if len(due) > most:
            due = sorted(sorted(due, key=self._turn)[:most])
        heads = [(log, self._heads[log]) for log in due]
        return tuple(Ack(*log, head.next_seq - 1, head.prev_id) for log, head in heads)

    def _turn(self, log: Log) -> tuple[int, int]:
        """Order in which logs are acknowledged; members begin at different ones, so all get some soon."""
        return self._acked_in.get(log, -1), (log[0] - self._own) % len(self._roster.terms)

    def _note_acks(self, record: Record) -> None:
        if record.author == self._own:
            if record.epoch == self._epoch:
                if record.round > self._own_round:
                    self._own_round, self.round_records = record.round, 0
                self.round_records += 1
            for ack in record.acks:
                log = ack.author, ack.epoch
                self._acked[log], self._acked_in[log] = ack.seq, record.seq

    async def ingest(self, envelopes: Sequence[bytes]) -> Ingested:
        """Check and store what a peer sent, as one group commit, causes before effects.

        A record waits (in bounded memory) until everything that it builds on is stored, so every
        ledger that leaves this node is complete in itself.
        Raises OwnLogAheadError if it holds a record of ours that we do not, OwnLogForkedError if it
        proves that our key has signed twice. Where a branch is rewritten, nothing is written after it.
        """
        with trio.CancelScope(shield=True):
            async with self._pen:
                if self._is_over:
                    return Ingested((), gap=False, refused=())
                batch, gap = await self._disk.run(self.intake.take, envelopes, self._heads)
                self._heads = batch.heads
                if batch.is_rewritten:
                    self._is_over = True
        return Ingested(
            tuple(record for record, _ in batch.fresh),
            gap,
            tuple(batch.refused),
            self.forks.take_news(),
            frozenset(batch.ask),
            batch.is_rewritten,
        )

    async def differing(self, heads: Heads, *, of_asker: bool = False) -> dict[Log, Head]:
        """Logs of which somebody's last record is another than ours in that slot, and ours there.

        Logs that are frozen here are left out: that they differ is known. An asker gets to see why,
        as long as no FORK_PROOF tells him.
        """
        known = {log for log in self.forks.slots if not of_asker or self.forks.is_told(log)}
        return await self._disk.run(
            self._differing, {log: head for log, head in heads.items() if log not in known}
        )

    def _differing(self, heads: Heads) -> dict[Log, Head]:
        batch = Batch(self._heads)
        found = {}
        for log, head in heads.items():
            mine = self.intake.id_at(log, head.count - 1, batch)
            if mine is not None and mine != head.id:
                found[log] = Head(head.count, mine)
        return found

    async def envelopes(self, lacks: Mapping[Log, int]) -> list[bytes]:
        """Read what somebody who holds so many records of each log lacks: as much as a message carries.

        What proves a fork goes first: other records may wait for it. Of a frozen log nobody takes
        more than what lies before the slot.
        """
        have = {log: self._served(log, count) for log, count in self.counts().items()}
        return await self._disk.run(self._read, gaps(have=have, lacks=lacks), lacks)

    def _served(self, log: Log, count: int) -> int:
        is_whole = self._roster.cut(*log) is not None or not self.forks.is_told(log)
        return count if is_whole else min(count, self.forks.slots.get(log, count))

    def _read(self, missing: Sequence[Gap], lacks: Mapping[Log, int]) -> list[bytes]:
        logs = [
            self._store.records(author=gap.author, epoch=gap.epoch, from_seq=gap.from_seq,
                                limit=gap.to_seq - gap.from_seq)
            for gap in missing
        ]  # fmt: skip
        # Causes before effects: whatever fits is of use to the receiver at once.
        ordered = heapq.merge(*logs, key=lambda signed: lamport_of(signed.record_bytes))
        everything = chain(self._proofs_beyond(lacks), ordered)
        return list(fit(signed.envelope() for signed in everything))

    def _proofs_beyond(self, lacks: Mapping[Log, int]) -> Iterator[SignedRecord]:
        for (author, epoch), seq in self.forks.places(lacks):
            yield from self._store.records(author=author, epoch=epoch, from_seq=seq, limit=1)
