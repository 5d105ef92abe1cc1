"""Messages about checkpoints: canonical bytes, nothing believed. Spec: docs/wire.md §3 and §4.5.

A note is a signed checkpoint as it stands in a file (docs/checkpoints.md §3). This module does not
look inside one. Whatever breaks a limit or a shape is a PeerError.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from ledger.canonical import Value, encode
from ledger.errors import PeerError
from swarm.protocol.messages import HEADS_MAX, MESSAGE_VERSION, byte_strings, open_message, sizes_of
from swarm.protocol.sync import fit

Sizes: TypeAlias = dict[tuple[int, int], int]
"""(author, epoch) → records under the newest finished checkpoint that is held."""


class Ask(IntEnum):
    """What a request wants."""

    COSIGN = 0
    SHARE = 1


class CosignStatus(IntEnum):
    """How a request for a cosignature was answered; a refusal is an error reply."""

    COSIGNED = 0
    BEHIND = 1
    """The witness does not hold all those records yet: ask again."""


@dataclass(frozen=True, slots=True)
class CosignRequest:
    """An author's checkpoint of its own log, to be cosigned."""

    note: bytes


@dataclass(frozen=True, slots=True)
class ShareRequest:
    """What the asker holds of finished checkpoints, and those that it brings along."""

    sizes: Sizes
    notes: tuple[bytes, ...]


def encode_cosign_request(note: bytes) -> bytes:
    """Ask a witness."""
    return encode([MESSAGE_VERSION, int(Ask.COSIGN), note])


def encode_share_request(sizes: Sizes, notes: Iterable[bytes] = ()) -> bytes:
    """Say what is held; bring ``notes``, as many as one message carries."""
    held: list[Value] = [[a, e, size] for (a, e), size in sorted(sizes.items())]
    return encode([MESSAGE_VERSION, int(Ask.SHARE), held, list(fit(notes))])


def decode_request(data: bytes) -> CosignRequest | ShareRequest:
    """Read what a peer asks for."""
    match open_message(data):
        case [Ask.COSIGN, bytes(note), *_]:
            return CosignRequest(note)
        case [Ask.SHARE, list(sizes), list(notes), *_] if len(sizes) <= HEADS_MAX:
            return ShareRequest(sizes_of(sizes), byte_strings(notes))
        case _:
            raise PeerError("a request about checkpoints has another shape")


def encode_cosign_reply(status: CosignStatus, line: bytes = b"") -> bytes:
    """Answer an author."""
    return encode([MESSAGE_VERSION, int(status), line])


def decode_cosign_reply(data: bytes) -> bytes | None:
    """Read a witness's answer: its cosignature line, or None if it is behind."""
    match open_message(data):
        case [CosignStatus.COSIGNED, bytes(line), *_] if line:
            return line
        case [CosignStatus.BEHIND, b"", *_]:
            return None
        case _:
            raise PeerError("cosign reply is not [version, status, line]")


def encode_share_reply(notes: Iterable[bytes]) -> bytes:
    """Answer with finished checkpoints, as many as one message carries."""
    return encode([MESSAGE_VERSION, list(fit(notes))])


def decode_share_reply(data: bytes) -> Sequence[bytes]:
    """Read finished checkpoints; none of them is checked yet."""
    match open_message(data):
        case [list(notes), *_]:
            return byte_strings(notes)
        case _:
            raise PeerError("share reply is not [version, notes]")
