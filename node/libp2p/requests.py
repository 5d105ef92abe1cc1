"""Requests and replies, each on a stream of its own: asking and answering."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, final

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost

from ledger.errors import PeerError, UnavailableError
from node.framing import (
    REPLY_HEADER_BYTES,
    REQUEST_HEADER_BYTES,
    Status,
    error_text,
    read_reply,
    read_request,
    reply_frame,
    request_frame,
)
from node.libp2p.connections import Connections
from node.libp2p.members import Members
from node.libp2p.muxer import CreditedSource, as_yamux, reset
from node.libp2p.reasons import LOST, is_unknown_there, short
from node.libp2p.traffic import Meter
from node.links import Link
from node.network import (
    REQUEST_BYTES_MAX,
    SERVING_MAX,
    SYNC_PROTOCOL,
    Handlers,
    OtherFederationError,
)
from node.serving import RequestDesk

PING: Final = "/swarm/ping/1"
_ASKING_MAX: Final = SERVING_MAX // 2  # requests to one peer at once; the others queue
_OPEN_S: Final = 10.0  # opening one stream; then the connection is closed
_SERVE_S: Final = 60.0  # reading one request, writing one reply


@dataclass(slots=True)
class _Opening:
    """A stream that is being opened for a requester who may give up meanwhile."""

    done: trio.Event = field(default_factory=trio.Event)
    wanted: bool = True
    stream: INetStream | None = None
    error: Exception | None = None


@final
class Requester:
    """Asks."""

    def __init__(
        self,
        host: BasicHost,
        members: Members,
        links: dict[int, Link],
        connections: Connections,
        *,
        wire_ids: Mapping[str, TProtocol],
        meter: Meter,
        nursery: trio.Nursery,
    ) -> None:
        self._host = host
        self._members = members
        self._links = links
        self._connections = connections
        self._wire_ids = wire_ids
        self._meter = meter
        self._nursery = nursery
        self._asking = {index: trio.Semaphore(_ASKING_MAX) for index in members.peers}

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
        stream = await self._open(peer, protocol)
        closed = False
        try:
            source = await CreditedSource.of(stream, REPLY_HEADER_BYTES + reply_bytes_max)
            frame = request_frame(body)
            await stream.write(frame)
            self._meter.sent(len(frame))
            status, reply = await read_reply(source, bytes_max=reply_bytes_max)
            await stream.close()
            closed = True
        except LOST as error:
            name = self._members.peers[peer].name
            raise UnavailableError(f"{name}: connection lost ({short(error)})") from error
        finally:
            if not closed:
                await reset(stream)
        self._links[peer].heard()
        self._meter.received(REPLY_HEADER_BYTES + len(reply))
        return status, reply

    async def _open(self, peer: int, protocol: str) -> INetStream:
        """Open a stream in a task of its own: giving up half-way would leak one of its slots."""
        opening = _Opening()
        self._nursery.start_soon(self._open_into, opening, peer, protocol)
        try:
            await opening.done.wait()
        except BaseException:
            opening.wanted = False
            if opening.stream is not None:
                await reset(opening.stream)
            raise
        if opening.stream is not None:
            if protocol == SYNC_PROTOCOL:
                self._links[peer].understood()
            return opening.stream
        name = self._members.peers[peer].name
        # Protocol names hold the charter's digest, and every version knows this one.
        if protocol == SYNC_PROTOCOL and opening.error and is_unknown_there(opening.error):
            self._links[peer].refused()
            raise OtherFederationError(f"{name} holds another charter")
        reason = short(opening.error) if opening.error else "no answer"
        raise UnavailableError(f"{name}: no stream ({reason})")

    async def _open_into(self, opening: _Opening, peer: int, protocol: str) -> None:
        try:
            with trio.move_on_after(_OPEN_S) as scope:
                opening.stream = await self._host.new_stream(
                    self._members.ids[peer], [self._wire_ids[protocol]]
                )
        except Exception as error:  # noqa: BLE001 - whatever it is, the stream did not open
            opening.error = error
        finally:
            opening.done.set()
        if scope.cancelled_caught:
            await self._connections.drop(peer)
        elif opening.stream is not None and not opening.wanted:
            await reset(opening.stream)


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

    async def serve(self, protocol: str, stream: INetStream) -> None:
        """Answer one request on a stream that a peer opened."""
        peer = self._members.known_index(as_yamux(stream.muxed_conn).peer_id)
        self._links[peer].heard()
        try:
            with trio.fail_after(_SERVE_S):
                body = await read_request(stream, bytes_max=REQUEST_BYTES_MAX)
            self._meter.received(REQUEST_HEADER_BYTES + len(body))
            status, reply = Status.OK, b""
            if protocol != PING:
                status, reply = await self._desk.answer(self._handlers, peer, protocol, body)
        except PeerError as error:
            status, reply = Status.REFUSED, error_text(error)
        frame = reply_frame(status, reply)
        with trio.fail_after(_SERVE_S):
            await stream.write(frame)
            self._meter.sent(len(frame))
            await stream.close()
