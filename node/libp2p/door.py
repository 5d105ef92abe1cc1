"""Listening and accepting: our own sockets, handshakes bounded in time and number."""

from collections.abc import Sequence
from typing import Final, final

import trio
from libp2p.abc import IMuxedConn
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from ledger.errors import ConfigError
from node.addresses import Address, check_listen
from node.libp2p.muxer import as_yamux
from node.libp2p.reasons import short
from node.network import EventLog

HANDSHAKES_MAX: Final = 128
"""Inbound connections that have not shown who they are."""
_NOWHERE: Final = Multiaddr("/ip4/0.0.0.0/tcp/0")  # for log lines of libp2p only


async def open_listeners(addresses: Sequence[Address]) -> list[trio.SocketListener]:
    """Listen by ourselves: libp2p shares its port, and a second node would go unnoticed.

    Raises ConfigError that says which address cannot be listened on, and what to change.
    """
    opened: list[trio.SocketListener] = []
    for address in addresses:
        try:
            opened += await trio.open_tcp_listeners(address.port, host=address.host)
        except OSError as error:
            problem = check_listen(address.text) or f"cannot listen on {address.text}: {error}"
            for listener in opened:
                listener.socket.close()
            raise ConfigError(problem) from error
    return opened


@final
class Door:
    """Where inbound connections become members, or go."""

    def __init__(self, swarm: Swarm, *, handshake_s: float, log: EventLog) -> None:
        self._swarm = swarm
        self._handshake_s = handshake_s
        self._log = log
        self.handshakes = 0

    async def accept(self, stream: trio.SocketStream) -> None:
        """Find out who calls, within a time and a number of callers at once, and stay with it.

        Returning closes the socket.
        """
        if self.handshakes >= HANDSHAKES_MAX:
            return
        muxed: IMuxedConn | None = None
        self.handshakes += 1
        try:
            with trio.move_on_after(self._handshake_s):
                raw = RawConnection(TrioTCPStream(stream), initiator=False)
                muxed = await self._swarm.upgrade_inbound_raw_conn(raw, _NOWHERE)
        except Exception as error:  # noqa: BLE001 - a stranger's bytes raise all kinds of errors
            self._log.debug("handshake_failed", error=short(error))
        finally:
            self.handshakes -= 1
        if muxed is not None:
            await as_yamux(muxed).event_closed.wait()
