"""Records that peers sent: opened, ordered, held back until what they build on is here, and stored.

Room: node. Law: what is stored is closed, so every ledger that leaves this node is complete in itself;
a frozen log is the one exception, and then the proof is stored with it. Knows no clock and no network.
Spec: docs/wire.md §4.1, §4.6.
"""

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final, final

from ledger.chain import LogHead, check_next
from ledger.errors import StoreError, VerificationError
from ledger.fork import Cut, check_cut
from ledger.record import (
    NO_ID,
    Ack,
    Aggregation,
    ForkProof,
    Input,
    Record,
    SignedRecord,
    Verified,
    open_record,
    parse_envelope,
)
from ledger.roster import Roster
from ledger.store import Store
from node.forks import Forks, Log
from node.highwater import REMEDY, LostHistoryError
from node.round_share import RoundShares

SLOTS_REMEMBERED: Final = 8_192
"""Slots whose record's id is known without a look at the disk: what is acknowledged is mostly new."""
RECENT_IDS: Final = 8_192
"""Ids remembered so that a record heard twice is not verified twice."""
PENDING_MAX: Final = 2_048
"""Records held back until what they build on has come, each author's share of them; more are dropped,
and asked for again."""

Fresh = tuple[Verified[Record], LogHead]
"""A record that continues its log, and where the log stands after it."""


class OwnLogAheadError(LostHistoryError):
    """Somebody holds signed records of ours that this directory lacks: going on would fork the log."""

    def __init__(self, seq: int) -> None:
        super().__init__(
            f"a peer holds record {seq} of this site's own log, and this directory does not: it is "
            f"a restored backup, a second copy or a new ledger.db; stop every copy, and {REMEDY}"
        )


class Batch:
    """What one group of records makes of the logs, before it is stored."""

    def __init__(self, heads: Mapping[Log, LogHead]) -> None:
        self.heads = dict(heads)
        self.fresh: list[Fresh] = []
        self.placed: dict[tuple[Log, int], Verified[Record]] = {}
        self.refused: list[VerificationError] = []
        self.heard: set[bytes] = set()
        """Ids of records that came with this group and not before."""
        self.is_rewritten = False
        """Whether the branch that a cut keeps has replaced another one that was stored."""
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


@final
class Intake:
    """The way in for everybody else's records."""

    def __init__(
        self, store: Store, roster: Roster, own: Log, forks: Forks, shares: RoundShares
    ) -> None:
        self._shares = shares
        self._store = store
        self._roster = roster
        self._own = own
        self._forks = forks
        self._recent: OrderedDict[bytes, None] = OrderedDict()
        self._pending: OrderedDict[bytes, Verified[Record]] = OrderedDict()
        self._id_at: OrderedDict[tuple[Log, int], bytes] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many records wait for others."""
        return len(self._pending)

    @property
    def remembered(self) -> int:
        """How many ids are known without a look at the store."""
        return len(self._recent)

    def take(self, envelopes: Sequence[bytes], heads: Mapping[Log, LogHead]) -> tuple[Batch, bool]:
        """Verify, order and store, as one group commit; runs where the disk's work runs.

        heads: where every log stands. Returns what became of it all, and whether some of it waits.
        Raises OwnLogAheadError, OwnLogForkedError, StoreError.
        """
        batch = Batch(heads)
        for envelope in envelopes:
            try:
                signed = parse_envelope(envelope)
                id_ = signed.id
                if id_ not in self._recent and id_ not in self._pending:
                    record = open_record(signed, roster=self._roster)
                    if isinstance(record.value.body, ForkProof):
                        self._forks.believe(record.value.body)
                    self._pending[id_] = record
                    batch.heard.add(id_)
            except VerificationError as error:
                batch.refused.append(error)
        self._find_twins()
        while True:  # what freezes a log may let others in
            before = len(self._forks.slots), len(batch.fresh)
            self._in_order(batch)
            changed = any(self._change_branch(cut, batch) for cut in self._roster.cuts())
            if not changed and before == (len(self._forks.slots), len(batch.fresh)):
                break
        unsaved = self._forks.take_unsaved()
        if batch.fresh or unsaved:
            self._store.append([record for record, _ in batch.fresh], state=unsaved)
        self._forks.refuse_own()
        for record, _ in batch.fresh:
            self._forks.stored(record)
            value = record.value
            self._remember(((value.author, value.epoch), value.seq), record.id)
        gap = not batch.heard.isdisjoint(self._pending)
        self._drop_surplus()
        return batch, gap

    def _change_branch(self, cut: Cut, batch: Batch) -> bool:
        """Where the waiting records complete what a cut keeps, they replace the branch that is here.

        A quorum has decided that the other one is void, so it goes, for good.
        """
        log = (cut.author, cut.epoch)
        head = batch.heads.get(log)
        if head is None or not self.is_cut_short(log, batch.heads):
            return False
        first, wanted, lowest = cut.kept, cut.head_id, None
        while first and wanted in self._pending and self.id_at(log, first - 1, batch) != wanted:
            lowest = self._pending[wanted]
            wanted = lowest.value.prev
            first -= 1
        joins = wanted == (self.id_at(log, first - 1, batch) if first else NO_ID)
        is_stored = all(record.value.author != cut.author for record, _ in batch.fresh)
        if not joins or first >= head.next_seq or not is_stored:
            return False
        if lowest is None or not self._causes_known(lowest, batch):
            return False  # it could not take the place that is made for it yet
        self._store.cut({log: first})
        batch.is_rewritten = True
        self._shares.forget(log)
        self._id_at.clear()
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
            if twin.id != record.id and not self._forks.holds_back(log, value.seq):
                self._forks.found(twin.signed, record.signed)

    def _in_order(self, batch: Batch) -> None:
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
                self._shares.took(record)

    def _place(self, record: Verified[Record], batch: Batch) -> LogHead | None:
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
        if log == self._own:
            raise OwnLogAheadError(value.seq)
        is_cut = self._roster.cut(*log) is not None  # then the cut says what is stored
        if self._forks.holds_back(log, value.seq) and not is_cut:
            raise _refusal("E_FORK", "the log is frozen: its key has signed one slot twice", value)
        if value.seq > next_seq:
            return None
        is_open = is_cut or log not in self._forks.slots
        if head is not None and value.prev != head.prev_id and is_open:
            batch.ask_author_of(record)  # it continues another branch: somebody has the other half
            return None
        if not self._causes_known(record, batch):
            return None
        after = check_next(head, record)
        self._shares.admit(record)
        return after

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

    def _is_taken(self, record: Verified[Record], batch: Batch) -> bool:
        """Tell whether a record is stored already; False: it may yet take the place of the one here.

        A second record for a slot is refused; of our own log it means that two copies of us sign.
        """
        value = record.value
        log = (value.author, value.epoch)
        if record.id == self.id_at(log, value.seq, batch):
            return True
        if log == self._own:
            raise OwnLogAheadError(value.seq)
        if not self._forks.holds_back(log, value.seq):
            self._forks.found(record.signed, self._at(log, value.seq, batch))
        if self.is_cut_short(log, batch.heads):
            return False
        raise _refusal("E_FORK", "another record is stored for this slot", value)

    def id_at(self, log: Log, seq: int, batch: Batch) -> bytes | None:
        """Id of the record in one slot of a log; None beyond its end."""
        head = batch.heads.get(log)
        if head is None or seq >= head.next_seq:
            return None
        if seq == head.next_seq - 1:
            return head.prev_id
        placed = batch.placed.get((log, seq))
        known = placed.id if placed is not None else self._id_at.get((log, seq))
        if known is not None:
            return known
        stored = self._stored(log, seq)
        return None if stored is None else self._remember((log, seq), stored.id)

    def _remember(self, slot: tuple[Log, int], record_id: bytes) -> bytes:
        self._id_at[slot] = record_id
        if len(self._id_at) > SLOTS_REMEMBERED:
            self._id_at.popitem(last=False)
        return record_id

    def _at(self, log: Log, seq: int, batch: Batch) -> SignedRecord:
        """Return the record in a slot that is taken."""
        placed = batch.placed.get((log, seq))
        found = self._stored(log, seq) if placed is None else placed.signed
        if found is None:
            raise StoreError(f"{self._store.path}: record {seq} of log {log[0]}/{log[1]} is gone")
        return found

    def _stored(self, log: Log, seq: int) -> SignedRecord | None:
        """Return the record in a slot; None where a cut has just removed it."""
        author, epoch = log
        found = self._store.records(author=author, epoch=epoch, from_seq=seq, limit=1)
        return next(found, None)

    def _causes_known(self, checked: Verified[Record], batch: Batch) -> bool:
        """Whether every record that this one acknowledges or merges is stored.

        Nothing that names a frozen log is held against anybody: who wrote it may hold the other
        branch. Until a proof is known such a record waits, and its author is asked.
        """
        record = checked.value
        inputs = record.body.inputs if isinstance(record.body, Aggregation) else ()
        causes: list[Ack | Input] = [*record.acks, *inputs]
        for cause in causes:
            log = (cause.author, cause.epoch)
            head = batch.heads.get(log)
            if head and (head.next_seq - 1, head.prev_id) == (cause.seq, cause.id):
                continue  # the last one: so it is mostly
            if log in self._forks.slots:
                continue
            stored = self.id_at(log, cause.seq, batch)
            if stored is None and self._roster.is_void(
                cause.author, cause.epoch, cause.seq, by_version=record.roster
            ):
                continue
            if stored is not None and cause.id != stored:
                chosen = self._roster.is_before_cut(*log, by_version=record.roster)
                if chosen and not self.is_cut_short(log, batch.heads):
                    continue  # its writer saw a branch that the cut left out
                batch.ask_author_of(checked)
            if cause.id != stored:
                return False
        return True

    def is_cut_short(self, log: Log, heads: Mapping[Log, LogHead]) -> bool:
        """Whether the roster keeps more of a log than is held, so that it may change its branch."""
        cut, head = self._roster.cut(*log), heads.get(log)
        return cut is not None and (head.next_seq if head else 0) < cut.kept

    def _settle(self, record_id: bytes) -> None:
        """Stop waiting for a record, and know it when it comes again."""
        self._pending.pop(record_id, None)
        self._recent[record_id] = None
        while len(self._recent) > RECENT_IDS:
            self._recent.popitem(last=False)


def _refusal(code: str, message: str, record: Record) -> VerificationError:
    return VerificationError(
        code, message, author=record.author, epoch=record.epoch, seq=record.seq
    )
