"""Requests and replies, each on a stream of its own: asking and answering."""

from collections import Counter
from collections.abc import Mapping
from typing import Final, final

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol

from ledger.errors import PeerError, UnavailableError
from node.framing import (
    REPLY_HEADER_BYTES,
    REQUEST_HEADER_BYTES,
    Status,
    error_text,
    read_reply,
    read_request,
    reply_header,
    request_header,
)
from node.libp2p.connections import Connections
from node.libp2p.members import Members
from node.libp2p.multiselect import UnknownProtocolError, proposal, read_agreement
from node.libp2p.muxer import as_yamux, own_stream
from node.libp2p.reasons import LOST, short
from node.libp2p.stream import Stream
from node.libp2p.traffic import Meter
from node.links import Link
from node.network import (
    REQUEST_BYTES_MAX,
    REQUESTS_MAX,
    SERVING_MAX,
    SYNC_PROTOCOL,
    Handlers,
    OtherFederationError,
    UnspokenError,
)
from node.serving import RequestDesk

PING: Final = "/swarm/ping/1"
_READ_S: Final = 60.0  # one request
_REPLY_S: Final = 180.0  # writing one reply; who asked gives up before
_TOO_MANY: Final = b"too many requests at once"


@final
class _Source:
    """A stream as framing reads it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def read(self, n: int) -> bytes:
        return await self._stream.read_whole(n)


@final
class Requester:
    """Asks."""

    def __init__(
        self,
        members: Members,
        links: dict[int, Link],
        connections: Connections,
        *,
        wire_ids: Mapping[str, TProtocol],
        meter: Meter,
    ) -> None:
        self._members = members
        self._links = links
        self._connections = connections
        self._wire_ids = wire_ids
        self._meter = meter
        self._asking = {index: trio.Semaphore(REQUESTS_MAX) for index in members.peers}

    async def ask(
        self, peer: int, protocol: str, body: bytes, *, reply_bytes_max: int
    ) -> tuple[Status, bytes]:
        """Send one request and return its reply. Raises UnavailableError or PeerError."""
        async with self._asking[peer]:
            return await self._exchange(peer, protocol, body, reply_bytes_max)

    async def ping(self, peer: int) -> None:
        """Return when the peer has answered. Waits for no other request."""
        await self._exchange(peer, PING, b"", 0)

    async def _exchange(
        self, peer: int, protocol: str, body: bytes, reply_bytes_max: int
    ) -> tuple[Status, bytes]:
        name = self._members.peers[peer].name
        try:
            stream = self._open(peer, REPLY_HEADER_BYTES + reply_bytes_max)
            try:
                status, reply = await self._talk(stream, protocol, body, reply_bytes_max)
            except BaseException:
                stream.abandon()
                raise
            stream.leave()
        except LOST as error:
            raise UnavailableError(f"{name}: connection lost ({short(error)})") from error
        except UnknownProtocolError as error:
            # Protocol names hold the charter's digest, and every version knows this one.
            if protocol != SYNC_PROTOCOL:
                raise UnspokenError(f"{name}: no stream ({error})") from error
            self._links[peer].refused()
            raise OtherFederationError(f"{name} holds another charter") from error
        if protocol == SYNC_PROTOCOL:
            self._links[peer].understood()
        self._meter.received(REPLY_HEADER_BYTES + len(reply))
        return status, reply

    def _open(self, peer: int, reply_bytes_max: int) -> Stream:
        open_ones = self._connections.open(peer)
        if not open_ones:
            raise UnavailableError(f"{self._members.peers[peer].name}: not connected")
        muxed = as_yamux(open_ones[-1].muxed_conn)
        return muxed.open_now(reply_bytes_max=reply_bytes_max)

    async def _talk(
        self, stream: Stream, protocol: str, body: bytes, reply_bytes_max: int
    ) -> tuple[Status, bytes]:
        wire_id = self._wire_ids[protocol]
        source = _Source(stream)
        await stream.write_last(proposal(wire_id) + request_header(body), body)
        self._meter.sent(REQUEST_HEADER_BYTES + len(body))
        await read_agreement(source, wire_id)
        return await read_reply(source, bytes_max=reply_bytes_max)


@final
class Answerer:
    """Answers."""

    def __init__(
        self,
        handlers: Handlers,
        desk: RequestDesk,
        members: Members,
        links: dict[int, Link],
        meter: Meter,
    ) -> None:
        self._handlers = handlers
        self._desk = desk
        self._members = members
        self._links = links
        self._meter = meter
        self._reading: Counter[int] = Counter()

    async def serve(self, protocol: str, net_stream: INetStream) -> None:
        """Answer one request on a stream that a peer opened."""
        stream = own_stream(net_stream)
        peer = self._members.known_index(as_yamux(stream.muxed_conn).peer_id)
        try:
            status, reply = await self._answer(peer, protocol, stream)
        except PeerError as error:
            status, reply = Status.REFUSED, error_text(error)
        with trio.fail_after(_REPLY_S):
            await stream.write_last(reply_header(status, reply), reply)
        self._meter.sent(REPLY_HEADER_BYTES + len(reply))
        await net_stream.close()

    async def _answer(self, peer: int, protocol: str, stream: Stream) -> tuple[Status, bytes]:
        if protocol == PING:
            await self._read(stream, bytes_max=0)
            return Status.OK, b""
        if self._reading[peer] >= SERVING_MAX:  # what is being read is in memory, too
            return Status.BUSY, _TOO_MANY
        self._reading[peer] += 1
        try:
            body = await self._read(stream, bytes_max=REQUEST_BYTES_MAX)
        finally:
            self._reading[peer] -= 1
        return await self._desk.answer(self._handlers, peer, protocol, body)

    async def _read(self, stream: Stream, *, bytes_max: int) -> bytes:
        with trio.fail_after(_READ_S):
            body = await read_request(_Source(stream), bytes_max=bytes_max)
        self._meter.received(REQUEST_HEADER_BYTES + len(body))
        return body
