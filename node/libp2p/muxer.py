"""Which muxer a connection gets: ours, for whoever asks for yamux. Nothing else is offered."""

from collections.abc import Callable
from typing import final

from libp2p.abc import IMuxedConn, INetStream, ISecureConn
from libp2p.custom_types import TProtocol
from libp2p.network.stream.net_stream import NetStream
from libp2p.peer.id import ID
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX

from node.libp2p.pacing import Pace
from node.libp2p.stream import Stream
from node.libp2p.yamux import Yamux


def as_yamux(muxed: IMuxedConn) -> Yamux:
    """Return the connection as what it must be."""
    if not isinstance(muxed, Yamux):
        raise TypeError(f"expected our own yamux, got {type(muxed).__name__}")
    return muxed


def own_stream(stream: INetStream) -> Stream:
    """Return the stream as what it must be."""
    muxed = stream.muxed_stream if isinstance(stream, NetStream) else None
    if not isinstance(muxed, Stream):
        raise TypeError(f"expected a stream of our own, got {type(muxed).__name__}")
    return muxed


@final
class OwnMuxer(MuxerMultistream):
    """The stock negotiation; the stock class takes its own yamux for this id, whatever we ask."""

    def __init__(self, pace_of: Callable[[ID], Pace]) -> None:
        super().__init__({TProtocol(YAMUX): Yamux})
        self._pace_of = pace_of

    async def new_conn(self, conn: ISecureConn, peer_id: ID) -> Yamux:
        """Agree on yamux. Raises what the stock negotiation raises."""
        await self.select_transport(conn)
        return Yamux(conn, peer_id, self._pace_of(peer_id))
