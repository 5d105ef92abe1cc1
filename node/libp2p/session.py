"""A noise session that reads and writes many messages at once.

The stock session reads 2 bytes, then a message, then looks for the next: several awaits and
copies for each 64 KiB. Here one receive serves many messages and one send carries many; on the
wire there is no difference. Spec: https://github.com/libp2p/specs/blob/master/noise/README.md
"""

from collections.abc import Sequence
from typing import Final, final

import trio
from libp2p.abc import IRawConnection
from libp2p.connection_types import ConnectionType
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.security.base_session import BaseSession
from libp2p.security.exceptions import HandshakeFailure
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH, BaseNoiseMsgReadWriter
from libp2p.security.secure_session import SecureSession
from multiaddr import Multiaddr  # type: ignore[import-untyped]

MESSAGE_BYTES_MAX: Final = MAX_PLAINTEXT_LENGTH
"""Plaintext of one noise message."""
WRITE_S: Final = 30.0
"""One write to a socket; then the connection is closed."""
_RECEIVE_BYTES: Final = 256 * 1024
_LENGTH_BYTES: Final = 2


@final
class Session(BaseSession):
    """Takes over after the stock handshake."""

    def __init__(self, shaken: SecureSession, raw: IRawConnection) -> None:
        super().__init__(
            local_peer=shaken.local_peer,
            local_private_key=shaken.local_private_key,
            remote_peer=shaken.remote_peer,
            remote_permanent_pubkey=shaken.remote_permanent_pubkey,
            is_initiator=shaken.is_initiator,
        )
        if not isinstance(shaken.conn, BaseNoiseMsgReadWriter):
            raise HandshakeFailure("noise gave an unknown kind of session")
        self._noise = shaken.conn.noise_state
        self._raw = raw
        self._sealed = b""  # the beginning of a message whose end has not come
        self._plain: list[bytes] = []  # opened, not taken; the next last

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
            data = await self._raw.read(_RECEIVE_BYTES)
            if not data:
                raise ConnectionClosedError("the peer closed the connection")
            if found := self._open(self._sealed + data if self._sealed else data):
                return found

    def _open(self, data: bytes) -> list[bytes]:
        """Decrypt the whole messages in data and keep the rest."""
        found: list[bytes] = []
        at = 0
        while len(data) - at >= _LENGTH_BYTES:
            start = at + _LENGTH_BYTES
            end = start + (data[at] << 8 | data[at + 1])
            if end > len(data):
                break
            if message := self._noise.decrypt(data[start:end]):
                found.append(message)
            at = end
        self._sealed = data[at:]
        return found

    async def write(self, data: bytes) -> None:
        """Write all. One writer at a time; whoever cancels it must close the connection."""
        view = memoryview(data)
        await self.write_messages(
            [
                bytes(view[at : at + MESSAGE_BYTES_MAX])
                for at in range(0, len(data), MESSAGE_BYTES_MAX)
            ]
        )

    async def write_messages(self, messages: Sequence[bytes]) -> None:
        """Write messages of at most MESSAGE_BYTES_MAX each, with one send."""
        parts: list[bytes] = []
        for message in messages:
            sealed = self._noise.encrypt(message)
            parts += (len(sealed).to_bytes(_LENGTH_BYTES, "big"), sealed)
        with trio.move_on_after(WRITE_S) as scope:
            await self._raw.write(b"".join(parts))
        if scope.cancelled_caught:
            await self.close()
            raise ConnectionClosedError(f"write stalled for {WRITE_S:g} s")

    async def close(self) -> None:
        """Close the socket."""
        await self._raw.close()

    def get_remote_address(self) -> tuple[str, int] | None:
        """Return the other end's address."""
        return self._raw.get_remote_address()

    def get_transport_addresses(self) -> list[Multiaddr]:
        """Return the other end's address, as libp2p writes it."""
        return self._raw.get_transport_addresses()

    def get_connection_type(self) -> ConnectionType:
        """Return whether it is direct."""
        return self._raw.get_connection_type()
