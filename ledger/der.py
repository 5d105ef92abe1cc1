"""The little of DER that an RFC 3161 request and reply need. Room: ledger.

Spec: docs/checkpoints.md §9. Strict: one-byte tags, definite lengths in their shortest form, no
bytes left over. Everything that is not that is E_TIMESTAMP. It reads; it believes nothing.
"""

from __future__ import annotations

from typing import Final, final

from .errors import VerificationError

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
OCTET_STRING: Final = 0x04
NULL: Final = 0x05
OID: Final = 0x06
GENERALIZED_TIME: Final = 0x18
SEQUENCE: Final = 0x30
SET: Final = 0x31
EXPLICIT_0: Final = 0xA0


def write(tag: int, *parts: bytes) -> bytes:
    """Return one element."""
    content = b"".join(parts)
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + length.to_bytes(size, "big") + content


def write_integer(value: int) -> bytes:
    """Return a non-negative INTEGER."""
    return write(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


@final
class Reader:
    """Takes elements off the front of some bytes."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def peek(self) -> int:
        """Return the next tag, -1 at the end."""
        return self._data[self._position] if self._position < len(self._data) else -1

    def take(self, tag: int, what: str) -> bytes:
        """Return the content of the next element, which must have this tag. E_TIMESTAMP."""
        if self.peek() != tag:
            raise refused(f"{what}: tag 0x{max(self.peek(), 0):02x}", f"tag 0x{tag:02x}")
        return self._content(what)

    def skip(self) -> None:
        """Pass over the next element. E_TIMESTAMP if it is not whole."""
        self._content("an element")

    def inside(self, tag: int, what: str) -> Reader:
        """Return a reader of the next element's content. E_TIMESTAMP."""
        return Reader(self.take(tag, what))

    def integer(self, what: str) -> int:
        """Return the next INTEGER. E_TIMESTAMP."""
        content = self.take(INTEGER, what)
        longer = len(content) > 1 and (
            (content[0] == 0x00 and content[1] < 0x80)
            or (content[0] == 0xFF and content[1] >= 0x80)
        )
        if not content or longer:
            raise refused(f"{what}: not the shortest form of an integer")
        return int.from_bytes(content, "big", signed=True)

    def end(self, what: str) -> None:
        """Raise E_TIMESTAMP unless everything has been read."""
        if self._position != len(self._data):
            raise refused(f"{what}: bytes left over")

    def _content(self, what: str) -> bytes:
        data, at = self._data, self._position
        if at + 2 > len(data) or data[at] & 0x1F == 0x1F:
            raise refused(f"{what}: cut off, or a long tag")
        length, at = data[at + 1], at + 2
        if length >= 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[at : at + size], "big")
            # 0x80 alone is BER's indefinite form; a shorter form must not have been possible.
            if not 1 <= size <= 4 or length < 0x80 or length >> 8 * (size - 1) == 0:
                raise refused(f"{what}: not a DER length")
            at += size
        if at + length > len(data):
            raise refused(f"{what}: cut off")
        self._position = at + length
        return data[at : self._position]


def refused(message: str, expected: str | None = None) -> VerificationError:
    """Return the error that everything here raises."""
    return VerificationError("E_TIMESTAMP", message, expected=expected)
