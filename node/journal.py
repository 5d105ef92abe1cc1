"""Every hospital's log as this node holds it, and the pen that writes its own.

A record is on the disk before anybody hears of it (law 5): `append` and `ingest` return only after the
store has committed, `append` also after the mark beside it was moved (highwater.py). One writer at a
time, so one slot is never signed twice.
"""

import heapq
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import trio

from ledger.chain import LAMPORT_STEP_MAX, LogHead, check_next, compose
from ledger.errors import StoreError, SwarmError, UnavailableError, VerificationError
from ledger.fork import check_cut
from ledger.keys import Signer
from ledger.record import (
    Ack,
    Aggregation,
    Body,
    Input,
    Kind,
    Record,
    Verified,
    decode_record,
    open_record,
    parse_envelope,
    sign_record,
)
from ledger.roster import Roster
from ledger.roster_store import store_update, stored_updates
from ledger.roster_update import SignedUpdate
from ledger.store import Store
from node.compute import Compute
from node.highwater import REMEDY, HighWater, LostHistoryError
from swarm.protocol.messages import Heads
from swarm.protocol.sync import Gap, fit

RECENT_IDS: Final = 8_192
"""Ids remembered so that a record heard twice is not verified twice."""
PENDING_MAX: Final = 2_048
"""Records held back until what they build on has come, each author's share of them; more are dropped,
and asked for again."""
LAMPORT_FOLLOWED_MAX: Final = 1 << 52
"""Beyond this nobody's clock is followed, so that a liar cannot use the numbers up for everybody."""

Log = tuple[int, int]
"""(author, epoch)"""

Fresh = tuple[Verified[Record], LogHead]
"""A record that continues its log, and where the log stands after it."""


class OwnLogAheadError(LostHistoryError):
    """Somebody holds signed records of ours that this directory lacks: going on would fork the log."""

    def __init__(self, seq: int) -> None:
        super().__init__(
            f"a peer holds record {seq} of this site's own log, and this directory does not: it is "
            f"a restored backup, a second copy or a new ledger.db; stop every copy, and {REMEDY}"
        )


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
    ) -> None:
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
        self._recent: OrderedDict[bytes, None] = OrderedDict()
        self._pending: OrderedDict[bytes, Verified[Record]] = OrderedDict()
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
            yield record

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

    def counts(self) -> Heads:
        """How many records of each log are held."""
        return {log: head.next_seq for log, head in self._heads.items()}

    def heads(self) -> Mapping[Log, LogHead]:
        """Where every log stands."""
        return self._heads

    async def append(
        self, kind: Kind, round_: int, body: Body, *, with_acks: bool = False
    ) -> Verified[Record]:
        """Write, sign and store one record of our own. Cancellation waits until it is stored."""
        with trio.CancelScope(shield=True):
            async with self._pen:
                if self._is_over:
                    raise RosterChangedError(self._next_version)
                return await self._append(kind, round_, body, with_acks=with_acks)

    async def _append(
        self, kind: Kind, round_: int, body: Body, *, with_acks: bool
    ) -> Verified[Record]:
        head = self._heads.get((self._own, self._epoch))
        # A record comes after everything that is stored here, acknowledged or not. A clock that is
        # further ahead than one step may go is followed step by step, and acknowledged once reached.
        reach = min((head.lamport if head else 0) + LAMPORT_STEP_MAX, LAMPORT_FOLLOWED_MAX) - 1
        acks = self._due_acks(reach) if with_acks else ()
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
        await self._disk.run(self._store_own, signed, after)
        self._heads[self._own, self._epoch] = after
        self._note_acks(record)
        return signed

    def _store_own(self, signed: Verified[Record], after: LogHead) -> None:
        """Store, then mark: in one piece of the disk's work, so that no reader comes in between."""
        self._store.append([signed])
        self._mark.raise_to(after)

    def _due_acks(self, reach: int) -> tuple[Ack, ...]:
        """Heads of other logs that moved on since this node last acknowledged them."""
        return tuple(
            Ack(author, epoch, head.next_seq - 1, head.prev_id)
            for (author, epoch), head in sorted(self._heads.items())
            if author != self._own
            and head.next_seq - 1 > self._acked.get((author, epoch), -1)
            and head.lamport <= reach
        )

    def _note_acks(self, record: Record) -> None:
        if record.author == self._own:
            for ack in record.acks:
                self._acked[ack.author, ack.epoch] = ack.seq

    async def ingest(self, envelopes: Sequence[bytes]) -> Ingested:
        """Check and store what a peer sent, as one group commit, causes before effects.

        A record waits (in bounded memory) until everything that it builds on is stored, so every
        ledger that leaves this node is complete in itself.
        Raises OwnLogAheadError if it holds a record of ours that we do not.
        """
        with trio.CancelScope(shield=True):
            async with self._pen:
                if self._is_over:
                    return Ingested((), gap=False, refused=())
                fresh, gap, refused = await self._disk.run(self._ingest, envelopes)
                for record, head in fresh:
                    self._heads[record.value.author, record.value.epoch] = head
        return Ingested(tuple(record for record, _ in fresh), gap, tuple(refused))

    def _ingest(
        self, envelopes: Sequence[bytes]
    ) -> tuple[list[Fresh], bool, list[VerificationError]]:
        """Verify, order and store; runs where the disk's work runs."""
        refused: list[VerificationError] = []
        heard: set[bytes] = set()
        for envelope in envelopes:
            try:
                signed = parse_envelope(envelope)
                if signed.id not in self._recent and signed.id not in self._pending:
                    self._pending[signed.id] = open_record(signed, roster=self._roster)
                    heard.add(signed.id)
            except VerificationError as error:
                refused.append(error)
        fresh = self._in_order(refused)
        if fresh:
            self._store.append([record for record, _ in fresh])
        gap = not heard.isdisjoint(self._pending)
        self._drop_surplus()
        return fresh, gap, refused

    def _in_order(self, refused: list[VerificationError]) -> list[Fresh]:
        """Take from the waiting records those that continue their logs and whose causes are here."""
        heads: dict[Log, LogHead] = dict(self._heads)
        fresh: list[Fresh] = []
        # A cause has a smaller Lamport time than its effect, so one pass in that order is enough.
        waiting = sorted(self._pending.values(), key=lambda r: (r.value.lamport, r.value.author))
        batch: dict[tuple[Log, int], bytes] = {}
        for record in waiting:
            value = record.value
            log = (value.author, value.epoch)
            head = heads.get(log)
            next_seq = head.next_seq if head else 0
            try:
                if value.seq < next_seq:
                    self._check_slot(record, self._id_at(log, value.seq, heads, batch))
                    self._settle(record.id)
                    continue
                self._check_cut(record)
                if log == (self._own, self._epoch):
                    raise OwnLogAheadError(value.seq)
                if value.seq > next_seq or not self._causes_known(value, heads, batch):
                    continue
                heads[log] = after = check_next(head, record)
            except VerificationError as error:
                self._settle(record.id)
                refused.append(error)
                continue
            self._settle(record.id)
            batch[log, value.seq] = record.id
            fresh.append((record, after))
        return fresh

    def _drop_surplus(self) -> None:
        """Keep each author within its share of the waiting records: one cannot crowd out the others."""
        share = max(PENDING_MAX // self._roster.n, 1)
        waiting: Counter[int] = Counter()
        for record in list(self._pending.values()):
            waiting[record.value.author] += 1
            if waiting[record.value.author] > share:
                del self._pending[record.id]

    def _check_cut(self, record: Verified[Record]) -> None:
        """Refuse what lies behind the cut of its log. E_AFTER_CUT."""
        cut = self._roster.cut(record.value.author, record.value.epoch)
        if cut is not None:
            check_cut(cut, record)

    def _check_slot(self, record: Verified[Record], stored: bytes | None) -> None:
        """Refuse a second record for a slot; of our own log it means that two copies of us sign."""
        if record.id == stored:
            return
        value = record.value
        if (value.author, value.epoch) == (self._own, self._epoch):
            raise OwnLogAheadError(value.seq)
        raise _refusal("E_FORK", "another record is stored for this slot", value)

    def _id_at(
        self,
        log: Log,
        seq: int,
        heads: Mapping[Log, LogHead],
        batch: Mapping[tuple[Log, int], bytes],
    ) -> bytes | None:
        """Id of the record in one slot of a log; None beyond its end."""
        head = heads.get(log)
        if head is None or seq >= head.next_seq:
            return None
        if seq == head.next_seq - 1:
            return head.prev_id
        if (log, seq) in batch:
            return batch[log, seq]
        author, epoch = log
        return next(self._store.records(author=author, epoch=epoch, from_seq=seq, limit=1)).id

    def _causes_known(
        self,
        record: Record,
        heads: Mapping[Log, LogHead],
        batch: Mapping[tuple[Log, int], bytes],
    ) -> bool:
        """Whether every record that this one acknowledges or merges is stored.

        Raises E_DEP_UNKNOWN, E_AGG_INPUT where it names another record than the one in that slot.
        """
        inputs = record.body.inputs if isinstance(record.body, Aggregation) else ()
        causes: list[Ack | Input] = [*record.acks, *inputs]
        for cause in causes:
            stored = self._id_at((cause.author, cause.epoch), cause.seq, heads, batch)
            if stored is None and self._roster.is_void(
                cause.author, cause.epoch, cause.seq, by_version=record.roster
            ):
                continue
            if stored is None:
                return False
            if cause.id != stored:
                code = "E_DEP_UNKNOWN" if isinstance(cause, Ack) else "E_AGG_INPUT"
                what = f"names another record {cause.seq} of author {cause.author}"
                raise _refusal(code, what, record)
        return True

    def _settle(self, record_id: bytes) -> None:
        """Stop waiting for a record, and know it when it comes again."""
        self._pending.pop(record_id, None)
        self._recent[record_id] = None
        while len(self._recent) > RECENT_IDS:
            self._recent.popitem(last=False)

    async def envelopes(self, gaps: Sequence[Gap]) -> list[bytes]:
        """Read what fills ``gaps``, as much as one message carries."""
        return await self._disk.run(self._read, gaps)

    def _read(self, gaps: Sequence[Gap]) -> list[bytes]:
        logs = [
            self._store.records(author=gap.author, epoch=gap.epoch, from_seq=gap.from_seq)
            for gap in gaps
        ]
        # Causes before effects: whatever fits is of use to the receiver at once.
        ordered = heapq.merge(*logs, key=lambda signed: lamport_of(signed.record_bytes))
        return list(fit(signed.envelope() for signed in ordered))


def _refusal(code: str, message: str, record: Record) -> VerificationError:
    return VerificationError(
        code, message, author=record.author, epoch=record.epoch, seq=record.seq
    )
