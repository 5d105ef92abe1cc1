"""Listening and accepting: our own sockets, handshakes bounded in time and number."""

from collections.abc import Sequence
from typing import Final, final

import trio
from libp2p.abc import IMuxedConn
from libp2p.network.swarm import Swarm
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from ledger.errors import ConfigError
from node.addresses import Address, check_listen
from node.libp2p.callers import Callers
from node.libp2p.muxer import as_yamux
from node.libp2p.reasons import short
from node.libp2p.wire import Wire
from node.limits import TokenBucket
from node.network import EventLog

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

    def __init__(
        self, swarm: Swarm, *, handshake_s: float, psk: bytes | None, log: EventLog
    ) -> None:
        self._swarm = swarm
        self._psk = psk
        self._handshake_s = handshake_s
        self._log = log
        self._told = TokenBucket(rate_per_s=0.1, burst=3)
        self.callers = Callers()

    async def accept(self, stream: trio.SocketStream) -> None:
        """Find out who calls, within a time and a number of callers at once, and stay with it.

        Returning closes the socket.
        """
        wire = Wire(stream, is_initiator=False, psk=self._psk)
        if (remote := wire.get_remote_address()) is None:
            return
        ip, now_s = remote[0], trio.current_time()
        if not self.callers.may_call(ip, now_s=now_s):
            self._tell("calls_refused", address=ip, reason="too many in a short time")
            return
        muxed: IMuxedConn | None = None
        with trio.move_on_after(self._handshake_s) as scope:
            self.callers.begin(scope, ip)
            try:
                muxed = await self._swarm.upgrade_inbound_raw_conn(wire, _NOWHERE)
            except Exception as error:  # noqa: BLE001 - a stranger's bytes raise all kinds of errors
                self._log.debug("handshake_failed", address=ip, error=short(error))
                if wire.psk_problem is not None:
                    self._tell("psk_refused", address=ip, reason=wire.psk_problem)
            finally:
                self.callers.end(scope)
        if muxed is not None:
            await as_yamux(muxed).event_closed.wait()

    def _tell(self, event: str, **fields: object) -> None:
        """Warn, but not as often as a stranger likes."""
        if self._told.take(now_s=trio.current_time()):
            self._log.warning(event, **fields)
