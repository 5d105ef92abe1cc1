"""Keys and signatures: Ed25519 by libsodium through PyNaCl. Room: ledger. Spec: docs/ledger.md §3.

One seed file a hospital; every key comes from it with a purpose of its own, so that what one key
signs can never be taken for what another signs.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Final

from nacl._sodium import ffi, lib  # type: ignore[import-not-found] # ships no types
from nacl.bindings import (
    crypto_core_ed25519_is_valid_point,
    crypto_sign,
    crypto_sign_seed_keypair,
)

from .errors import VerificationError

SEED_BYTES: Final = 32
PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
PURPOSES: Final = ("ledger", "witness", "network", "admin")
_crypto_sign_open: Final[Callable[..., int]] = lib.crypto_sign_open
_NULL: Final = ffi.NULL
_KDF_DOMAIN: Final = b"swarm-ledger/kdf/v1\n"


def generate_seed() -> bytes:
    """Return 32 fresh secret bytes from the operating system."""
    return secrets.token_bytes(SEED_BYTES)


def derive(seed: bytes, purpose: str, epoch: int = 0) -> bytes:
    """Return the 32-byte Ed25519 seed of one purpose and key epoch.

    HMAC-SHA-256 keyed with ``seed`` over domain, purpose, newline and epoch (u32, big-endian).
    Raises ValueError for an unknown purpose, a seed of another length or an epoch past u32.
    """
    if purpose not in PURPOSES:
        raise ValueError(f"unknown purpose {purpose!r}, need one of {', '.join(PURPOSES)}")
    if len(seed) != SEED_BYTES or not 0 <= epoch < 2**32:
        raise ValueError("need a seed of 32 bytes and an epoch of 32 bits")
    message = _KDF_DOMAIN + purpose.encode() + b"\n" + epoch.to_bytes(4, "big")
    return hmac.digest(seed, message, hashlib.sha256)


class Signer:
    """Signs with one derived seed. The secret never shows in ``repr``."""

    __slots__ = ("_secret_key", "public_key")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise ValueError("need a seed of 32 bytes")
        self.public_key, self._secret_key = crypto_sign_seed_keypair(seed)

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of ``message``; the caller puts a domain in front."""
        return crypto_sign(message, self._secret_key)[:SIGNATURE_BYTES]

    def __repr__(self) -> str:
        return f"Signer(public_key={self.public_key.hex()})"


def opens(signed_message: bytes, public_key: bytes) -> bool:
    """Tell whether this is the key's signature and what it signed, in one piece.

    Asks libsodium directly: the binding would copy every message only to throw it away.
    """
    return _crypto_sign_open(_NULL, _NULL, signed_message, len(signed_message), public_key) == 0


def verify(public_key: bytes, message: bytes, signature: bytes) -> None:
    """Return if ``signature`` is that key's over ``message``; raise E_SIGNATURE if not."""
    if len(signature) != SIGNATURE_BYTES or len(public_key) != PUBLIC_KEY_BYTES:
        raise VerificationError("E_SIGNATURE", "a signature has 64 bytes and a key has 32")
    verify_joined(public_key, signature + message)


def verify_joined(public_key: bytes, signed_message: bytes) -> None:
    """Do the same for a signature and its message in one piece, both of the right length."""
    if not opens(signed_message, public_key):
        raise VerificationError(
            "E_SIGNATURE", "signature does not verify", expected=f"key {public_key.hex()}"
        )


def check_public_key(key: bytes) -> None:
    """Raise E_WEAK_KEY for a key of low order, off the main subgroup or in another spelling."""
    if len(key) != PUBLIC_KEY_BYTES or not crypto_core_ed25519_is_valid_point(key):
        raise VerificationError(
            "E_WEAK_KEY",
            f"public key {key.hex()[:80]} is not safe",
            expected="a canonical Ed25519 point of full order",
        )
