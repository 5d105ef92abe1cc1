"""A request and its reply, sealed for one member while another carries them. Spec: docs/wire.md §9.

Room: node. Law: knows no network and no clock. The pattern is Noise KK (both sides know the other's
network key beforehand) with libsodium's X25519, BLAKE2b and XChaCha20-Poly1305: each key seals one
message. Who carries a box sees who talks to whom, when and how much, and nothing else.
"""

import hashlib
import secrets
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, final

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
    crypto_scalarmult,
    crypto_scalarmult_base,
    crypto_sign_ed25519_pk_to_curve25519,
    crypto_sign_ed25519_sk_to_curve25519,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import CryptoError

from ledger.errors import ConfigError, PeerError

VERSION: Final = 1
SESSION_BYTES: Final = 16
NO_SESSION: Final = bytes(SESSION_BYTES)
SEQUENCE_MAX: Final = 2**64 - 1
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 24
TAG_BYTES: Final = 16
PROTOCOL_BYTES_MAX: Final = 64

_REQUEST_DOMAIN: Final = b"swarm/forward/request/v1\n"
_REPLY_DOMAIN: Final = b"swarm/forward/reply/v1\n"
_OPENING: Final = struct.Struct(">BHH16sQ32s24s")
"""Version, origin, target, session, sequence, ephemeral key, nonce: a request's bytes in clear."""
_REPLY_OPENING: Final = struct.Struct(">B32s24s")
"""Version, ephemeral key, nonce."""
_LIMIT: Final = struct.Struct(">I")

OVERHEAD_BYTES_MAX: Final = _OPENING.size + TAG_BYTES + 1 + PROTOCOL_BYTES_MAX + _LIMIT.size
"""A box is longer than the body in it by this much at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """Who a box says that it comes from and goes to: all that a carrier can know of it."""

    origin: int
    target: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A request inside a box. session, sequence: what the target takes it for new by."""

    session: bytes
    sequence: int
    protocol: str
    reply_bytes_max: int
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Exchange:
    """What ties a reply to its request; the requester's holds the secret of its ephemeral key."""

    origin: int
    target: int
    key: bytes = field(repr=False)
    opening: bytes = field(repr=False)
    ephemeral: bytes = field(repr=False)


def label_of(box: bytes) -> Label:
    """Read what a request's box says in clear. Raises PeerError if it is none."""
    if len(box) < _OPENING.size + TAG_BYTES or box[0] != VERSION:
        raise PeerError(f"a sealed request has version {VERSION} and its opening")
    _, origin, target, *_ = _OPENING.unpack_from(box)
    return Label(origin=origin, target=target)


@final
class Sealer:
    """Seals and opens for one member. Its repr shows no secret."""

    def __init__(
        self, *, own: int, network_seed: bytes, keys: Mapping[int, bytes], net: bytes
    ) -> None:
        """Keys: every other member's Ed25519 network key. Raises ConfigError for one that is none."""
        public, secret = crypto_sign_seed_keypair(network_seed)
        self.own: Final = own
        self._net = net
        self._secret = crypto_sign_ed25519_sk_to_curve25519(secret)
        self._names = {**keys, own: public}
        self._public = {index: _curve25519(key) for index, key in keys.items() if index != own}
        # The same for every message, so the dearest part of it is done once.
        self._static = {
            index: crypto_scalarmult(self._secret, key) for index, key in self._public.items()
        }

    def seal_request(self, target: int, asked: Asked) -> tuple[bytes, Exchange]:
        """Return the box for ``target`` and what its reply will be opened with."""
        ephemeral = secrets.token_bytes(KEY_BYTES)
        nonce = secrets.token_bytes(NONCE_BYTES)
        opening = _OPENING.pack(
            VERSION,
            self.own,
            target,
            asked.session,
            asked.sequence,
            crypto_scalarmult_base(ephemeral),
            nonce,
        )
        key = self._request_key(
            crypto_scalarmult(ephemeral, self._public[target]), self.own, target, opening
        )
        protocol = asked.protocol.encode()
        if len(protocol) > PROTOCOL_BYTES_MAX:
            raise ValueError(f"a protocol's name has up to {PROTOCOL_BYTES_MAX} bytes")
        plain = bytes([len(protocol)]) + protocol + _LIMIT.pack(asked.reply_bytes_max) + asked.body
        box = opening + _encrypt(plain, _REQUEST_DOMAIN + self._net + opening, nonce, key)
        return box, Exchange(self.own, target, key, opening, ephemeral)

    def open_request(self, box: bytes) -> tuple[Asked, Exchange]:
        """Open a box that is for us. Raises PeerError unless the member that it names sealed it so."""
        label = label_of(box)
        if label.target != self.own or label.origin not in self._public:
            raise PeerError("a sealed request from no member, or for another one")
        opening, sealed = box[: _OPENING.size], box[_OPENING.size :]
        _, origin, target, session, sequence, ephemeral, nonce = _OPENING.unpack(opening)
        key = self._request_key(_agree(self._secret, ephemeral), origin, target, opening)
        plain = _decrypt(sealed, _REQUEST_DOMAIN + self._net + opening, nonce, key)
        protocol, reply_bytes_max, body = _split(plain)
        asked = Asked(
            session=session,
            sequence=sequence,
            protocol=protocol,
            reply_bytes_max=reply_bytes_max,
            body=body,
        )
        return asked, Exchange(origin, target, key, opening, ephemeral)

    def seal_reply(self, exchange: Exchange, status: int, body: bytes) -> bytes:
        """Return the box that answers an opened request."""
        secret = secrets.token_bytes(KEY_BYTES)
        nonce = secrets.token_bytes(NONCE_BYTES)
        opening = _REPLY_OPENING.pack(VERSION, crypto_scalarmult_base(secret), nonce)
        key = _reply_key(
            crypto_scalarmult(secret, exchange.ephemeral),
            crypto_scalarmult(secret, self._public[exchange.origin]),
            exchange,
            opening,
        )
        context = _REPLY_DOMAIN + self._net + exchange.opening + opening
        return opening + _encrypt(bytes([status]) + body, context, nonce, key)

    def open_reply(self, exchange: Exchange, box: bytes) -> tuple[int, bytes]:
        """Return (status, body) of our request's answer. Raises PeerError if it is not that."""
        if len(box) < _REPLY_OPENING.size + TAG_BYTES + 1 or box[0] != VERSION:
            raise PeerError(f"a sealed reply has version {VERSION}, its opening and a status")
        opening, sealed = box[: _REPLY_OPENING.size], box[_REPLY_OPENING.size :]
        _, ephemeral, nonce = _REPLY_OPENING.unpack(opening)
        key = _reply_key(
            _agree(exchange.ephemeral, ephemeral),
            _agree(self._secret, ephemeral),
            exchange,
            opening,
        )
        context = _REPLY_DOMAIN + self._net + exchange.opening + opening
        plain = _decrypt(sealed, context, nonce, key)
        return plain[0], plain[1:]

    def _request_key(self, fresh: bytes, origin: int, target: int, opening: bytes) -> bytes:
        static = self._static[target if origin == self.own else origin]
        names = self._names[origin] + self._names[target]
        return _hash(_REQUEST_DOMAIN, fresh + static + names + self._net + opening)


def _reply_key(fresh: bytes, mixed: bytes, exchange: Exchange, opening: bytes) -> bytes:
    return _hash(_REPLY_DOMAIN, fresh + mixed + exchange.key + opening)


def _hash(domain: bytes, material: bytes) -> bytes:
    return hashlib.blake2b(domain + material, digest_size=KEY_BYTES).digest()


def _encrypt(plain: bytes, context: bytes, nonce: bytes, key: bytes) -> bytes:
    return crypto_aead_xchacha20poly1305_ietf_encrypt(plain, context, nonce, key)


def _decrypt(sealed: bytes, context: bytes, nonce: bytes, key: bytes) -> bytes:
    try:
        return crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, context, nonce, key)
    except CryptoError:
        raise PeerError("a sealed message was changed, or is not from whom it says") from None


def _agree(secret: bytes, public: bytes) -> bytes:
    """X25519 with a key that somebody sent. Raises PeerError for one of low order."""
    try:
        return crypto_scalarmult(secret, public)
    except CryptoError:
        raise PeerError("a sealed message with a key of low order") from None


def _curve25519(key: bytes) -> bytes:
    try:
        return crypto_sign_ed25519_pk_to_curve25519(key)
    except CryptoError as error:
        raise ConfigError(f"network key {key.hex()}: not an Ed25519 key") from error


def _split(plain: bytes) -> tuple[str, int, bytes]:
    """Take a request apart; whoever sealed it so is a member that breaks the protocol."""
    length = plain[0] if plain else 0
    start = 1 + length + _LIMIT.size
    if not 0 < length <= PROTOCOL_BYTES_MAX or len(plain) < start:
        raise PeerError("a sealed request without protocol and limit")
    try:
        protocol = plain[1 : 1 + length].decode("ascii")
    except UnicodeDecodeError:
        raise PeerError("a sealed request whose protocol is no name") from None
    (reply_bytes_max,) = _LIMIT.unpack_from(plain, 1 + length)
    return protocol, reply_bytes_max, plain[start:]
