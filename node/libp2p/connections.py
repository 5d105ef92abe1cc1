"""Which connections stand: one to each peer, the same at both ends."""

from collections.abc import Sequence
from typing import Final, final
from weakref import WeakKeyDictionary, WeakSet

import trio
from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from libp2p.network.swarm import Swarm
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from node.libp2p.members import Members
from node.libp2p.muxer import as_yamux
from node.libp2p.reasons import LOST
from node.links import Link
from node.network import EventLog

CLOSE_S: Final = 2.0
RETIRE_S: Final = 1.0
"""How long a superfluous connection stays for what is on its way."""
_RETIRED_MAX: Final = 2  # of one peer: each may hold what a connection may
_SIMULTANEOUS_S: Final = 3.0  # two connections so close in age crossed each other


@final
class Connections(INotifee):
    """Follows what libp2p says of connections, and closes the superfluous."""

    def __init__(
        self,
        swarm: Swarm,
        members: Members,
        links: dict[int, Link],
        *,
        nursery: trio.Nursery,
        log: EventLog,
    ) -> None:
        self._swarm = swarm
        self._members = members
        self._links = links
        self._nursery = nursery
        self._log = log
        self._born_s: WeakKeyDictionary[INetConn, float] = WeakKeyDictionary()
        self._retiring: WeakSet[INetConn] = WeakSet()
        self._leaving = False
        swarm.notifees.clear()
        swarm.register_notifee(self)

    def open(self, peer: int) -> list[INetConn]:
        """Return a peer's connections that can be used now."""
        return [
            connection
            for connection in self._swarm.get_connections(self._members.ids[peer])
            if connection in self._born_s  # else still being set up
            and connection not in self._retiring
            and not connection.is_closed
            and not as_yamux(connection.muxed_conn).is_closed
        ]

    async def drop(self, peer: int) -> None:
        """Close whatever connects us with a peer."""
        await self._close(self._swarm.get_connections(self._members.ids[peer]))

    def leave(self) -> None:
        """From now on nobody is told who comes and goes."""
        self._leaving = True

    async def close_all(self) -> None:
        """Close every connection."""
        await self._close(self._swarm.get_connections())

    def _retire(self, peer: int, superfluous: list[INetConn]) -> None:
        """Close them soon, and at once the oldest of too many."""
        self._retiring.update(superfluous)
        present = self._swarm.get_connections(self._members.ids[peer])
        retired = [connection for connection in present if connection in self._retiring]
        retired.sort(key=self._born_s.__getitem__)
        self._nursery.start_soon(self._close_after, 0.0, retired[:-_RETIRED_MAX])
        self._nursery.start_soon(self._close_after, RETIRE_S, superfluous)

    async def _close_after(self, wait_s: float, connections: Sequence[INetConn]) -> None:
        """Let what is on its way arrive; nothing new is sent."""
        await trio.sleep(wait_s)
        await self._close(connections)

    async def _close(self, connections: Sequence[INetConn]) -> None:
        async with trio.open_nursery() as nursery:
            for connection in connections:
                nursery.start_soon(self._close_one, connection)

    async def _close_one(self, connection: INetConn) -> None:
        with trio.move_on_after(CLOSE_S) as scope:
            scope.shield = True
            try:
                await connection.close()
            except LOST as error:
                self._log.debug("close_failed", error=repr(error))

    def _superfluous(self, peer: int, connections: list[INetConn]) -> list[INetConn]:
        """Return all but one of a peer's connections, the same one at both ends.

        Dialled at the same time: the lower index's stays. Else the newest: the peer would not
        have dialled if its end of the older one still lived.
        """
        newest = max(connections, key=self._born_s.__getitem__)
        young_s = self._born_s[newest] - _SIMULTANEOUS_S
        young = [c for c in connections if self._born_s[c] >= young_s]
        dials = self._members.own_index < peer
        preferred = [c for c in young if as_yamux(c.muxed_conn).is_initiator == dials]
        kept = max(preferred or young, key=self._born_s.__getitem__)
        return [connection for connection in connections if connection is not kept]

    # ---- INotifee

    async def connected(self, network: INetwork, conn: INetConn) -> None:  # noqa: ARG002
        """Note a connection, and close what it replaces."""
        muxed = as_yamux(conn.muxed_conn)
        self._born_s[conn] = trio.current_time()
        peer = self._members.known_index(muxed.peer_id)
        connections = self.open(peer)
        if len(connections) > 1 and not self._leaving:
            self._retire(peer, self._superfluous(peer, connections))
        muxed.on_received = self._links[peer].heard
        muxed.on_sent_large = self._links[peer].moved
        self._links[peer].heard()
        self._links[peer].changed()

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:  # noqa: ARG002
        """Note that a connection is gone."""
        if not self._leaving:
            peer_id = as_yamux(conn.muxed_conn).peer_id
            self._links[self._members.known_index(peer_id)].changed()

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None: ...  # noqa: D102
    async def closed_stream(self, network: INetwork, stream: INetStream) -> None: ...  # noqa: D102
    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None: ...  # noqa: D102
    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None: ...  # noqa: D102
