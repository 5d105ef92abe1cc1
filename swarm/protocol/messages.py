"""Messages between nodes: canonical bytes, parsed before anything looks at them. Spec: docs/wire.md §3.

Every message starts with a version. Whatever breaks a limit or a shape is a PeerError. What a newer node
adds at the end of a message is passed over: that is how a protocol grows without a new version.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

from ledger.canonical import Value, decode, encode
from ledger.errors import PeerError

MESSAGE_VERSION: Final = 1
MESSAGE_BYTES_MAX: Final = 1 << 20
RECORDS_BYTES_MAX: Final = 900_000
"""Records packed into one sync reply; the rest follows in the next."""
HEADS_MAX: Final = 2_048

ID_BYTES: Final = 32

Log: TypeAlias = tuple[int, int]
"""(author, epoch)"""

Counts: TypeAlias = dict[Log, int]
"""Log → number of records held."""


@dataclass(frozen=True, slots=True)
class Head:
    """How many records of a log somebody holds, and the id of the last of them."""

    count: int
    id: bytes


Heads: TypeAlias = Mapping[Log, Head]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Where a node stands: what both sides of a sync tell each other. All of it is a claim."""

    heads: Heads
    round: int
    phase: int
    time_ms: int
    roster: int = 0
    """Version of the newest roster that it knows; 0 also from who says nothing of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReply:
    """The answerer's own standing and the records that the asker lacks."""

    hello: Hello
    envelopes: tuple[bytes, ...]


class Part(IntEnum):
    """What a fetch asks for."""

    MANIFEST = 0
    CHUNK = 1
    HELD = 2


PARTS: Final = frozenset(Part)


class FetchStatus(IntEnum):
    """How a fetch was answered."""

    OK = 0
    NOT_HELD = 1
    WITHHELD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchRequest:
    """The manifest of the payload called ``digest``, one chunk, or which chunks are held."""

    digest: bytes
    part: Part
    index: int


def encode_gossip(envelopes: Sequence[bytes]) -> bytes:
    """Pack signed records for everybody."""
    return encode([MESSAGE_VERSION, list(envelopes)])


def decode_gossip(data: bytes) -> tuple[bytes, ...]:
    """Unpack gossip into envelopes, each still untrusted."""
    match open_message(data):
        case [list(envelopes), *_]:
            return byte_strings(envelopes)
        case _:
            raise PeerError("gossip is not [version, envelopes]")


def encode_sync_request(hello: Hello) -> bytes:
    """Say what I hold."""
    return encode([MESSAGE_VERSION, *_hello_value(hello)])


def decode_sync_request(data: bytes) -> Hello:
    """Read what a peer holds."""
    return _hello(open_message(data))


def encode_sync_reply(reply: SyncReply) -> bytes:
    """Answer a sync."""
    return encode([MESSAGE_VERSION, _hello_value(reply.hello), list(reply.envelopes)])


def decode_sync_reply(data: bytes) -> SyncReply:
    """Read the answer of a sync; envelopes are still untrusted."""
    match open_message(data):
        case [list(hello), list(envelopes), *_]:
            return SyncReply(hello=_hello(hello), envelopes=byte_strings(envelopes))
        case _:
            raise PeerError("sync reply is not [version, hello, envelopes]")


def encode_fetch_request(request: FetchRequest) -> bytes:
    """Ask for a part."""
    return encode([MESSAGE_VERSION, request.digest, int(request.part), request.index])


def decode_fetch_request(data: bytes) -> FetchRequest:
    """Read what a peer asks for."""
    match open_message(data):
        case [bytes(digest), int(part), int(index), *_] if len(digest) == 32 and part in PARTS:
            return FetchRequest(digest=digest, part=Part(part), index=index)
        case _:
            raise PeerError("fetch request is not [version, digest, part, index]")


def encode_fetch_reply(status: FetchStatus, body: bytes | bytearray = b"") -> bytes:
    """Answer a fetch: one status byte, then the bytes as they are."""
    return bytes([status]) + body


def decode_fetch_reply(data: bytes) -> tuple[FetchStatus, memoryview]:
    """Read the answer of a fetch; the part lies where it came in."""
    if not data or data[0] > FetchStatus.WITHHELD:
        raise PeerError("fetch reply has no known status")
    return FetchStatus(data[0]), memoryview(data)[1:]


def open_message(data: bytes) -> list[Value]:
    """Return what follows the version. Raises PeerError."""
    value = decode(data, bytes_max=MESSAGE_BYTES_MAX)
    match value:
        case [int(version), *rest] if version == MESSAGE_VERSION:
            return rest
        case _:
            raise PeerError(f"message is not of version {MESSAGE_VERSION}")


def _hello_value(hello: Hello) -> list[Value]:
    heads: list[Value] = [[*log, head.count, head.id] for log, head in sorted(hello.heads.items())]
    return [heads, hello.round, hello.phase, hello.time_ms, hello.roster]


def _hello(value: Sequence[Value]) -> Hello:
    match value:
        case [list(heads), int(round_), int(phase), int(time_ms), *more] if len(heads) <= HEADS_MAX:
            parsed = _heads_of(heads)
            roster = more[0] if more and isinstance(more[0], int) else 0
        case _:
            raise PeerError("hello is not [heads, round, phase, time]")
    return Hello(heads=parsed, round=round_, phase=phase, time_ms=time_ms, roster=roster)


def _heads_of(heads: Sequence[Value]) -> Heads:
    parsed: dict[Log, Head] = {}
    for head in heads:
        match head:
            case [int(author), int(epoch), int(count), bytes(id_)] if (
                count > 0 and len(id_) == ID_BYTES
            ):
                parsed[author, epoch] = Head(count, id_)
            case _:
                raise PeerError("a head is not [author, epoch, count, id]")
    return parsed


def sizes_of(sizes: Sequence[Value]) -> Counts:
    """Read a list of [author, epoch, count]."""
    parsed: Counts = {}
    for size in sizes:
        match size:
            case [int(author), int(epoch), int(count)]:
                parsed[author, epoch] = count
            case _:
                raise PeerError("a size is not [author, epoch, count]")
    return parsed


def byte_strings(values: Sequence[Value]) -> tuple[bytes, ...]:
    """Return the same, all of them byte strings. Raises PeerError."""
    checked = tuple(value for value in values if isinstance(value, bytes))
    if len(checked) != len(values):
        raise PeerError("an envelope is not a byte string")
    return checked
