"""Records: signed, hash-chained, one owner each. Room: ledger. Spec: docs/ledger.md §4.

Untrusted bytes are a SignedRecord; only ``open_record`` (and ``sign_record``, for our own) makes
a Verified[Record]. Hashes and signatures are over the stored bytes, never a re-serialisation.
"""

from __future__ import annotations

import hashlib
from dataclasses import InitVar, dataclass, field
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

from . import keys
from .bodies import (
    BODIES,
    EXTENSION_MIN,
    Aggregation,
    Anchor,
    Body,
    Close,
    CloseReason,
    Codec,
    Contribution,
    EvaluationCommit,
    EvaluationReveal,
    ForkProof,
    GroupValue,
    Input,
    Kind,
    LeftOut,
    MetricId,
    Metrics,
    MetricValue,
    Open,
    Reason,
    Rejection,
    Release,
    Rule,
    Score,
    Sketch,
    SketchRow,
    Withdrawal,
)
from .canonical import ENVELOPE_BYTES_MAX, RECORD_BYTES_MAX, Value, decode, encode, pack, unpack
from .errors import VerificationError
from .schema import BIN32, U16, U32, U53, AnyBin, Field, ListOf, Shape

__all__ = [
    "BODIES",
    "DOMAIN",
    "EXTENSION_MIN",
    "NO_ID",
    "ORDINARY_BYTES_MAX",
    "VERSION",
    "Ack",
    "Aggregation",
    "Anchor",
    "Body",
    "Close",
    "CloseReason",
    "Codec",
    "Contribution",
    "EvaluationCommit",
    "EvaluationReveal",
    "ForkProof",
    "GroupValue",
    "Input",
    "Kind",
    "LeftOut",
    "MetricId",
    "MetricValue",
    "Metrics",
    "Open",
    "Reason",
    "Record",
    "RecordId",
    "Rejection",
    "Release",
    "RosterKeys",
    "Rule",
    "Score",
    "SignedRecord",
    "Sketch",
    "SketchRow",
    "Verified",
    "Withdrawal",
    "accepts_acks",
    "accepts_body",
    "decode_record",
    "open_record",
    "parse_envelope",
    "record_id",
    "sign_record",
    "split_envelope",
]  # fmt: skip

VERSION: Final = 1
DOMAIN: Final = b"swarm-ledger/record/v1\n"
NO_ID: Final = bytes(32)
# Any kind but FORK_PROOF stays below this, so that two envelopes always fit into one proof.
ORDINARY_BYTES_MAX: Final = 32_512
RecordId: TypeAlias = bytes
T = TypeVar("T")

_ACKS: Final = ListOf(Shape(author=U16, epoch=U32, seq=U53, id=BIN32), sorted_by=2)


def _record_shape(body: Field) -> Shape:
    return Shape(
        version=U53, net=BIN32, author=U16, epoch=U32, seq=U53, prev=BIN32, roster=U32, kind=U16,
        round=U32, lamport=U53, time_ms=U53, acks=_ACKS, body=body,
    )  # fmt: skip


_NO_RULE: Final = ListOf(U53)  # only says "an array"; the body's own shape says what it holds
_HEADER: Final = _record_shape(_NO_RULE)
_EXTENSION: Final = _record_shape(AnyBin())
_HEADER_NAMES: Final = tuple(_HEADER.fields)
_HEADER_TYPES: Final = [int, bytes, int, int, int, bytes, int, int, int, int, int, list, list]
_SHAPES: Final = {kind: body.SHAPE for kind, body in BODIES.items()}


@dataclass(frozen=True, slots=True)
class Ack:
    """A head of another log that the author has stored and verified."""

    author: int
    epoch: int
    seq: int
    id: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One record. ``body`` is bytes for the extension kinds (32768 and up)."""

    net: bytes
    author: int
    epoch: int
    seq: int
    prev: RecordId
    roster: int
    kind: int
    round: int
    lamport: int
    time_ms: int
    acks: tuple[Ack, ...]
    body: Body | bytes

    def to_value(self) -> list[Value]:
        """Return the 13 fields in their order."""
        body: Value = self.body if isinstance(self.body, bytes) else self.body.to_value()
        acks: list[Value] = [[ack.author, ack.epoch, ack.seq, ack.id] for ack in self.acks]
        return [
            VERSION, self.net, self.author, self.epoch, self.seq, self.prev, self.roster,
            int(self.kind), self.round, self.lamport, self.time_ms, acks, body,
        ]  # fmt: skip

    @classmethod
    def from_value(cls, value: list[Any]) -> Record:
        """Build from what :func:`decode_record` returned."""
        kind = value[7]
        body = value[12] if kind >= EXTENSION_MIN else BODIES[kind].from_value(value[12])
        return cls(
            net=value[1], author=value[2], epoch=value[3], seq=value[4], prev=value[5],
            roster=value[6], kind=kind, round=value[8], lamport=value[9], time_ms=value[10],
            acks=tuple(Ack(*ack) for ack in value[11]), body=body,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SignedRecord:
    """Bytes of a record and of a signature. Nothing about them has been believed yet."""

    record_bytes: bytes
    signature: bytes

    @property
    def id(self) -> RecordId:
        """SHA-256(0x00 ‖ record): the RFC 6962 leaf hash. The signature is not in it."""
        return record_id(self.record_bytes)

    def envelope(self) -> bytes:
        """Return ``[record: bin, signature: bin64]`` as on disk and on the wire."""
        return pack((self.record_bytes, self.signature))


_PROOF: Final = object()


@dataclass(frozen=True)
class Verified(Generic[T]):
    """A value whose evidence has been checked. Only this module can make one."""

    value: T
    signed: SignedRecord
    id: RecordId = field(repr=False)
    proof: InitVar[object] = None

    def __post_init__(self, proof: object) -> None:
        if proof is not _PROOF:
            raise TypeError("only open_record and sign_record make a Verified value")


class RosterKeys(Protocol):
    """What opening a record needs to know of the roster."""

    @property
    def net(self) -> bytes:
        """The network."""

    @property
    def version(self) -> int:
        """The roster's version."""

    def key(self, author: int, epoch: int) -> bytes:
        """Return the ledger key; raise E_UNKNOWN_AUTHOR."""

    def admit(self, author: int, epoch: int, version: int) -> None:
        """Raise E_ROSTER_UNKNOWN, E_EPOCH unless that was the author's epoch then."""

    def previous_head(self, author: int, epoch: int) -> RecordId:
        """Return what the OPEN of this epoch names as the head before."""


def record_id(record_bytes: bytes) -> RecordId:
    """Return the id of the record with these bytes."""
    return hashlib.sha256(b"\x00" + record_bytes).digest()


def parse_envelope(data: bytes) -> SignedRecord:
    """Split an envelope without believing it. Raises E_SIZE, E_ENVELOPE."""
    return SignedRecord(*split_envelope(data))


def split_envelope(data: bytes) -> tuple[bytes, bytes]:
    """Return record bytes and signature. Raises E_SIZE, E_ENVELOPE."""
    if len(data) > ENVELOPE_BYTES_MAX:
        raise VerificationError(
            "E_SIZE", f"envelope of {len(data)} bytes", expected=f"at most {ENVELOPE_BYTES_MAX}"
        )
    # The lengths follow from the total, so the one canonical spelling can be compared as bytes.
    short = len(data) - 69  # array, bin8 header of 2 bytes, bin8 header of 2, signature of 64
    if short < 256:
        head = b"\x92\xc4" + bytes((max(short, 0),))
    else:
        head = b"\x92\xc5" + (short - 1).to_bytes(2, "big")
    # No record has 256: one of 255 bytes would be in the longer spelling.
    if short < 0 or short == 256 or not data.startswith(head) or data[-66:-64] != b"\xc4\x40":
        raise VerificationError(
            "E_ENVELOPE", "not a canonical envelope", expected="[record: bin, signature: bin64]"
        )
    return data[len(head) : -66], data[-64:]


def decode_record(record_bytes: bytes) -> list[Any]:
    """Decode and check the schema: steps 5 and 6 of the verification list.

    Returns the 13 fields. Raises E_SIZE, E_ENCODING, E_NONCANONICAL, E_VERSION, E_KIND,
    E_SCHEMA, E_ORDER.
    """
    if len(record_bytes) <= ORDINARY_BYTES_MAX:
        # The quick way for what is right; whatever it does not accept, the slow way explains.
        value: Any = unpack(record_bytes)
        if _accepts(value) and pack(value) == record_bytes:
            result: list[Any] = value
            return result
    return _decode_slowly(record_bytes)


def _accepts(value: Any) -> bool:
    if type(value) is not list or list(map(type, value)) != _HEADER_TYPES:
        return False
    version, net, author, epoch, seq, prev, roster, kind, round_, lamport, time_ms, acks, body = (
        value
    )
    return (
        version == VERSION
        and len(net) == len(prev) == 32
        and 0 <= author < 1 << 16
        and 0 <= epoch < 1 << 32
        and 0 <= seq < 1 << 53
        and 0 <= roster < 1 << 32
        and 0 <= round_ < 1 << 32
        and 0 <= lamport < 1 << 53
        and 0 <= time_ms < 1 << 53
        and accepts_acks(acks)
        and accepts_body(kind, body)
    )


def accepts_body(kind: int, body: list[Any]) -> bool:
    """Tell quickly whether ``body`` is one of a critical kind's."""
    shape = _SHAPES.get(kind)
    return shape is not None and shape.accepts(body)


def accepts_acks(acks: list[Any]) -> bool:
    """Tell quickly whether ``acks`` are rows of the right types, strictly sorted."""
    if not acks:
        return True
    last_author = last_epoch = -1
    try:
        for author, epoch, seq, ack_id in acks:
            if not (
                type(author) is type(epoch) is type(seq) is int
                and type(ack_id) is bytes
                and len(ack_id) == 32
                and (author > last_author or (author == last_author and epoch > last_epoch))
                and 0 <= epoch < 1 << 32
                and 0 <= seq < 1 << 53
            ):
                return False
            last_author, last_epoch = author, epoch
    except (TypeError, ValueError):
        return False
    return acks[0][0] >= 0 and last_author < 1 << 16


def _decode_slowly(record_bytes: bytes) -> list[Any]:
    value: Any = decode(record_bytes, bytes_max=RECORD_BYTES_MAX)
    if type(value) is not list or not value or type(value[0]) is not int:
        raise VerificationError("E_SCHEMA", "a record is an array that starts with its version")
    if value[0] != VERSION:
        raise VerificationError("E_VERSION", f"version {value[0]}", expected=str(VERSION))
    if len(value) != len(_HEADER_NAMES):
        raise VerificationError("E_SCHEMA", f"a record has {len(_HEADER_NAMES)} fields")
    kind = value[7]
    if type(kind) is int and kind >= EXTENSION_MIN:
        _EXTENSION.check(value, "record")
    else:
        if type(kind) is int and kind not in BODIES:
            raise VerificationError("E_KIND", f"kind {kind} is unknown")
        _HEADER.check([*value[:12], []], "record")
        BODIES[kind].SHAPE.check(value[12], BODIES[kind].KIND.name)
    if kind != Kind.FORK_PROOF and len(record_bytes) > ORDINARY_BYTES_MAX:
        raise VerificationError(
            "E_SIZE", f"record of {len(record_bytes)} bytes", expected=f"<= {ORDINARY_BYTES_MAX}"
        )
    return value


def open_record(signed: SignedRecord, *, roster: RosterKeys) -> Verified[Record]:
    """Check one record by itself: steps 5 to 8, and what an OPEN says of key and charter.

    The chain is :mod:`ledger.chain`'s. Raises VerificationError with the step's code.
    """
    value = decode_record(signed.record_bytes)
    author, epoch, seq = value[2], value[3], value[4]
    try:
        check_identity(value, roster)
        key = roster.key(author, epoch)
        keys.verify(key, DOMAIN + signed.record_bytes, signed.signature)
        if value[7] == Kind.OPEN:
            check_open(value, key, roster)
    except VerificationError as error:
        raise error.locate(author=author, epoch=epoch, seq=seq) from None
    return Verified(Record.from_value(value), signed, signed.id, _PROOF)


def check_identity(value: list[Any], roster: RosterKeys) -> None:
    """Step 7: network, roster version and epoch fit. E_NETWORK, E_ROSTER_UNKNOWN, E_EPOCH."""
    if value[1] != roster.net:
        raise VerificationError(
            "E_NETWORK", f"record of network {value[1].hex()[:16]}", expected=roster.net.hex()[:16]
        )
    roster.admit(value[2], value[3], value[6])


def check_open(value: list[Any], key: bytes, roster: RosterKeys) -> None:
    """Step 9, for an OPEN: the key that signs it, the charter, the epoch before. E_OPEN_KEY …."""
    public_key, previous_head, _, charter_digest = value[12]
    if public_key != key:
        raise VerificationError("E_OPEN_KEY", "OPEN names another key", expected=key.hex())
    if charter_digest != roster.net:
        raise VerificationError("E_OPEN", "OPEN names another charter", expected=roster.net.hex())
    before = roster.previous_head(value[2], value[3])
    if previous_head != before:
        raise VerificationError(
            "E_OPEN",
            "OPEN names another head of the epoch before",
            expected="zeros" if before == NO_ID else before.hex(),
        )


def sign_record(record: Record, signer: keys.Signer) -> Verified[Record]:
    """Encode and sign our own record. Raises VerificationError if it breaks the schema."""
    record_bytes = encode(record.to_value())
    decode_record(record_bytes)
    signed = SignedRecord(record_bytes, signer.sign(DOMAIN + record_bytes))
    return Verified(record, signed, signed.id, _PROOF)
