"""Every hospital's log as this node holds it, and the pen that writes its own.

A record is on the disk before anybody hears of it (law 5): `append` and `ingest` return only after the
store has committed, `append` also after the mark beside it was moved (highwater.py). One writer at a
time, so one slot is never signed twice.
"""

import heapq
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, final

import trio

from ledger.chain import LAMPORT_STEP_MAX, LogHead, check_next, compose
from ledger.errors import StoreError, SwarmError, UnavailableError, VerificationError
from ledger.fork import Cut, Fork, check_cut
from ledger.keys import Signer
from ledger.record import (
    NO_ID,
    Ack,
    Aggregation,
    Body,
    ForkProof,
    Input,
    Kind,
    Record,
    SignedRecord,
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
from node.forks import Forks
from node.highwater import REMEDY, HighWater, LostHistoryError
from swarm.protocol.messages import Counts, Head, Heads
from swarm.protocol.sync import Gap, fit, gaps

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


class _Batch:
    """What one group of records makes of the logs, before it is stored."""

    def __init__(self, heads: Mapping[Log, LogHead]) -> None:
        self.heads = dict(heads)
        self.fresh: list[Fresh] = []
        self.placed: dict[tuple[Log, int], Verified[Record]] = {}
        self.refused: list[VerificationError] = []
        self.heard: set[bytes] = set()
        """Ids of records that came with this group and not before."""
        self.ask: set[int] = set()
        """Authors of such records that name other records than are here: their logs differ from ours."""

    def take(self, record: Verified[Record], after: LogHead) -> None:
        """Let a record continue its log."""
        log = (after.author, after.epoch)
        self.heads[log] = after
        self.placed[log, record.value.seq] = record
        self.fresh.append((record, after))

    def ask_author_of(self, record: Verified[Record]) -> None:
        """Have the author asked, once for each record, for what it builds on."""
        if record.id in self.heard:
            self.ask.add(record.value.author)


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
    forks: tuple[Fork, ...] = ()
    """Logs that are frozen from now on, or at a lower slot."""
    ask: frozenset[int] = frozenset()
    """Members whose records name another record for a slot than is stored here."""


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
        self.forks = Forks(store, roster, (own, self._epoch))
        self.forks.refuse_own()
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
                and self._is_cut_short(log, self._heads)
            ):
                claimed[log] = Head(slot, NO_ID)
        return {log: head for log, head in claimed.items() if head.count}

    def _is_cut_short(self, log: Log, heads: Mapping[Log, LogHead]) -> bool:
        """Whether the roster keeps more of a log than is held, so that it may change its branch."""
        cut, head = self._roster.cut(*log), heads.get(log)
        return cut is not None and (head.next_seq if head else 0) < cut.kept

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
        if kind is Kind.FORK_PROOF and head is not None:
            round_ = max(round_, head.round)  # it is about no round, and may come at any time
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
        self.forks.stored(signed)
        return signed

    def _store_own(self, signed: Verified[Record], after: LogHead) -> None:
        """Store, then mark: in one piece of the disk's work, so that no reader comes in between."""
        self._store.append([signed])
        self._mark.raise_to(after)

    def _due_acks(self, reach: int) -> tuple[Ack, ...]:
        """Heads of other logs that moved on since this node last acknowledged them.

        Nobody acknowledges two branches: not a frozen log, nor one that a cut may have replaced.
        """
        return tuple(
            Ack(author, epoch, head.next_seq - 1, head.prev_id)
            for (author, epoch), head in sorted(self._heads.items())
            if author != self._own
            and (author, epoch) not in self.forks.slots
            and self._roster.cut(author, epoch) is None
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
        Raises OwnLogAheadError if it holds a record of ours that we do not, OwnLogForkedError if it
        proves that our key has signed twice.
        """
        with trio.CancelScope(shield=True):
            async with self._pen:
                if self._is_over:
                    return Ingested((), gap=False, refused=())
                batch, gap = await self._disk.run(self._ingest, envelopes)
                self._heads = batch.heads
        return Ingested(
            tuple(record for record, _ in batch.fresh),
            gap,
            tuple(batch.refused),
            self.forks.take_news(),
            frozenset(batch.ask),
        )

    def _ingest(self, envelopes: Sequence[bytes]) -> tuple[_Batch, bool]:
        """Verify, order and store; runs where the disk's work runs."""
        batch = _Batch(self._heads)
        for envelope in envelopes:
            try:
                signed = parse_envelope(envelope)
                if signed.id not in self._recent and signed.id not in self._pending:
                    record = open_record(signed, roster=self._roster)
                    if isinstance(record.value.body, ForkProof):
                        self.forks.believe(record.value.body)
                    self._pending[signed.id] = record
                    batch.heard.add(signed.id)
            except VerificationError as error:
                batch.refused.append(error)
        self._find_twins()
        while True:  # what freezes a log may let others in
            before = len(self.forks.slots), len(batch.fresh)
            self._in_order(batch)
            changed = any(self._change_branch(cut, batch) for cut in self._roster.cuts())
            if not changed and before == (len(self.forks.slots), len(batch.fresh)):
                break
        unsaved = self.forks.take_unsaved()
        if batch.fresh or unsaved:
            self._store.append([record for record, _ in batch.fresh], state=unsaved)
        self.forks.refuse_own()
        for record, _ in batch.fresh:
            self.forks.stored(record)
        gap = not batch.heard.isdisjoint(self._pending)
        self._drop_surplus()
        return batch, gap

    def _change_branch(self, cut: Cut, batch: _Batch) -> bool:
        """Where the waiting records complete what a cut keeps, they replace the branch that is here.

        A quorum has decided that the other one is void, so it goes, for good.
        """
        log = (cut.author, cut.epoch)
        head = batch.heads.get(log)
        if head is None or not self._is_cut_short(log, batch.heads):
            return False
        first, wanted = cut.kept, cut.head_id
        while first and wanted in self._pending and self._id_at(log, first - 1, batch) != wanted:
            wanted = self._pending[wanted].value.prev
            first -= 1
        joins = wanted == (self._id_at(log, first - 1, batch) if first else NO_ID)
        is_stored = all(record.value.author != cut.author for record, _ in batch.fresh)
        if not joins or first >= head.next_seq or not is_stored:
            return False
        self._store.cut({log: first})
        after = self._store.heads().get(log)
        batch.heads = {key: one for key, one in batch.heads.items() if key != log}
        if after is not None:
            batch.heads[log] = after
        return True

    def _find_twins(self) -> None:
        """Two records for one slot that wait, both: a proof, whichever comes first."""
        seen: dict[tuple[Log, int], Verified[Record]] = {}
        for record in self._pending.values():
            value = record.value
            log = (value.author, value.epoch)
            twin = seen.setdefault((log, value.seq), record)
            if twin.id != record.id and not self.forks.holds_back(log, value.seq):
                self.forks.found(twin.signed, record.signed)

    def _in_order(self, batch: _Batch) -> None:
        """Take from the waiting records those that continue their logs and whose causes are here."""
        # A cause has a smaller Lamport time than its effect, so one pass in that order is enough.
        batch.ask.clear()
        waiting = sorted(self._pending.values(), key=lambda r: (r.value.lamport, r.value.author))
        for record in waiting:
            try:
                after = self._place(record, batch)
            except VerificationError as error:
                self._settle(record.id)
                batch.refused.append(error)
                continue
            if after is not None:
                self._settle(record.id)
                batch.take(record, after)

    def _place(self, record: Verified[Record], batch: _Batch) -> LogHead | None:
        """Return the head after a record that can be stored; None if it waits, or is stored already.

        Raises VerificationError: it is refused for good.
        """
        value = record.value
        log = (value.author, value.epoch)
        head = batch.heads.get(log)
        next_seq = head.next_seq if head else 0
        if value.seq < next_seq:
            if self._is_taken(record, batch):
                self._settle(record.id)
            return None
        self._check_cut(record)
        if log == (self._own, self._epoch):
            raise OwnLogAheadError(value.seq)
        is_cut = self._roster.cut(*log) is not None  # then the cut says what is stored
        if self.forks.holds_back(log, value.seq) and not is_cut:
            raise _refusal("E_FORK", "the log is frozen: its key has signed one slot twice", value)
        if value.seq > next_seq:
            return None
        is_open = is_cut or log not in self.forks.slots
        if head is not None and value.prev != head.prev_id and is_open:
            batch.ask_author_of(record)  # it continues another branch: somebody has the other half
            return None
        return check_next(head, record) if self._causes_known(record, batch) else None

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

    def _is_taken(self, record: Verified[Record], batch: _Batch) -> bool:
        """Tell whether a record is stored already; False: it may yet take the place of the one here.

        A second record for a slot is refused; of our own log it means that two copies of us sign.
        """
        value = record.value
        log = (value.author, value.epoch)
        if record.id == self._id_at(log, value.seq, batch):
            return True
        if log == (self._own, self._epoch):
            raise OwnLogAheadError(value.seq)
        if not self.forks.holds_back(log, value.seq):
            self.forks.found(record.signed, self._at(log, value.seq, batch))
        if self._is_cut_short(log, batch.heads):
            return False
        raise _refusal("E_FORK", "another record is stored for this slot", value)

    def _id_at(self, log: Log, seq: int, batch: _Batch) -> bytes | None:
        """Id of the record in one slot of a log; None beyond its end."""
        head = batch.heads.get(log)
        if head is None or seq >= head.next_seq:
            return None
        return head.prev_id if seq == head.next_seq - 1 else self._at(log, seq, batch).id

    def _at(self, log: Log, seq: int, batch: _Batch) -> SignedRecord:
        """Return the record in a slot that is taken."""
        placed = batch.placed.get((log, seq))
        if placed is not None:
            return placed.signed
        author, epoch = log
        return next(self._store.records(author=author, epoch=epoch, from_seq=seq, limit=1))

    def _causes_known(self, checked: Verified[Record], batch: _Batch) -> bool:
        """Whether every record that this one acknowledges or merges is stored.

        Nothing that names a frozen log is held against anybody: who wrote it may hold the other
        branch. Until a proof is known such a record waits, and its author is asked.
        """
        record = checked.value
        inputs = record.body.inputs if isinstance(record.body, Aggregation) else ()
        causes: list[Ack | Input] = [*record.acks, *inputs]
        for cause in causes:
            log = (cause.author, cause.epoch)
            if log in self.forks.slots:
                continue
            stored = self._id_at(log, cause.seq, batch)
            if stored is None and self._roster.is_void(
                cause.author, cause.epoch, cause.seq, by_version=record.roster
            ):
                continue
            if stored is not None and cause.id != stored:
                batch.ask_author_of(checked)
            if cause.id != stored:
                return False
        return True

    def _settle(self, record_id: bytes) -> None:
        """Stop waiting for a record, and know it when it comes again."""
        self._pending.pop(record_id, None)
        self._recent[record_id] = None
        while len(self._recent) > RECENT_IDS:
            self._recent.popitem(last=False)

    async def differing(self, heads: Heads) -> dict[Log, Head]:
        """Logs of which somebody's last record is another than ours in that slot, and ours there.

        Logs that are frozen here are left out: that they differ is known.
        """
        return await self._disk.run(self._differing, heads)

    def _differing(self, heads: Heads) -> dict[Log, Head]:
        batch = _Batch(self._heads)
        found = {}
        for log, head in heads.items():
            mine = None
            if log not in self.forks.slots:
                mine = self._id_at(log, head.count - 1, batch)
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
        is_cut = self._roster.cut(*log) is not None
        return count if is_cut else min(count, self.forks.slots.get(log, count))

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


def _refusal(code: str, message: str, record: Record) -> VerificationError:
    return VerificationError(
        code, message, author=record.author, epoch=record.epoch, seq=record.seq
    )
