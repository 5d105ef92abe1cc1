"""Naming a stream's protocol without waiting for the answer.

The stock way asks and waits twice before the request leaves: three times the way there and back.
A member that shares our charter's digest speaks our protocols, so header, name and request leave
together, and the two answers are read before the reply. A stock listener sees no difference.
Spec: https://github.com/multiformats/multistream-select
"""

from typing import Final

from ledger.errors import UnavailableError
from node.framing import ByteSource, read_exactly

_HEADER: Final = b"/multistream/1.0.0\n"
_UNKNOWN: Final = b"na\n"
_LINE_BYTES_MAX: Final = 127  # longer ones would have a length of two bytes: none of ours


class UnknownProtocolError(UnavailableError):
    """The other end does not offer the protocol."""


def proposal(protocol: str) -> bytes:
    """Return what the opener of a stream says first, and what the other end answers if it agrees."""
    return _line(_HEADER) + _line(protocol.encode() + b"\n")


def proposed(beginning: bytes | bytearray | memoryview) -> bytes | None:
    """Return the proposal that a stream begins with, if it came in one piece."""
    start = len(_GREETING)
    if len(beginning) <= start or bytes(beginning[:start]) != _GREETING:
        return None
    end = start + 1 + beginning[start]
    return bytes(beginning[:end]) if len(beginning) >= end else None


async def read_agreement(source: ByteSource, protocol: str) -> None:
    """Read the answers. Raises UnknownProtocolError, UnavailableError."""
    *greeting, length = await read_exactly(source, len(_GREETING) + 1)
    if bytes(greeting) != _GREETING:
        raise UnavailableError("the stream does not begin as a multistream")
    if length > _LINE_BYTES_MAX:
        raise UnavailableError("the peer's multistream line is too long")
    answer = await read_exactly(source, length)
    if answer == _UNKNOWN:
        raise UnknownProtocolError(f"{protocol} is not offered")
    if answer != protocol.encode() + b"\n":
        raise UnavailableError("the peer agreed to another protocol")


def _line(text: bytes) -> bytes:
    if len(text) > _LINE_BYTES_MAX:
        raise ValueError(f"a protocol's name has up to {_LINE_BYTES_MAX - 1} bytes")
    return bytes([len(text)]) + text


_GREETING: Final = _line(_HEADER)
