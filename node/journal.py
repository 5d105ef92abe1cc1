"""Every hospital's log as this node holds it, and the pen that writes its own.

A record is on the disk before anybody hears of it (law 5): `append` and `ingest` return only after the
store has committed. One writer at a time, so one slot is never signed twice.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, final

import trio
from ledger.chain import LogHead, check_next, compose
from ledger.store import Store

from ledger.errors import ConfigError, VerificationError
from ledger.keys import Signer
from ledger.record import (
    Ack,
    Body,
    Kind,
    Record,
    SignedRecord,
    Verified,
    open_record,
    parse_envelope,
    sign_record,
)
from ledger.roster import Roster
from node.compute import Compute
from swarm.protocol.messages import Heads
from swarm.protocol.sync import Gap, fit, merge_order

RECENT_IDS: Final = 8_192
"""Ids remembered so that a record heard twice is not verified twice."""
EPOCH: Final = 0
"""Key epoch that this version signs in."""

Log = tuple[int, int]
"""(author, epoch)"""


class OwnLogAheadError(ConfigError):
    """Somebody holds signed records of ours that this directory lacks: going on would fork the log."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of records that a peer sent."""

    stored: tuple[Verified[Record], ...]
    gap: bool
    """A record came whose predecessors are missing: time to compare heads."""
    refused: tuple[VerificationError, ...]


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

    def own_count(self) -> int:
        """How many records this node has written."""
        return self.counts().get((self._own, EPOCH), 0)

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
        """Check and store what a peer sent, as one group commit.

        Raises OwnLogAheadError if it holds a record of ours that we do not.
        """
        refused: list[VerificationError] = []
        opened: list[Verified[Record]] = []
        for envelope in envelopes:
            try:
                signed = parse_envelope(envelope)
                if signed.id not in self._recent:
                    opened.append(open_record(signed, roster=self._roster))
            except VerificationError as error:
                refused.append(error)
        opened.sort(key=lambda r: (r.value.author, r.value.epoch, r.value.seq))
        with trio.CancelScope(shield=True):
            async with self._pen:
                fresh, gap = self._in_order(opened, refused)
                if fresh:
                    await self._disk.run(self._store.append, [record for record, _ in fresh])
                for record, head in fresh:
                    self._heads[record.value.author, record.value.epoch] = head
                    self._remember(record.id)
        return Ingested(tuple(record for record, _ in fresh), gap, tuple(refused))

    def _in_order(
        self, records: Iterable[Verified[Record]], refused: list[VerificationError]
    ) -> tuple[list[tuple[Verified[Record], LogHead]], bool]:
        """Pick the records that continue their logs, and say whether predecessors are missing."""
        heads: dict[Log, LogHead | None] = dict(self._heads)
        fresh: list[tuple[Verified[Record], LogHead]] = []
        gap = False
        for record in records:
            value = record.value
            log = (value.author, value.epoch)
            head = heads.get(log)
            next_seq = head.next_seq if head else 0
            if value.seq < next_seq:
                self._remember(record.id)
                continue
            if value.author == self._own:
                raise OwnLogAheadError(
                    f"a peer holds record {value.seq} of this site's own log, and this directory "
                    f"ends before it: it is a restored backup or a second copy; stop every copy "
                    f"and start the newest directory"
                )
            if value.seq > next_seq:
                gap = True
                continue
            try:
                heads[log] = after = check_next(head, record)
            except VerificationError as error:
                refused.append(error)
                continue
            fresh.append((record, after))
        return fresh, gap

    def _remember(self, record_id: bytes) -> None:
        self._recent[record_id] = None
        while len(self._recent) > RECENT_IDS:
            self._recent.popitem(last=False)

    async def envelopes(self, gaps: Sequence[Gap]) -> list[bytes]:
        """Read what fills ``gaps``, as much as one message carries."""
        return await self._disk.run(self._read, gaps)

    def _read(self, gaps: Sequence[Gap]) -> list[bytes]:
        def log(gap: Gap) -> Iterable[bytes]:
            stored: Iterable[SignedRecord] = self._store.records(
                author=gap.author, epoch=gap.epoch, from_seq=gap.from_seq
            )
            return (signed.envelope() for signed in stored)

        return list(fit(merge_order(log(gap) for gap in gaps)))
