"""One log under audit: steps 4 to 10, record by record. Room: ledger. Spec: docs/ledger.md §10.

A log may come in several bundles. They are read side by side: equal bytes are checked once, a
shorter one simply ends, and two different records for one slot are a fork.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any, Final, final

from .canonical import pack, unpack
from .chain import LAMPORT_STEP_MAX, check_links, check_monotone
from .errors import VerificationError
from .frames import read_frames
from .keys import opens, verify_joined
from .record import (
    DOMAIN,
    NO_ID,
    ORDINARY_BYTES_MAX,
    VERSION,
    accepts_acks,
    accepts_body,
    check_identity,
    check_open,
    decode_record,
    record_id,
    split_envelope,
)
from .report import Finding
from .roster import Roster

AHEAD_BYTES: Final = 1 << 16
_TAIL_TYPES: Final[list[type]] = [int, int, int, int, list, list]
_KNOWN_TYPES: Final = _TAIL_TYPES[:-1]
_SCHEMA_CODES: Final = frozenset({"E_VERSION", "E_SCHEMA", "E_KIND", "E_ORDER"})


class Signatures(Enum):
    """Which signatures a pass over the logs looks at; what is refused is looked at in any case."""

    EACH = 1
    ELSEWHERE = 2  # other processes look at them meanwhile: see audit_jobs
    NEWEST = 3  # the last one of each log


@final
class Link:
    """How far one log has acked another, and under which roster."""

    __slots__ = ("before", "ids", "roster", "seq", "target")

    def __init__(self, target: LogAudit) -> None:
        self.target = target
        self.ids = target.ids
        self.seq = -1
        self.roster = 0
        self.before: dict[int, int] = {}  # roster version before → how far then

    def by_roster(self) -> dict[int, int]:
        """Return how far under each roster version; nothing before the first ack."""
        return {**self.before, self.roster: self.seq} if self.seq >= 0 else {}

    def turn_to(self, roster: int) -> None:
        """Acks under another roster begin: finality counts them apart."""
        if self.seq >= 0:
            self.before[self.roster] = self.seq
        self.roster = roster


@final
class BodyMemo:
    """The AGGREGATION body accepted last: members that agree write the same bytes."""

    __slots__ = ("body", "body_bytes")

    def __init__(self) -> None:
        self.body_bytes = b""
        self.body: list[Any] = []


@final
class Entry:
    """The record that a log stands at."""

    __slots__ = ("envelope", "id", "record_bytes", "signature", "value")

    def __init__(self) -> None:
        self.envelope = self.record_bytes = self.signature = b""
        self.id = NO_ID
        self.value: list[Any] = []


@final
class Source:
    """One bundle's file of a log."""

    __slots__ = ("count", "file", "finding", "finding_at", "frames", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = str(path)
        self.frames: Iterator[bytes] | None = read_frames(path)  # None: it ended or failed
        self.count = 0
        self.finding: Finding | None = None
        self.finding_at = 0


@final
class LogAudit:
    """What has been accepted of one log: a head, and a compact index of about 55 bytes a record."""

    def __init__(
        self,
        author: int,
        epoch: int,
        *,
        roster: Roster,
        paths: Sequence[Path],
        memo: BodyMemo,
        signatures: Signatures = Signatures.EACH,
    ) -> None:
        self.author = author
        self.epoch = epoch
        self.members = roster
        self.key = roster.key(author, epoch)
        self.cut = roster.cut(author, epoch)
        self.sources = [Source(path) for path in paths]
        self.memo = memo
        self.signatures = signatures
        # How every record of this log begins, and the roster version that the last one named.
        self.net_to_epoch = pack([VERSION, roster.net, author, epoch])[1:]
        self.net_to_epoch = b"\x9d" + self.net_to_epoch
        self.version = pack(0)
        self.entry = Entry()
        # Where the chain stands (the names that ledger.chain reads).
        self.next_seq = 0
        self.prev_id = NO_ID
        self.lamport = self.time_ms = self.round = self.roster = 0
        self.turns: list[tuple[int, int]] = []  # roster version, and the first seq after it
        # The index: what records of other logs may refer to.
        self.ids = bytearray()
        self.times = array("Q")
        self.kinds = array("H")
        self.rounds = array("I")
        self.samples = array("Q")
        self.codecs = array("B")
        # What this log's own acks say, and its first one that nothing answers yet.
        self.links: dict[tuple[int, int], Link] = {}
        self.suspect: tuple[int, list[Any]] | None = None
        self.refused_at: int | None = None
        # Records read ahead: envelope, record, and whether the signature is right.
        self.ahead: deque[tuple[bytes, bytes, bool]] = deque()

    def __len__(self) -> int:
        """Return how many records other logs may refer to."""
        return len(self.times)

    @property
    def accepted(self) -> int:
        """How many records stand."""
        return len(self) if self.refused_at is None else min(len(self), self.refused_at)

    def own_seqs(self) -> dict[int, int]:
        """Return the last record that stands under each roster version."""
        turns = [*self.turns, (self.roster, self.accepted)]
        return {version: min(end, self.accepted) - 1 for version, end in turns}

    @property
    def damaged(self) -> bool:
        """Whether a file of this log failed, so that what lies past its end cannot be judged."""
        return any(source.finding is not None for source in self.sources)

    def advance(self) -> bool:
        """Read and check the next record into ``entry``; False when the log is over."""
        entry = self.entry
        value = entry.value
        if value:  # the record before has been accepted: the chain stands there now
            self.next_seq += 1
            self.prev_id = entry.id
            _, _, _, _, _, _, roster, _, self.round, self.lamport, self.time_ms, _, _ = value
            if roster != self.roster:
                self.turns.append((self.roster, self.next_seq - 1))
                self.roster, self.version = roster, pack(roster)
            entry.value = []
        if len(self.sources) > 1:
            return self._advance_together()
        if not self.ahead:
            self._read_ahead(self.sources[0])
            if not self.ahead:
                self._end()
                return False
        return self._judge(self.ahead.popleft(), self.sources)

    def _end(self) -> None:
        """The log is over: what is still owed is the signature of its newest record."""
        if self.signatures is Signatures.NEWEST and self.next_seq:
            self.entry.record_bytes, self.entry.signature = split_envelope(self.entry.envelope)
            try:
                step_8_signature(self, self.entry)
            except VerificationError as error:
                self.refuse(Finding(8, error), self.next_seq - 1)

    def _read_ahead(self, source: Source) -> None:
        """Take some records and check their signatures in one go: twice as kind to the caches.

        Only the answer is kept; where it is no, the steps find out why in their order.
        """
        self.ahead.extend(map(self._look, self._read(source, AHEAD_BYTES)))

    def _look(self, envelope: bytes) -> tuple[bytes, bytes, bool]:
        """Return the envelope, the record in it, and whether the signature is right."""
        try:
            record_bytes, signature = split_envelope(envelope)
        except VerificationError:
            return envelope, b"", False
        is_signed = self.signatures is not Signatures.EACH or opens(
            signature + DOMAIN + record_bytes, self.key
        )
        return envelope, record_bytes, is_signed

    def _read(self, source: Source, bytes_min: int = 1) -> list[bytes]:
        """Step 4: take whole frames, of so many bytes together; fewer only at the end."""
        taken: list[bytes] = []
        size = 0
        while source.frames is not None and size < bytes_min:
            try:
                envelope = next(source.frames, None)
            except VerificationError as error:
                self._refuse([source], Finding(4, error), source.count)
                break
            if envelope is None:
                source.frames = None
                if source.count == 0:
                    empty = VerificationError("E_TRUNCATED", "a log without records")
                    self._refuse([source], Finding(4, empty), 0)
                break
            source.count += 1
            size += len(envelope)
            taken.append(envelope)
        return taken

    def _advance_together(self) -> bool:
        spellings: dict[bytes, list[Source]] = {}
        for source in self.sources:
            for envelope in self._read(source):
                spellings.setdefault(envelope, []).append(source)
        if not spellings:
            self._end()
            return False
        if len(spellings) == 1:
            ((envelope, sources),) = spellings.items()
            return self._judge(self._look(envelope), sources)
        # One record may come with two good signatures: its id is the same.
        accepted: dict[bytes, list[tuple[bytes, list[Any], list[Source]]]] = {}
        for envelope, sources in spellings.items():
            # Where bundles differ the steps look closely, and at every signature.
            self.entry.envelope = envelope
            if self._check(sources):
                found = (envelope, self.entry.value, sources)
                accepted.setdefault(self.entry.id, []).append(found)
        if len(accepted) != 1:
            self._fork([found[0] for found in accepted.values()])
            self.entry.value = []
            return False
        (self.entry.id, ((self.entry.envelope, self.entry.value, _), *_)) = accepted.popitem()
        return True

    def _fork(self, branches: list[tuple[bytes, list[Any], list[Source]]]) -> None:
        """Two records for one slot in different bundles: nothing of the log stands from here."""
        proof = tuple(envelope for envelope, _, _ in branches)
        for (_, _, sources), (_, _, others) in zip(
            branches, branches[1:] + branches[:1], strict=True
        ):
            error = VerificationError("E_FORK", f"{others[0].file} has another record here")
            self._refuse(sources, Finding(9, error, proof), self.next_seq)

    def _judge(self, seen: tuple[bytes, bytes, bool], sources: list[Source]) -> bool:
        """Put a record into ``entry`` if it stands.

        The quick look accepts nothing that the steps refuse; what it does not accept, they judge.
        """
        entry = self.entry
        entry.envelope, entry.record_bytes, is_signed = seen
        return (is_signed and self._accepts(entry)) or self._check(sources)

    def _check(self, sources: list[Source]) -> bool:
        """Steps 5 to 10 for one record, one after the other."""
        entry = self.entry
        number = 5
        try:
            for number, step in RECORD_STEPS:  # noqa: B007 - the failure names it
                step(self, entry)
        except VerificationError as error:
            # Decoding and schema are one pass; the code tells which of the two it was.
            if number == 5 and error.code in _SCHEMA_CODES:
                number = 6
            entry.value = []
            proof: tuple[bytes, ...] = ()
            if error.code == "E_FORK" and error.seq is not None:
                proof = (self._frame_at(sources[0], error.seq), entry.envelope)
            self._refuse(sources, Finding(number, error, proof), self.next_seq)
            return False
        return True

    def _accepts(self, entry: Entry) -> bool:
        """Steps 5 to 10 in one look, for a record that is not the first and rightly signed.

        Its first seven fields can only be what comes next here, so they are compared as bytes;
        the other six are decoded as an array of their own.
        """
        record_bytes = entry.record_bytes
        head = b"".join(
            (self.net_to_epoch, pack(self.next_seq), b"\xc4\x20", self.prev_id, self.version)
        )
        if not record_bytes.startswith(head) or len(record_bytes) > ORDINARY_BYTES_MAX:
            return False
        memo = self.memo
        known = memo.body_bytes
        if known and record_bytes.endswith(known):  # so only what stands before it is decoded
            tail = self._tail(b"\x95" + record_bytes[len(head) : -len(known)], _KNOWN_TYPES)
            if tail is None or tail[0] != 3:
                return False
            kind, round_, lamport, time_ms, acks = tail
            body = memo.body
        else:
            tail = self._tail(b"\x96" + record_bytes[len(head) :], _TAIL_TYPES)
            if tail is None:
                return False
            kind, round_, lamport, time_ms, acks, body = tail
            if not accepts_body(kind, body):
                return False
            if kind == 3:  # AGGREGATION
                memo.body_bytes, memo.body = pack(body), body
        if not (
            kind != 1  # OPEN is looked at closely
            and self.next_seq
            and self.round <= round_ < 1 << 32
            and self.lamport < lamport <= self.lamport + LAMPORT_STEP_MAX
            and lamport < 1 << 53
            and self.time_ms <= time_ms < 1 << 53
            and accepts_acks(acks)
        ):
            return False
        entry.value = [
            VERSION, self.members.net, self.author, self.epoch, self.next_seq, self.prev_id,
            self.roster, kind, round_, lamport, time_ms, acks, body,
        ]  # fmt: skip
        entry.id = record_id(record_bytes)
        return True

    @staticmethod
    def _tail(tail_bytes: bytes, types: list[type]) -> list[Any] | None:
        """Return the array of these types whose one spelling this is."""
        try:
            tail: Any = unpack(tail_bytes)
        except VerificationError:
            return None
        is_right = type(tail) is list and list(map(type, tail)) == types
        return tail if is_right and pack(tail) == tail_bytes else None

    def _frame_at(self, source: Source, seq: int) -> bytes:
        return next(islice(read_frames(source.path), seq, None), b"")

    def refuse(self, finding: Finding, seq: int) -> None:
        """Refuse this log from ``seq`` on, in every file that has that record."""
        self._refuse([source for source in self.sources if source.count > seq], finding, seq)

    def _refuse(self, sources: list[Source], finding: Finding, seq: int) -> None:
        error = finding.error.locate(author=self.author, epoch=self.epoch, seq=seq)
        for source in sources:
            source.frames = None
            if source.finding is None or source.finding_at > seq:
                own = VerificationError(
                    error.code, error.message, file=source.file, author=error.author,
                    epoch=error.epoch, seq=error.seq, expected=error.expected,
                )  # fmt: skip
                source.finding = Finding(finding.step, own, finding.proof)
                source.finding_at = seq
        if all(source.frames is None for source in self.sources):
            self.refused_at = seq if self.refused_at is None else min(seq, self.refused_at)

    def commit(self, id_: bytes, value: list[Any]) -> None:
        """Let records of other logs refer to this one."""
        self.ids += id_
        self.times.append(value[10])
        self.kinds.append(value[7])
        self.rounds.append(value[8])
        if value[7] == 2:  # CONTRIBUTION
            body = value[12]
            self.samples.append(body[4])
            self.codecs.append(body[2])
        else:
            self.samples.append(0)
            self.codecs.append(0)


def step_5_6_decode(_: LogAudit, entry: Entry) -> None:
    """Envelope, encoding and schema. E_ENVELOPE, E_ENCODING, E_NONCANONICAL, E_VERSION …."""
    entry.record_bytes, entry.signature = split_envelope(entry.envelope)
    entry.value = decode_record(entry.record_bytes)


def step_7_identity(log: LogAudit, entry: Entry) -> None:
    """Network, roster, and the author that the file's name promises."""
    value = entry.value
    check_identity(value, log.members)
    if value[2] != log.author or value[3] != log.epoch:
        raise VerificationError(
            "E_AUTHOR_MISMATCH",
            f"record of author {value[2]}, epoch {value[3]}",
            expected=f"author {log.author}, epoch {log.epoch} as in the file's name",
        )


def step_8_signature(log: LogAudit, entry: Entry) -> None:
    """The author's key of this epoch signed these bytes. E_SIGNATURE."""
    verify_joined(log.key, entry.signature + DOMAIN + entry.record_bytes)


def step_9_chain(log: LogAudit, entry: Entry) -> None:
    """The record takes the next place of its log. E_GAP, E_FORK, E_PREV, E_OPEN, E_OPEN_KEY."""
    value = entry.value
    entry.id = record_id(entry.record_bytes)
    seq = value[4]
    if seq < len(log) and log.ids[seq * 32 : seq * 32 + 32] != entry.id:
        raise VerificationError("E_FORK", "another record for a slot that is taken", seq=seq)
    check_links(log, value, entry.id)
    if seq == 0:
        check_open(value, log.key, log.members)


def step_10_monotone(log: LogAudit, entry: Entry) -> None:
    """Clocks and rounds only go forward. E_LAMPORT, E_TIME_BACKWARD, E_ROUND_BACKWARD …."""
    check_monotone(log, entry.value)


RECORD_STEPS: Final[tuple[tuple[int, Callable[[LogAudit, Entry], None]], ...]] = (
    (5, step_5_6_decode),
    (7, step_7_identity),
    (8, step_8_signature),
    (9, step_9_chain),
    (10, step_10_monotone),
)
