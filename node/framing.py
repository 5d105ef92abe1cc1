"""How one request and one reply look on a stream. Knows no libp2p, no handler.

Request: version (1 byte) · length (4, big endian) · body.
Reply:   version (1 byte) · status (1) · length (4, big endian) · body, or the error's text.
A length is checked against the reader's limit before anything is allocated.
"""

import struct
from enum import IntEnum
from typing import Final, Protocol

from ledger.errors import PeerError, UnavailableError
from node.network import ERROR_BYTES_MAX, BusyError

VERSION: Final = 1
PIECE_BYTES_MAX: Final = 2 * 1024 * 1024
"""Most bytes asked of a stream at once: more than any body."""

_SMALL_BYTES: Final = 4096  # pieces that would cost more in a list than in a buffer

_REQUEST: Final = struct.Struct(">BI")
_REPLY: Final = struct.Struct(">BBI")
REQUEST_HEADER_BYTES: Final = _REQUEST.size
REPLY_HEADER_BYTES: Final = _REPLY.size


class Status(IntEnum):
    """Whose fault it is that a reply is an error (0: nobody's, it is an answer)."""

    OK = 0
    REFUSED = 1  # the requester's: PeerError there
    BUSY = 2  # nobody's: UnavailableError there
    FAILED = 3  # the answering node's own bug: PeerError there


class ByteSource(Protocol):
    """A stream that returns between 1 and n bytes, or none at its end."""

    async def read(self, n: int) -> bytes | memoryview: ...  # noqa: D102


def request_header(body: bytes) -> bytes:
    """Return what goes before a request's body."""
    return _REQUEST.pack(VERSION, len(body))


def reply_header(status: Status, body: bytes) -> bytes:
    """Return what goes before a reply's body."""
    return _REPLY.pack(VERSION, status, len(body))


def request_frame(body: bytes) -> bytes:
    """Return the bytes of a request."""
    return request_header(body) + body


def reply_frame(status: Status, body: bytes) -> bytes:
    """Return the bytes of a reply."""
    return reply_header(status, body) + body


def error_text(error: BaseException) -> bytes:
    """Return the first line of an error, cut to what an error reply may carry."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0].encode()[:ERROR_BYTES_MAX]


async def read_exactly(source: ByteSource, count: int) -> bytes:
    """Read count bytes. Raises UnavailableError if the stream ends before."""
    pieces: list[bytes | bytearray | memoryview] = []
    missing = count
    while missing:
        piece = await source.read(min(missing, PIECE_BYTES_MAX))
        if not piece:
            raise UnavailableError(f"the stream ended after {count - missing} of {count} bytes")
        missing -= len(piece)
        if len(piece) >= _SMALL_BYTES:
            pieces.append(piece)
        elif pieces and isinstance(pieces[-1], bytearray):
            pieces[-1] += piece
        else:
            pieces.append(bytearray(piece))
    return b"".join(pieces)


async def read_request(source: ByteSource, *, bytes_max: int) -> bytes:
    """Read a request's body. Raises PeerError if it breaks the format or the limit."""
    version, length = _REQUEST.unpack(await read_exactly(source, _REQUEST.size))
    _check(version, length, bytes_max)
    return await read_exactly(source, length)


async def read_reply(source: ByteSource, *, bytes_max: int) -> tuple[Status, bytes]:
    """Read a reply. Raises PeerError if it breaks the format or the limit."""
    version, code, length = _REPLY.unpack(await read_exactly(source, _REPLY.size))
    try:
        status = Status(code)
    except ValueError:
        raise PeerError(f"reply with the unknown status {code}") from None
    _check(version, length, bytes_max if status is Status.OK else ERROR_BYTES_MAX)
    return status, await read_exactly(source, length)


def raise_for_status(status: Status, body: bytes, *, name: str) -> None:
    """Turn an error reply of the peer called name into the requester's exception."""
    if status is Status.OK:
        return
    text = "".join(c for c in body.decode(errors="replace") if c.isprintable())
    if status is Status.BUSY:
        raise BusyError(f"{name}: {text}")
    raise PeerError(f"{name}: {text}")


def _check(version: int, length: int, bytes_max: int) -> None:
    if version != VERSION:
        raise PeerError(f"frame of version {version}, expected {VERSION}")
    if length > bytes_max:
        raise PeerError(f"frame of {length} bytes, at most {bytes_max} are allowed")
