"""Every hospital's log as this node holds it, and the pen that writes its own.

A record is on the disk before anybody hears of it (law 5): `append` and `ingest` return only after the
store has committed. One writer at a time, so one slot is never signed twice.
"""

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import trio

from ledger.chain import LogHead, check_next, compose
from ledger.errors import ConfigError, VerificationError
from ledger.keys import Signer
from ledger.record import (
    Ack,
    Body,
    Kind,
    Record,
    Verified,
    decode_record,
    open_record,
    parse_envelope,
    sign_record,
)
from ledger.roster import Roster
from ledger.store import Store
from node.compute import Compute
from swarm.protocol.messages import Heads
from swarm.protocol.sync import Gap, fit

RECENT_IDS: Final = 8_192
"""Ids remembered so that a record heard twice is not verified twice."""
PENDING_MAX: Final = 2_048
"""Records held back until what they build on has come; more are dropped, and asked for again."""
EPOCH: Final = 0
"""Key epoch that this version signs in."""

Log = tuple[int, int]
"""(author, epoch)"""

Fresh = tuple[Verified[Record], LogHead]
"""A record that continues its log, and where the log stands after it."""


class OwnLogAheadError(ConfigError):
    """Somebody holds signed records of ours that this directory lacks: going on would fork the log."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of records that a peer sent."""

    stored: tuple[Verified[Record], ...]
    gap: bool
    """Records wait for others that are missing here: time to compare heads."""
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
        self._heads: dict[Log, LogHead] = dict(store.heads())
        self._acked: dict[Log, int] = {}
        self._recent: OrderedDict[bytes, None] = OrderedDict()
        self._pending: OrderedDict[bytes, Verified[Record]] = OrderedDict()
        self._pen = trio.Lock()

    def replay(self) -> Iterable[Verified[Record]]:
        """Yield every stored record again, checked again; call once, before anything else."""
        for signed in self._store.records():
            record = open_record(signed, roster=self._roster)
            self._note_acks(record.value)
            yield record

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
                return await self._append(kind, round_, body, with_acks=with_acks)

    async def _append(
        self, kind: Kind, round_: int, body: Body, *, with_acks: bool
    ) -> Verified[Record]:
        head = self._heads.get((self._own, EPOCH))
        acks = self._due_acks() if with_acks else ()
        record = compose(
            head,
            roster=self._roster,
            author=self._own,
            epoch=EPOCH,
            kind=kind,
            round=round_,
            time_ms=self._time_ms(),
            acks=acks,
            lamports=[self._heads[a.author, a.epoch].lamport for a in acks],
            times_ms=[self._heads[a.author, a.epoch].time_ms for a in acks],
            body=body,
        )
        signed = sign_record(record, self._signer)
        after = check_next(head, signed)
        await self._disk.run(self._store.append, [signed])
        self._heads[self._own, EPOCH] = after
        self._note_acks(record)
        return signed

    def _due_acks(self) -> tuple[Ack, ...]:
        """Heads of other logs that moved on since this node last acknowledged them."""
        return tuple(
            Ack(author, epoch, head.next_seq - 1, head.prev_id)
            for (author, epoch), head in sorted(self._heads.items())
            if author != self._own and head.next_seq - 1 > self._acked.get((author, epoch), -1)
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
                fresh, refused = await self._disk.run(self._ingest, envelopes)
                for record, head in fresh:
                    self._heads[record.value.author, record.value.epoch] = head
        return Ingested(tuple(record for record, _ in fresh), bool(self._pending), tuple(refused))

    def _ingest(self, envelopes: Sequence[bytes]) -> tuple[list[Fresh], list[VerificationError]]:
        """Verify, order and store; runs where the disk's work runs."""
        refused: list[VerificationError] = []
        for envelope in envelopes:
            try:
                signed = parse_envelope(envelope)
                if signed.id not in self._recent:
                    self._pending[signed.id] = open_record(signed, roster=self._roster)
            except VerificationError as error:
                refused.append(error)
        fresh = self._in_order(refused)
        if fresh:
            self._store.append([record for record, _ in fresh])
        while len(self._pending) > PENDING_MAX:
            self._pending.popitem(last=False)
        return fresh, refused

    def _in_order(self, refused: list[VerificationError]) -> list[tuple[Verified[Record], LogHead]]:
        """Take from the waiting records those that continue their logs and whose causes are here."""
        heads: dict[Log, LogHead | None] = dict(self._heads)
        fresh: list[Fresh] = []
        # A cause has a smaller Lamport time than its effect, so one pass in that order is enough.
        waiting = sorted(self._pending.values(), key=lambda r: (r.value.lamport, r.value.author))
        batch: set[bytes] = set()
        for record in waiting:
            log = (record.value.author, record.value.epoch)
            head = heads.get(log)
            next_seq = head.next_seq if head else 0
            try:
                if record.value.seq < next_seq:
                    self._settle(record.id)
                    continue
                self._refuse_own(record.value)
                if record.value.seq > next_seq or not self._causes_known(
                    record.value, heads, batch
                ):
                    continue
                heads[log] = after = check_next(head, record)
            except VerificationError as error:
                self._settle(record.id)
                refused.append(error)
                continue
            self._settle(record.id)
            batch.add(record.id)
            fresh.append((record, after))
        return fresh

    def _refuse_own(self, record: Record) -> None:
        if record.author == self._own:
            raise OwnLogAheadError(
                f"a peer holds record {record.seq} of this site's own log, and this directory "
                f"ends before it: it is a restored backup or a second copy; stop every copy "
                f"and start the newest directory"
            )

    def _causes_known(
        self, record: Record, heads: Mapping[Log, LogHead | None], batch: set[bytes]
    ) -> bool:
        """Whether every acknowledged record is stored. Raises E_DEP_UNKNOWN for a false one."""
        for ack in record.acks:
            head = heads.get((ack.author, ack.epoch))
            if head is None or ack.seq >= head.next_seq:
                return False
            if ack.id not in batch and ack.id not in self._recent and not self._store.get(ack.id):
                raise VerificationError(
                    "E_DEP_UNKNOWN",
                    f"acknowledges another record {ack.seq} of author {ack.author}",
                    author=record.author,
                    epoch=record.epoch,
                    seq=record.seq,
                )
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
