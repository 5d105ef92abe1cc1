"""Messages about the roster: canonical bytes, nothing believed. Spec: docs/wire.md §4.4.

Whoever asks names the roster that it has; the answer is the updates after it, oldest first.
"""

from collections.abc import Sequence

from ledger.canonical import Value, encode
from ledger.errors import PeerError
from swarm.protocol.messages import MESSAGE_VERSION, byte_strings, open_message
from swarm.protocol.sync import fit

DIGEST_BYTES = 32


def encode_roster_request(digest: bytes) -> bytes:
    """Ask for what comes after the roster called ``digest``."""
    return encode([MESSAGE_VERSION, digest])


def decode_roster_request(data: bytes) -> bytes:
    """Read which roster a peer has."""
    match open_message(data):
        case [bytes(digest), *_] if len(digest) == DIGEST_BYTES:
            return digest
        case _:
            raise PeerError("roster request is not [version, digest]")


def encode_roster_reply(updates: Sequence[bytes]) -> bytes:
    """Answer with as many updates as one message carries; the rest follows when asked again."""
    carried: list[Value] = list(fit(updates))
    return encode([MESSAGE_VERSION, carried])


def decode_roster_reply(data: bytes) -> tuple[bytes, ...]:
    """Read the answer; the updates are still untrusted."""
    match open_message(data):
        case [list(updates), *_]:
            return byte_strings(updates)
        case _:
            raise PeerError("roster reply is not [version, updates]")
