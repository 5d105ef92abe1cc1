"""libp2p's host, built from its parts: our gate, our protocols, nothing that we did not choose."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, final

from libp2p.custom_types import StreamHandlerFn, TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.transport.upgrader import TransportUpgrader

from node.libp2p.gate import offered
from node.libp2p.members import Members
from node.libp2p.muxer import OwnMuxer
from node.libp2p.pacing import Pace
from node.libp2p.reception import Reception
from node.network import EventLog

_CONNECTIONS_MAX: Final = 8  # per peer, for the moment until all but one are closed


def build_host(
    members: Members,
    handlers: Mapping[TProtocol, StreamHandlerFn],
    *,
    admits: Callable[[ID], bool],
    pace_of: Callable[[ID], Pace],
    log: EventLog,
) -> tuple[Swarm, BasicHost]:
    """Return a host that offers these protocols to those whom admits() knows, and its swarm."""
    store = PeerStore()
    store.add_key_pair(members.own_id, members.keys)
    upgrader = TransportUpgrader(offered(members.keys, admits), {})
    upgrader.muxer_multistream = OwnMuxer(pace_of)
    swarm = Swarm(
        members.own_id,
        store,
        upgrader,
        connection_config=ConnectionConfig(max_connections_per_peer=_CONNECTIONS_MAX),
    )
    swarm.auto_connector = _NoAutoConnector(swarm)
    # Only our own protocols: no identify, no libp2p ping.
    host = BasicHost(swarm, default_protocols=OrderedDict(handlers))
    swarm.set_stream_handler(Reception(handlers, swarm.common_stream_handler, log).handle)
    return swarm, host


@final
class _NoAutoConnector(AutoConnector):
    """We dial; libp2p would dial whatever addresses peers told it."""

    async def maybe_connect(self) -> None:
        """Do nothing."""
