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
    """Return what the opener of a stream says first."""
    return _line(_HEADER) + _line(protocol.encode() + b"\n")


async def read_agreement(source: ByteSource, protocol: str) -> None:
    """Read the answers. Raises UnknownProtocolError, UnavailableError."""
    if await _read_line(source) != _HEADER:
        raise UnavailableError("the stream does not begin as a multistream")
    answer = await _read_line(source)
    if answer == _UNKNOWN:
        raise UnknownProtocolError(f"{protocol} is not offered")
    if answer != protocol.encode() + b"\n":
        raise UnavailableError("the peer agreed to another protocol")


def _line(text: bytes) -> bytes:
    if len(text) > _LINE_BYTES_MAX:
        raise ValueError(f"a protocol's name has up to {_LINE_BYTES_MAX - 1} bytes")
    return bytes([len(text)]) + text


async def _read_line(source: ByteSource) -> bytes:
    length = (await read_exactly(source, 1))[0]
    if length > _LINE_BYTES_MAX:
        raise UnavailableError("the peer's multistream line is too long")
    return await read_exactly(source, length)
