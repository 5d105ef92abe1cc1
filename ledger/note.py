"""C2SP signed notes: a text, then signature lines. Room: ledger. Spec: docs/checkpoints.md §3.

Form only: whose the signatures are and whether they verify is :mod:`ledger.checkpoint`'s. Follows
https://c2sp.org/signed-note (v1.0.0), which Go's x/mod/sumdb/note reads too.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from .errors import VerificationError

ED25519: Final = 0x01  # signature types of c2sp.org/signed-note
COSIGNATURE_ED25519: Final = 0x04
KEY_ID_BYTES: Final = 4
NOTE_BYTES_MAX: Final = 65_536  # the log's line and 256 cosignatures fit
_DASH: Final = "\u2014 "
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """One line under a note: who says to have signed, and the bytes. Nothing is believed yet."""

    name: str
    key_id: bytes
    signature: bytes

    def encode(self) -> bytes:
        """Return the line with its newline."""
        blob = base64.b64encode(self.key_id + self.signature).decode("ascii")
        return f"{_DASH}{self.name} {blob}\n".encode()


@dataclass(frozen=True, slots=True)
class Note:
    """A text that ends in a newline, and its signature lines."""

    text: bytes
    lines: tuple[SignatureLine, ...]

    def encode(self) -> bytes:
        """Return the note's bytes."""
        return self.text + b"\n" + b"".join(line.encode() for line in self.lines)


def key_id(name: str, kind: int, public_key: bytes) -> bytes:
    """Return SHA-256(name ‖ 0x0A ‖ type ‖ key)[:4]: which key of that name it is."""
    data = name.encode() + b"\n" + bytes([kind]) + public_key
    return hashlib.sha256(data).digest()[:KEY_ID_BYTES]


def vkey(name: str, kind: int, public_key: bytes) -> str:
    """Return the verifier key as tools take it: ``name+hash+base64(type ‖ key)``."""
    check_name(name)
    blob = base64.b64encode(bytes([kind]) + public_key).decode("ascii")
    return f"{name}+{key_id(name, kind, public_key).hex()}+{blob}"


def check_name(name: str) -> None:
    """Raise E_CHECKPOINT for a key name that no note can carry."""
    if "+" in name or name.split() != [name]:
        raise VerificationError("E_CHECKPOINT", f"key name {ascii(name)[:80]} is not allowed")


def parse_note(data: bytes) -> Note:
    """Split a note. Raises E_CHECKPOINT unless it is spelled as :meth:`Note.encode` does."""
    text, signatures = _split_note(data)
    lines = decode_text(signatures[:-1], "the signatures").split("\n")
    return Note(text, tuple(_line_of(line) for line in lines))


def text_of(data: bytes) -> bytes:
    """Return the text of a note alone, whatever its signature lines say. Raises E_CHECKPOINT."""
    return _split_note(data)[0]


def _split_note(data: bytes) -> tuple[bytes, bytes]:
    if len(data) > NOTE_BYTES_MAX:
        raise VerificationError(
            "E_CHECKPOINT", f"note of {len(data)} bytes", expected=f"at most {NOTE_BYTES_MAX}"
        )
    text, blank, signatures = data.rpartition(b"\n\n")
    if not blank or not signatures.endswith(b"\n"):
        raise VerificationError(
            "E_CHECKPOINT", "nobody has signed it: a note is a text, a blank line and signatures"
        )
    decode_text(text, "the note")
    return text + b"\n", signatures


def parse_line(line: bytes) -> SignatureLine:
    """Split one signature line, given without its newline. Raises E_CHECKPOINT."""
    return _line_of(decode_text(line, "a signature line"))


def _line_of(text: str) -> SignatureLine:
    name, space, blob = text.removeprefix(_DASH).partition(" ")
    if not text.startswith(_DASH) or not space or "\n" in text:
        raise VerificationError("E_CHECKPOINT", "not a signature line: dash, name, base64")
    check_name(name)
    raw = decode_base64(blob, "a signature")
    if len(raw) <= KEY_ID_BYTES:
        raise VerificationError("E_CHECKPOINT", "a signature line without a signature")
    return SignatureLine(name, raw[:KEY_ID_BYTES], raw[KEY_ID_BYTES:])


def decode_text(data: bytes, what: str) -> str:
    """Return UTF-8 text without control characters but newline. Raises E_CHECKPOINT."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise VerificationError("E_CHECKPOINT", f"{what} is not UTF-8") from None
    if _CONTROL.search(text):
        raise VerificationError("E_CHECKPOINT", f"{what} has a control character (CR, tab …)")
    return text


def decode_base64(text: str, what: str) -> bytes:
    """Return the bytes of the one base64 spelling. Raises E_CHECKPOINT."""
    try:
        data = binascii.a2b_base64(text)
        if binascii.b2a_base64(data, newline=False).decode("ascii") == text:
            return data
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise VerificationError("E_CHECKPOINT", f"{what} is not base64") from None
    raise VerificationError("E_CHECKPOINT", f"{what} has another base64 spelling")


def decode_decimal(text: str, what: str, maximum: int) -> int:
    """Return the number of an ASCII decimal without leading zeros. Raises E_CHECKPOINT."""
    if (
        not 0 < len(text) <= len(str(maximum))
        or not set(text) <= set("0123456789")
        or (text[0] == "0" and text != "0")
        or int(text) > maximum
    ):
        raise VerificationError(
            "E_CHECKPOINT", f"{what} {ascii(text)[:80]}", expected=f"0 to {maximum}, in decimal"
        )
    return int(text)
