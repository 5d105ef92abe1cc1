"""Many streams over one connection: yamux, with hard bounds on what a peer makes us hold.

Wire compatible with libp2p's own yamux and offered under its id, so that any peer understands it
and none can ask for a laxer one. Spec: https://github.com/hashicorp/yamux/blob/master/spec.md and
docs/adr/0012.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, final

import trio
from libp2p.abc import IMuxedConn, ISecureConn
from libp2p.connection_types import ConnectionType
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamError
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from node.libp2p.frames import WINDOW_BYTES, Flag, Frame, FrameError, FrameReader, Kind, header
from node.libp2p.outbox import BATCH_BYTES, Outbox, Sender
from node.libp2p.pacing import UNPACED, Pace
from node.libp2p.quiet import LIBP2P_LOG
from node.libp2p.reasons import LOST, short
from node.libp2p.session import Session
from node.libp2p.stream import Stream
from node.network import REQUEST_BYTES_MAX

STREAMS_MAX: Final = 64
"""Streams that a peer has open with us, whatever for; further ones are reset at once."""
UNREAD_BYTES_MAX: Final = 32 * 1024 * 1024
"""What a peer has sent and nobody has read, over all streams; more ends the connection."""
GRANTED_BYTES_MAX: Final = 24 * 1024 * 1024
"""Room for long requests, over all streams that the peer opened; the rest get yamux' 256 KiB."""
_NEGOTIATION_BYTES: Final = 4096  # of a stream's room that its opening may take
LONG_BYTES: Final = REQUEST_BYTES_MAX + _NEGOTIATION_BYTES - WINDOW_BYTES
"""Extra room with which the longest request or reply needs no further word."""
WRITE_S: Final = 30.0
"""One write to a socket (up to 256 KiB) that lasts so long ends the connection, within as long again."""
_GOODBYE_S: Final = 0.5
_PROTOCOL_ERROR: Final = 1
_EVENTS_MAX: Final = 256  # messages, frames and bodies, until it is another task's turn


async def _nobody() -> None:
    """Nobody wants to know that the connection closed."""


@final
class Yamux(IMuxedConn):
    """One connection. libp2p starts it as a task of its own, which must never raise."""

    def __init__(self, conn: ISecureConn, peer_id: ID, pace: Pace = UNPACED) -> None:
        if not isinstance(conn, Session):
            raise TypeError(f"expected our own session, got {type(conn).__name__}")
        self.secured_conn = conn
        self.peer_id = peer_id
        self.event_started = trio.Event()
        self.event_closed = trio.Event()
        self.on_close: Callable[[], Awaitable[None]] = _nobody  # libp2p puts its own in
        self.on_received: Callable[[], None] = lambda: None
        self.on_sent_large: Callable[[], None] = lambda: None
        self._pace = pace
        self._outbox = Outbox()
        self._streams: dict[int, Stream] = {}
        self._theirs: set[int] = set()
        self._granted: set[int] = set()
        self._unread_bytes = 0
        self._late_bytes = 0  # that may still come on streams which are closed here
        self._next_id = 1 if conn.is_initiator else 2
        self._send_new, self._new = trio.open_memory_channel[Stream](STREAMS_MAX)
        self._writes = 0
        self._is_writing = False
        self._scope = trio.CancelScope()

    # ---- life

    async def start(self) -> None:
        """Receive and send until either end closes."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send_forever)
                    nursery.start_soon(self._watch_writes)
                    self.event_started.set()
                    await self._receive_forever()
        except* FrameError as group:
            LIBP2P_LOG.warning("closed %s: %s", self.peer_id, group.exceptions[0])
            await self._say_goodbye()
        except* Exception as group:  # noqa: BLE001 - it would end the whole host
            LIBP2P_LOG.debug("connection to %s ended: %s", self.peer_id, short(group.exceptions[0]))
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the socket and tell whoever waits. The second call does nothing."""
        if self.event_closed.is_set():
            return
        self.event_closed.set()
        self._scope.cancel()
        self._send_new.close()
        for stream in list(self._streams.values()):
            stream.end(keep=True)
        self._streams.clear()
        with trio.CancelScope(shield=True), suppress(*LOST):
            await self.secured_conn.close()
        await self.on_close()

    async def _say_goodbye(self) -> None:
        with trio.move_on_after(_GOODBYE_S), suppress(*LOST):
            farewell = header(Kind.GO_AWAY, Flag.NONE, 0, _PROTOCOL_ERROR)
            await self.secured_conn.write_messages([farewell])

    @property
    def is_initiator(self) -> bool:
        """Whether we dialled."""
        return self.secured_conn.is_initiator

    @property
    def is_established(self) -> bool:
        """Whether streams can be opened."""
        return self.event_started.is_set() and not self.is_closed

    @property
    def is_closed(self) -> bool:
        """Whether it is of no use any more."""
        return self.event_closed.is_set()

    # ---- streams

    async def open_stream(self) -> Stream:
        """Open a stream. Raises MuxedStreamError if the connection is closed."""
        await trio.lowlevel.checkpoint()
        return self.open_now()

    def open_now(self, *, reply_bytes_max: int | None = None) -> Stream:
        """Open a stream without waiting; the peer hears of it with what is written first.

        reply_bytes_max: what the peer may send on it altogether, at once. None: as it is read.
        """
        if self.is_closed:
            raise MuxedStreamError("the connection is closed")
        extra_bytes = (reply_bytes_max or 0) + _NEGOTIATION_BYTES - WINDOW_BYTES
        stream = Stream(
            self,
            self._outbox,
            self._next_id,
            flag=Flag.SYN,
            extra_bytes=max(0, extra_bytes),
            renews=reply_bytes_max is None,
        )
        self._next_id += 2
        self._streams[stream.stream_id] = stream
        return stream

    async def accept_stream(self) -> Stream:
        """Wait for a stream that the peer opens. Raises MuxedConnUnavailable at the end."""
        try:
            return await self._new.receive()
        except trio.EndOfChannel:
            raise MuxedConnUnavailable("the connection is closed") from None

    def forget(self, stream: Stream, *, keep: bool = False) -> None:
        """Drop a stream; what still comes for it is thrown away. keep: what has come is not."""
        self._unread_bytes -= stream.unread_bytes
        self._late_bytes += stream.still_allowed_bytes
        stream.end(keep=keep)
        if self._streams.get(stream.stream_id) is not stream:
            return  # forgotten before: the peer may have opened another one under its number
        del self._streams[stream.stream_id]
        self._theirs.discard(stream.stream_id)
        self._granted.discard(stream.stream_id)

    def was_read(self, count: int) -> None:
        """Note that the owner of a stream took bytes."""
        self._unread_bytes -= count

    def send_header(self, frame: bytes) -> None:
        """Send a frame without body, soon."""
        if self.is_closed:
            return
        try:
            self._outbox.put_header(frame)
        except FrameError:
            self._scope.cancel()

    def is_ours(self, stream_id: int) -> bool:
        """Whether we opened it."""
        return stream_id % 2 == self._next_id % 2

    # ---- receiving

    async def _receive_forever(self) -> None:
        reader = FrameReader()
        target: Stream | None = None
        left = _EVENTS_MAX
        while True:
            messages = await self.secured_conn.receive()
            self.on_received()
            for message in messages:
                left -= 1
                for event in reader.feed(message):
                    if isinstance(event, memoryview):
                        if target is not None and self._streams.get(target.stream_id) is target:
                            self._count_unread(len(event))
                            target.take_in(event)
                    else:
                        target = self._take_frame(event)
                    left -= 1
                    if left <= 0:  # a message of tiny frames takes 20 ms
                        await trio.lowlevel.checkpoint()
                        left = _EVENTS_MAX

    def _count_unread(self, count: int) -> None:
        self._unread_bytes += count
        if self._unread_bytes > UNREAD_BYTES_MAX:
            raise FrameError(f"more than {UNREAD_BYTES_MAX} bytes wait to be read")

    def _take_frame(self, frame: Frame) -> Stream | None:
        """Act on a header; return the stream that its body is for. Raises FrameError."""
        if frame.kind is Kind.PING:
            if frame.flags & Flag.SYN:
                self._outbox.put_header(header(Kind.PING, Flag.ACK, 0, frame.length))
            return None
        if frame.kind is Kind.GO_AWAY:
            self._scope.cancel()
            return None
        if frame.flags & Flag.SYN:
            self._accept(frame.stream_id)
        stream = self._streams.get(frame.stream_id)
        if stream is None:
            if frame.kind is Kind.DATA:
                self._pass_over(frame.length)
            return None
        if frame.flags & Flag.RST:
            self.forget(stream, keep=True)
            return None
        is_last = bool(frame.flags & Flag.FIN)
        if frame.kind is Kind.DATA:
            stream.expect(frame.length, is_last=is_last)
            return stream
        stream.has_room(frame.length)
        if is_last:
            stream.end_reading()
        return None

    def _pass_over(self, count: int) -> None:
        """Throw away what comes on a stream that is closed here: the peer did not know yet."""
        self._late_bytes -= count
        if self._late_bytes < 0:
            raise FrameError("the peer goes on sending on streams that are closed")

    def _accept(self, stream_id: int) -> None:
        if stream_id == 0 or self.is_ours(stream_id) or stream_id in self._streams:
            raise FrameError(f"the peer cannot open a stream {stream_id}")
        if len(self._theirs) >= STREAMS_MAX:
            self._refuse(stream_id)
            return
        extra_bytes = (
            LONG_BYTES if (len(self._granted) + 1) * LONG_BYTES <= GRANTED_BYTES_MAX else 0
        )
        stream = Stream(self, self._outbox, stream_id, flag=Flag.ACK, extra_bytes=extra_bytes)
        try:
            self._send_new.send_nowait(stream)
        except trio.WouldBlock:
            self._refuse(stream_id)
            return
        self._streams[stream_id] = stream
        self._theirs.add(stream_id)
        if extra_bytes:
            self._granted.add(stream_id)

    def _refuse(self, stream_id: int) -> None:
        LIBP2P_LOG.debug("too many streams of %s", self.peer_id)
        self._late_bytes += WINDOW_BYTES
        self._outbox.put_header(header(Kind.WINDOW, Flag.RST, stream_id, 0))

    # ---- sending

    async def _send_forever(self) -> None:
        """Write what waits. The only task that writes to the session, and never cut short."""
        while True:
            await self._outbox.wait()
            messages = self._outbox.take_small()
            if (sender := self._outbox.next_large()) is not None:
                messages = await self._take_large(sender, messages)
                if sender.waiting_bytes():
                    self._outbox.put_back(sender)
            if messages:
                await self._write(messages)
            if sender is not None:
                self.on_sent_large()

    async def _take_large(
        self, sender: Sender, messages: list[bytes | memoryview]
    ) -> list[bytes | memoryview]:
        """Add a batch to messages when it may leave. What does not leave after all is not paid for."""
        size = unsent = min(self._pace.batch_bytes(BATCH_BYTES), sender.waiting_bytes())
        ready_s = self._pace.reserve(size, now_s=trio.current_time())
        try:
            if ready_s > trio.current_time():
                messages = await self._send_small_until(ready_s, messages)
            # Taken last: what a stream sends next must not pass what it sent before.
            taken = sender.take(size)
            unsent = max(0, size - sum(map(len, taken)))
        finally:
            self._pace.give_back(unsent)
        return messages + taken

    async def _write(self, messages: list[bytes | memoryview]) -> None:
        self._writes += 1
        self._is_writing = True
        await self.secured_conn.write_messages(messages)
        self._is_writing = False

    async def _watch_writes(self) -> None:
        """End the connection when one write takes too long; a deadline for each would cost more."""
        seen = 0
        while True:
            await trio.sleep(WRITE_S)
            if self._is_writing and self._writes == seen:
                LIBP2P_LOG.warning("closed %s: it takes nothing", self.peer_id)
                self._scope.cancel()
            seen = self._writes if self._is_writing else 0

    async def _send_small_until(
        self, ready_s: float, messages: list[bytes | memoryview]
    ) -> list[bytes | memoryview]:
        """Hold a batch back, but not what is small. Returns what came last."""
        while trio.current_time() < ready_s:
            if messages:
                await self._write(messages)
            with trio.move_on_at(ready_s):
                await self._outbox.wait(large=False)
            messages = self._outbox.take_small()
        return messages

    # ---- the rest of IMuxedConn

    def get_remote_address(self) -> tuple[str, int] | None:
        """Return the other end's address."""
        return self.secured_conn.get_remote_address()

    def get_transport_addresses(self) -> list[Multiaddr]:
        """Return the other end's address, as libp2p writes it."""
        return self.secured_conn.get_transport_addresses()

    def get_connection_type(self) -> ConnectionType:
        """Return whether it is direct."""
        return self.secured_conn.get_connection_type()
