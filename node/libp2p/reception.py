"""Streams that peers open: who names one of our requests in his first message is answered at once.

The stock way reads the name in six steps and answers it in two writes before the request is looked
at. Whatever begins in another way (gossip, a stock peer that asks step by step) goes that stock way.
Spec: https://github.com/multiformats/multistream-select
"""

from collections.abc import Mapping
from typing import Final, final

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import StreamHandlerFn, TProtocol

from node.libp2p.multiselect import proposal, proposed
from node.libp2p.muxer import as_yamux, own_stream
from node.libp2p.reasons import short
from node.network import EventLog

_BEGINNING_S: Final = 10.0  # to say what a stream is for


@final
class Reception:
    """Handles every inbound stream. What is raised ends the stream: further up it would end the host."""

    def __init__(
        self, ours: Mapping[TProtocol, StreamHandlerFn], stock: StreamHandlerFn, log: EventLog
    ) -> None:
        self._ours = {proposal(protocol): handler for protocol, handler in ours.items()}
        self._stock = stock
        self._log = log

    async def handle(self, stream: INetStream) -> None:
        """Handle a stream; reset it if that fails."""
        try:
            await self._receive(stream)
        except Exception as error:  # noqa: BLE001 - that is the point
            peer_id = as_yamux(stream.muxed_conn).peer_id
            self._log.debug("stream_failed", peer_id=str(peer_id), error=short(error))
            await stream.reset()

    async def _receive(self, net_stream: INetStream) -> None:
        stream = own_stream(net_stream)
        with trio.fail_after(_BEGINNING_S):
            said = proposed(await stream.peek())
        handler = self._ours.get(said) if said is not None else None
        if said is None or handler is None:
            await self._stock(net_stream)
            return
        await stream.read_piece(len(said))
        if stream.unread_bytes:  # the request came with it
            stream.preface(said)
        else:
            await stream.write(said)
        await handler(net_stream)
