"""Yamux frames: bytes in, frames and pieces of bodies out. Knows no socket, no stream.

Spec: https://github.com/hashicorp/yamux/blob/master/spec.md. A body is handed on as it comes, so a
frame that promises much makes nobody hold anything.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple, final

_HEADER: Final = struct.Struct(">BBHII")
HEADER_BYTES: Final = _HEADER.size
WINDOW_BYTES: Final = 256 * 1024
"""What either end may send on a stream before it hears of more room."""


class FrameError(Exception):
    """The other end does not speak yamux, or not as it has to: the connection ends."""


class Kind(IntEnum):
    """Types of frames."""

    DATA = 0
    WINDOW = 1
    PING = 2
    GO_AWAY = 3


class Flag(IntEnum):
    """Flags of DATA and WINDOW (PING: SYN asks, ACK answers)."""

    NONE = 0
    SYN = 1
    ACK = 2
    FIN = 4
    RST = 8


@final
class Frame(NamedTuple):
    """A header. length: bytes of the body that follows (DATA), or a number (all others)."""

    kind: Kind
    flags: int
    stream_id: int
    length: int


def header(kind: Kind, flags: int, stream_id: int, length: int) -> bytes:
    """Return the 12 bytes of a header."""
    return _HEADER.pack(0, kind, flags, stream_id, length)


_KINDS: Final = tuple(Kind)


@final
class FrameReader:
    """Cuts what arrives, in any portions, into headers and pieces of bodies."""

    def __init__(self) -> None:
        self._started = bytearray()  # of a header
        self._body_left = 0

    def feed(self, data: bytes) -> Iterator[Frame | memoryview]:
        """Yield each header and, after a DATA header, its body in pieces. Raises FrameError."""
        view = memoryview(data)
        while view:
            if self._body_left:
                piece = view[: self._body_left]
                self._body_left -= len(piece)
                view = view[len(piece) :]
                yield piece
                continue
            if self._started or len(view) < HEADER_BYTES:
                missing = HEADER_BYTES - len(self._started)
                self._started += view[:missing]
                view = view[missing:]
                if len(self._started) < HEADER_BYTES:
                    return
                fields = _HEADER.unpack(self._started)
                self._started.clear()
            else:
                fields = _HEADER.unpack_from(view)
                view = view[HEADER_BYTES:]
            version, kind, flags, stream_id, length = fields
            if version != 0 or kind >= len(_KINDS):
                raise FrameError(f"no yamux frame: version {version}, type {kind}")
            if kind == Kind.DATA:
                self._body_left = length
            yield Frame(_KINDS[kind], flags, stream_id, length)
