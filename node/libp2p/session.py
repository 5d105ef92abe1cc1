"""A noise session that reads and writes many messages at once.

The stock session reads 2 bytes, then a message, then looks for the next: several awaits and
copies for each 64 KiB. Here one receive serves many messages and one send carries many, sealed
where they are sent from and opened where they arrived; on the wire there is no difference.
Spec: https://github.com/libp2p/specs/blob/master/noise/README.md, Noise revision 34 §5.1.
"""

from collections.abc import Callable, Sequence
from typing import Final, final

import trio.lowlevel
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from libp2p.connection_types import ConnectionType
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.security.base_session import BaseSession
from libp2p.security.exceptions import HandshakeFailure
from libp2p.security.noise.io import BaseNoiseMsgReadWriter
from libp2p.security.secure_session import SecureSession
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from node.libp2p.wire import Wire

_LENGTH_BYTES: Final = 2
_TAG_BYTES: Final = 16
_SEALED_BYTES_MAX: Final = 2**16 - 1
MESSAGE_BYTES_MAX: Final = _SEALED_BYTES_MAX - _TAG_BYTES
"""Plaintext of one noise message: 65,519 bytes."""
KEY_USES_MAX: Final = 1 << 27
"""Messages under one key, 8 TiB: AES-GCM's bound is 2⁻⁵¹ then; whoever dials again has new keys."""
_SMALL_BUFFER_BYTES: Final = _LENGTH_BYTES + _SEALED_BYTES_MAX + 4096  # holds any one message
_LARGE_BUFFER_BYTES: Final = _SMALL_BUFFER_BYTES + 256 * 1024
_OPENED_MAX: Final = 256  # messages, until it is another task's turn; a buffer may hold 18,000


@final
class _Direction:
    """The key of one direction and how often it was used."""

    def __init__(
        self, aead: ChaCha20Poly1305 | AESGCM, nonce_of: Callable[[int], bytes], used: int
    ) -> None:
        self._aead = aead
        self._nonce_of = nonce_of
        self._used = used

    def seal_into(self, message: bytes | memoryview, room: memoryview) -> None:
        """Write the sealed message, which is _TAG_BYTES longer, into room."""
        self._aead.encrypt_into(self._nonce(), message, None, room)

    def open(self, sealed: memoryview) -> bytes:
        """Return the message. Raises ConnectionClosedError if it is not the next one, unchanged."""
        try:
            return self._aead.decrypt(self._nonce(), sealed, None)
        except InvalidTag:
            raise ConnectionClosedError("a message was damaged on its way") from None

    def _nonce(self) -> bytes:
        if self._used >= KEY_USES_MAX:
            raise ConnectionClosedError("the connection's key was used for long enough")
        nonce = self._nonce_of(self._used)
        self._used += 1
        return nonce


@final
class Session(BaseSession):
    """Takes over after the stock handshake."""

    def __init__(self, shaken: SecureSession, wire: Wire) -> None:
        super().__init__(
            local_peer=shaken.local_peer,
            local_private_key=shaken.local_private_key,
            remote_peer=shaken.remote_peer,
            remote_permanent_pubkey=shaken.remote_permanent_pubkey,
            is_initiator=shaken.is_initiator,
        )
        self._out, self._in = _directions(shaken)
        self._wire = wire
        self._plain: list[bytes] = []  # opened, not taken; the next last
        self._sealed = bytearray(_SMALL_BUFFER_BYTES)
        self._sealed_end = 0  # of the beginning of a message whose end has not come
        self._outgoing = bytearray()

    async def read(self, n: int | None = None) -> bytes:
        """Return 1 to n bytes. Raises ConnectionClosedError at the end."""
        if n == 0:
            return b""
        if not self._plain:
            self._plain = (await self._receive())[::-1]
        message = self._plain.pop()
        if n is not None and len(message) > n:
            self._plain.append(message[n:])
            return message[:n]
        return message

    async def receive(self) -> list[bytes]:
        """Return all that has arrived, at least one message. Raises ConnectionClosedError."""
        if self._plain:
            found, self._plain = self._plain[::-1], []
            return found
        return await self._receive()

    async def _receive(self) -> list[bytes]:
        while True:
            room = memoryview(self._sealed)[self._sealed_end :]
            count = await self._wire.read_into(room)
            if not count:
                raise ConnectionClosedError("the peer closed the connection")
            is_full = count == len(room)
            self._sealed_end += count
            found = await self._open_all()
            if is_full and len(self._sealed) < _LARGE_BUFFER_BYTES:
                self._sealed = self._sealed + bytes(_LARGE_BUFFER_BYTES - len(self._sealed))
            if found:
                return found

    async def _open_all(self) -> list[bytes]:
        """Decrypt the whole messages in the buffer and keep the rest."""
        found: list[bytes] = []
        view = memoryview(self._sealed)[: self._sealed_end]
        at = opened = 0
        while len(view) - at >= _LENGTH_BYTES:
            start = at + _LENGTH_BYTES
            end = start + (view[at] << 8 | view[at + 1])
            if end > len(view):
                break
            if message := self._in.open(view[start:end]):
                found.append(message)
            at = end
            opened += 1
            if opened % _OPENED_MAX == 0:  # shielded: what was opened cannot be opened again
                await trio.lowlevel.cancel_shielded_checkpoint()
        self._sealed_end -= at
        if at and self._sealed_end:
            view[: self._sealed_end] = bytes(view[at:])
        return found

    async def write(self, data: bytes) -> None:
        """Write all. One writer at a time; whoever cancels it must close the connection."""
        await self.write_messages(
            [data[at : at + MESSAGE_BYTES_MAX] for at in range(0, len(data), MESSAGE_BYTES_MAX)]
        )

    async def write_messages(self, messages: Sequence[bytes | memoryview]) -> None:
        """Write messages of at most MESSAGE_BYTES_MAX each, with one send.

        It lasts until the peer has taken them: whoever calls it looks after the time.
        """
        size = sum(map(len, messages)) + len(messages) * (_LENGTH_BYTES + _TAG_BYTES)
        if size > len(self._outgoing):
            self._outgoing = bytearray(size)
        view = memoryview(self._outgoing)
        at = 0
        for message in messages:
            start = at + _LENGTH_BYTES
            end = start + len(message) + _TAG_BYTES
            view[at:start] = (end - start).to_bytes(_LENGTH_BYTES, "big")
            self._out.seal_into(message, view[start:end])
            at = end
        await self._wire.write(view[:at])

    async def close(self) -> None:
        """Close the socket."""
        await self._wire.close()

    def get_remote_address(self) -> tuple[str, int] | None:
        """Return the other end's address."""
        return self._wire.get_remote_address()

    def get_transport_addresses(self) -> list[Multiaddr]:
        """Return the other end's address, as libp2p writes it."""
        return self._wire.get_transport_addresses()

    def get_connection_type(self) -> ConnectionType:
        """Return whether it is direct."""
        return self._wire.get_connection_type()


def _directions(shaken: SecureSession) -> tuple[_Direction, _Direction]:
    """Return how to seal and how to open, from where the handshake left them."""
    if not isinstance(shaken.conn, BaseNoiseMsgReadWriter):
        raise HandshakeFailure("noise gave an unknown kind of session")
    protocol = shaken.conn.noise_state.noise_protocol
    out, into = (
        _Direction(state.cipher.klass(state.k), state.cipher.format_nonce, state.n)
        for state in (protocol.cipher_state_encrypt, protocol.cipher_state_decrypt)
    )
    return out, into
