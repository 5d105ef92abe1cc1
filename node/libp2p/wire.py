"""A TCP connection as libp2p sees it, with a budget for whoever has not shown who it is.

Room: node.libp2p. One task reads, one writes.
"""

from typing import Final, final

import trio
from libp2p.abc import IRawConnection
from libp2p.connection_types import ConnectionType
from libp2p.io.exceptions import ConnectionClosedError
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from node.libp2p.psk import Filter

STRANGER_BYTES_MAX: Final = 2 * 1024
"""What the other end may send before it has shown who it is; a handshake takes about 270."""
_RECEIVE_BYTES: Final = 256 * 1024


@final
class Wire(IRawConnection):
    """One socket."""

    def __init__(
        self, stream: trio.SocketStream, *, is_initiator: bool, psk: bytes | None = None
    ) -> None:
        self.is_initiator = is_initiator
        self._filter = Filter(psk) if psk is not None else None
        self._stream = stream
        self._budget_bytes: int | None = STRANGER_BYTES_MAX
        self._address: tuple[str, int] | None
        try:
            self._address = stream.socket.getpeername()[:2]
        except OSError:
            self._address = None

    @property
    def psk_problem(self) -> str | None:
        """Why the pre-shared keys do not fit, if they do not."""
        return self._filter.problem if self._filter is not None else None

    def trust(self) -> None:
        """Lift the budget: the other end is a member."""
        self._budget_bytes = None

    async def read(self, n: int | None = None) -> bytes:
        """Return 1 to n bytes, none at the end. Raises ConnectionClosedError."""
        if self._filter is None:
            return await self._receive(n or _RECEIVE_BYTES)
        while True:
            data = await self._receive(self._filter.wanted(n or _RECEIVE_BYTES))
            plain = self._filter.open(data)
            if self._filter.problem is not None:
                raise ConnectionClosedError(self._filter.problem)
            if plain or not data:
                return plain

    async def read_into(self, room: memoryview) -> int:
        """Put what comes into room, without a copy if there is no filter; 0 at the end."""
        if self._filter is not None or self._budget_bytes is not None:
            data = await self.read(len(room))
            room[: len(data)] = data
            return len(data)
        try:
            return await self._stream.socket.recv_into(room)
        except (OSError, trio.ClosedResourceError) as error:
            raise ConnectionClosedError("the connection is lost") from error

    async def _receive(self, bytes_max: int) -> bytes:
        try:
            data = bytes(await self._stream.receive_some(bytes_max))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionClosedError("the connection is lost") from error
        if self._budget_bytes is not None:
            self._budget_bytes -= len(data)
            if self._budget_bytes < 0:
                raise ConnectionClosedError(f"a stranger sent over {STRANGER_BYTES_MAX} bytes")
        return data

    async def write(self, data: bytes | memoryview) -> None:
        """Write all. Raises ConnectionClosedError."""
        try:
            await self._stream.send_all(self._filter.seal(data) if self._filter else data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionClosedError("the connection is lost") from error

    async def close(self) -> None:
        """Close the socket."""
        await self._stream.aclose()

    def get_remote_address(self) -> tuple[str, int] | None:
        """Return the other end's address and port."""
        return self._address

    def get_transport_addresses(self) -> list[Multiaddr]:
        """Return the other end's address, as libp2p writes it."""
        if self._address is None:
            return []
        ip, port = self._address
        return [Multiaddr(f"/ip{6 if ':' in ip else 4}/{ip.partition('%')[0]}/tcp/{port}")]

    def get_connection_type(self) -> ConnectionType:
        """Return that there is no relay between."""
        return ConnectionType.DIRECT
