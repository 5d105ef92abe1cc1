"""A key that every member holds and no stranger: who lacks it reads noise and is not answered.

An extra filter around the handshake, not a secret that anything rests on: whoever leaves keeps it.
Spec: https://github.com/libp2p/specs/blob/master/pnet/Private-Networks-PSK-V1.md (XSalsa20).
"""

import secrets
import struct
from typing import Final, final

from Crypto.Cipher import Salsa20

GREETING: Final = b"\x13/multistream/1.0.0\n"
"""What either end of a connection says first."""
NONCE_BYTES: Final = 24
WRONG_KEY: Final = "wrong pre-shared key: the sites' psk_file differ"
NO_KEY: Final = "no pre-shared key: the other end has no psk_file, or is a stranger"
_ROUNDS: Final = 20
_SIGMA: Final = struct.unpack("<4I", b"expand 32-byte k")
_QUARTERS: Final = (
    (0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11),
    (0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14),
)  # fmt: skip


@final
class Filter:
    """Both directions of one connection."""

    def __init__(self, psk: bytes) -> None:
        self._psk = psk
        self._nonce = b""
        self._greeting = b""
        self._opener: Salsa20.Salsa20Cipher | None = None
        self._sealer: Salsa20.Salsa20Cipher | None = None
        self.problem: str | None = None
        """Why what comes is not worth reading, once that is known."""

    def seal(self, data: bytes | memoryview) -> bytes:
        """Return what goes on the wire."""
        if self._sealer is None:
            nonce = secrets.token_bytes(NONCE_BYTES)
            self._sealer = xsalsa20(self._psk, nonce)
            return nonce + self._sealer.encrypt(data)
        return self._sealer.encrypt(data)

    def wanted(self, n: int) -> int:
        """Return how many bytes to read for n."""
        return n if self._opener else NONCE_BYTES - len(self._nonce)

    def open(self, data: bytes) -> bytes:
        """Return what came, none while its beginning is read. Sets ``problem``."""
        if self._opener is None:
            self._nonce += data
            if self._nonce.startswith(GREETING):
                self.problem = NO_KEY
            elif len(self._nonce) >= NONCE_BYTES:
                self._opener = xsalsa20(self._psk, self._nonce)
            return b""
        plain = self._opener.decrypt(data)
        if len(self._greeting) < len(GREETING):
            self._greeting += plain[: len(GREETING) - len(self._greeting)]
            if not GREETING.startswith(self._greeting):
                self.problem = WRONG_KEY
        return plain


def xsalsa20(key: bytes, nonce: bytes) -> Salsa20.Salsa20Cipher:
    """Return the stream cipher for a nonce of 24 bytes.

    Bernstein 2011, Extending the Salsa20 nonce, https://cr.yp.to/snuffle/xsalsa-20110204.pdf
    """
    return Salsa20.new(key=hsalsa20(key, nonce[:16]), nonce=nonce[16:])


def hsalsa20(key: bytes, nonce: bytes) -> bytes:
    """Return a key of 32 bytes, from one of 32 and a nonce of 16 (the paper, section 2)."""
    k, n = struct.unpack("<8I", key), struct.unpack("<4I", nonce)
    state = [
        _SIGMA[0], *k[:4], _SIGMA[1], *n, _SIGMA[2], *k[4:], _SIGMA[3],
    ]  # fmt: skip
    for _ in range(_ROUNDS // 2):
        for a, b, c, d in _QUARTERS:
            state[b] ^= _rotated(state[a] + state[d], 7)
            state[c] ^= _rotated(state[b] + state[a], 9)
            state[d] ^= _rotated(state[c] + state[b], 13)
            state[a] ^= _rotated(state[d] + state[c], 18)
    return struct.pack("<8I", *(state[place] for place in (0, 5, 10, 15, 6, 7, 8, 9)))


def _rotated(word: int, by: int) -> int:
    word &= 0xFFFFFFFF
    return (word << by | word >> 32 - by) & 0xFFFFFFFF
