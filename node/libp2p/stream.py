"""One stream of a connection: what has come and is not read, what may still come, what is to go.

Its owner reads and writes; the connection feeds it and takes from it. Spec: docs/adr/0012.
"""

from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, final

import trio
from libp2p.abc import IMuxedStream
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError, MuxedStreamReset

from node.libp2p.frames import WINDOW_BYTES, Flag, FrameError, Kind, header
from node.libp2p.outbox import SMALL_BYTES, Outbox
from node.libp2p.session import MESSAGE_BYTES_MAX

if TYPE_CHECKING:
    from node.libp2p.yamux import Yamux

STALL_S: Final = 5.0
"""How long a write waits for a peer that reads nothing; then the stream is given up."""
_VIEWED_BYTES_MIN: Final = (MESSAGE_BYTES_MAX + 1) // 2
"""Shorter pieces are copied: a view keeps its whole message, so memory is twice the bytes at most."""
_WINDOW_BYTES_MAX: Final = 2**32 - 1


@final
class Stream(IMuxedStream):
    """A yamux stream. One task reads, one writes."""

    def __init__(
        self,
        conn: "Yamux",
        outbox: Outbox,
        stream_id: int,
        *,
        flag: Flag,
        extra_bytes: int = 0,
        renews: bool = True,
    ) -> None:
        """Announce with what is written first.

        flag: SYN (ours) or ACK (the peer's). extra_bytes: room for the peer beyond what it has by
        rule. renews: it gets new room for what was read.
        """
        self.muxed_conn = conn
        self.stream_id: Final = stream_id
        self.unread_bytes = 0
        self._conn = conn
        self._outbox = outbox
        self._preamble = header(Kind.WINDOW, flag, stream_id, extra_bytes)
        self._pieces: deque[bytes | bytearray | memoryview] = deque()
        self._allowed_bytes = WINDOW_BYTES + extra_bytes
        self._renews = renews
        self._is_ours = flag is Flag.SYN
        self._owed_bytes = 0
        self._arrived = trio.Event()
        self._gathered: list[bytes | bytearray | memoryview] = []  # for who waits for much at once
        self._missing_bytes = 0  # to that
        self._to_send = memoryview(b"")
        self._lead = b""  # goes before it
        self._preface = b""  # goes before whatever is written first
        self._ends = False  # nothing comes after it
        self._room_bytes = WINDOW_BYTES
        self._waits_for_room = False
        self._sent = trio.Event()
        self._writing = trio.Lock()
        self._body_left = 0  # of the frame that comes in
        self._last_body = False
        self._is_over = False  # reset, or the connection is gone
        self._read_ended = False
        self._write_ended = False

    # ---- for the connection

    def expect(self, length: int, *, is_last: bool) -> None:
        """Check a body's length before it comes. Raises FrameError if it was not allowed."""
        if length > self._allowed_bytes:
            raise FrameError(f"the peer sends {length} bytes and may send {self._allowed_bytes}")
        self._allowed_bytes -= length
        self._body_left = length
        self._last_body = is_last
        if not length:
            self._end_body()

    def take_in(self, piece: memoryview) -> None:
        """Keep a piece of a body until it is read."""
        if len(piece) >= _VIEWED_BYTES_MIN:
            self._pieces.append(piece)
        elif self._pieces and isinstance(self._pieces[-1], bytearray):
            self._pieces[-1] += piece
        else:
            self._pieces.append(bytearray(piece))
        self.unread_bytes += len(piece)
        self._body_left -= len(piece)
        if self._missing_bytes:
            self._gather()
        if not self._body_left:
            self._end_body()
        if not self._missing_bytes:
            self._arrived.set()

    def has_room(self, extra_bytes: int) -> None:
        """Note that the peer takes more."""
        self._room_bytes = min(self._room_bytes + extra_bytes, _WINDOW_BYTES_MAX)
        if self._waits_for_room and extra_bytes:
            self._waits_for_room = False
            self._outbox.put(self)

    def end_reading(self) -> None:
        """Note that the peer will send no more."""
        self._read_ended = True
        self._arrived.set()

    def _end_body(self) -> None:
        if self._last_body:
            self.end_reading()

    def end(self, *, keep: bool) -> None:
        """Nothing comes or goes any more: whoever waits is told. keep: what came can be read."""
        self._is_over = self._read_ended = self._write_ended = True
        if not keep:
            self._pieces.clear()
        self.unread_bytes = 0
        self._to_send = memoryview(b"")
        self._arrived.set()
        self._sent.set()

    @property
    def still_allowed_bytes(self) -> int:
        """What the peer may send here yet, by what it was given."""
        return 0 if self._read_ended else self._allowed_bytes

    def waiting_bytes(self) -> int:
        """How much could go now."""
        return 0 if self._waits_for_room else len(self._to_send)

    def take(self, bytes_max: int) -> list[bytes | memoryview]:
        """Cut off what may leave now: one DATA frame, as messages of which the large ones are no copies."""
        count = min(bytes_max, self._room_bytes - len(self._lead), len(self._to_send))
        messages: list[bytes | memoryview] = []
        if count > 0:
            preamble, self._preamble = self._preamble, b""
            lead, self._lead = self._lead, b""
            leaving, self._to_send = self._to_send[:count], self._to_send[count:]
            flag = Flag.FIN if self._ends and not self._to_send else Flag.NONE
            head = header(Kind.DATA, flag, self.stream_id, len(lead) + count)
            messages.append(preamble + head + lead)
            messages += [
                leaving[at : at + MESSAGE_BYTES_MAX] for at in range(0, count, MESSAGE_BYTES_MAX)
            ]
            self._room_bytes -= len(lead) + count
        if not self._to_send:
            self._write_ended |= self._ends
            self._sent.set()
        elif self._room_bytes <= len(self._lead):
            self._waits_for_room = True
        return messages

    # ---- for its owner

    async def read(self, n: int | None = None) -> bytes:
        """Return 1 to n bytes (None or -1: what there is). Raises MuxedStreamEOF at the end."""
        return bytes(await self.read_piece(None if n == -1 else n))

    async def peek(self) -> bytes | bytearray | memoryview:
        """Return what can be read first, at least a byte, and leave it there."""
        while not self._pieces:
            await self._wait()
        return self._pieces[0]

    async def _wait(self) -> None:
        """Wait until something has come; raise if nothing can."""
        if self._is_over:
            raise MuxedStreamReset("the stream was reset")
        if self._read_ended:
            if self._write_ended:
                self._conn.forget(self)
            raise MuxedStreamEOF("the stream is at its end")
        self._announce()
        self._arrived = trio.Event()
        await self._arrived.wait()

    async def read_piece(self, n: int | None = None) -> bytes | memoryview:
        """Read without copying what came in large pieces."""
        if n == 0:
            return b""
        if not self._pieces:
            await self.peek()
        piece = self._take_piece(n)
        return bytes(piece) if isinstance(piece, bytearray) else piece

    async def read_whole(self, count: int) -> bytes:
        """Return so many bytes, fewer where the stream ends; who waits for them is woken once."""
        self._gathered, self._missing_bytes = [], count
        try:
            self._gather()
            while self._missing_bytes:
                await self._wait()
                self._gather()
        except MuxedStreamEOF:
            pass
        finally:
            gathered = self._gathered
            self._gathered, self._missing_bytes = [], 0
        return b"".join(gathered)

    def _gather(self) -> None:
        while self._missing_bytes and self._pieces:
            piece = self._take_piece(self._missing_bytes)
            self._missing_bytes -= len(piece)
            if len(piece) >= _VIEWED_BYTES_MIN:
                self._gathered.append(piece)
            elif self._gathered and isinstance(self._gathered[-1], bytearray):
                self._gathered[-1] += piece
            else:
                self._gathered.append(bytearray(piece))

    def _take_piece(self, n: int | None) -> bytes | bytearray | memoryview:
        piece = self._pieces.popleft()
        if n is not None and len(piece) > n:
            view = memoryview(piece)
            self._pieces.appendleft(view[n:])
            piece = view[:n]
        if not self._is_over:
            self.unread_bytes -= len(piece)
            self._conn.was_read(len(piece))
            self._credit(len(piece))
        return piece

    def preface(self, data: bytes) -> None:
        """Let a few bytes go before what is written first."""
        self._preface = data

    async def write_last(self, lead: bytes, data: bytes) -> None:
        """Write a few bytes and then many, without joining them first, and send no more after."""
        self._ends = True
        await self._write(data, lead)

    async def write(self, data: bytes) -> None:
        """Return when all has left. Raises MuxedStreamError if it cannot.

        Whoever cancels it must reset the stream: a part may have left.
        """
        await self._write(data, b"")

    async def _write(self, data: bytes, lead: bytes) -> None:
        async with self._writing:
            if self._write_ended:
                raise MuxedStreamError("the stream is closed for writing")
            lead, self._preface = self._preface + lead, b""
            if len(data) <= SMALL_BYTES:
                data, lead = lead + data, b""
            if not data:
                return
            self._to_send, self._lead, self._sent = memoryview(data), lead, trio.Event()
            self._outbox.put(self)
            while not self._sent.is_set():
                left_before = len(self._to_send)
                with trio.move_on_after(STALL_S):
                    await self._sent.wait()
                if self._waits_for_room and len(self._to_send) == left_before:
                    raise MuxedStreamError(f"the peer read nothing for {STALL_S:g} s")
            if self._is_over:
                raise MuxedStreamReset("the stream was reset")

    async def close_write(self) -> None:
        """Say that we send no more; reading goes on."""
        await trio.lowlevel.checkpoint()
        self._finish_writing()

    async def close(self) -> None:
        """Say that we send no more, and read no more."""
        await trio.lowlevel.checkpoint()
        self.leave()

    async def reset(self) -> None:
        """Give the stream up, in both directions."""
        await trio.lowlevel.checkpoint()
        self.abandon()

    def leave(self) -> None:
        """Close, without waiting for anything."""
        if self._to_send:
            self.abandon()
            return
        self._finish_writing()
        self._conn.forget(self)

    def abandon(self) -> None:
        """Reset, without waiting for anything."""
        peer_knows = not (self._is_ours and self._preamble)
        if peer_knows and not (self._read_ended and self._write_ended):
            self._conn.send_header(header(Kind.WINDOW, Flag.RST, self.stream_id, 0))
        self._conn.forget(self)

    def _finish_writing(self) -> None:
        if not self._write_ended:
            self._write_ended = True
            self._announce()
            self._conn.send_header(header(Kind.WINDOW, Flag.FIN, self.stream_id, 0))

    def _announce(self) -> None:
        """Tell the peer of the stream, if nothing else has."""
        if self._preamble:
            preamble, self._preamble = self._preamble, b""
            self._conn.send_header(preamble)

    def _credit(self, count: int) -> None:
        """Give the peer room again for what was read, half a window at a time."""
        if not self._renews or self._read_ended:
            return
        self._owed_bytes += count
        if self._owed_bytes >= WINDOW_BYTES // 2:
            self._allowed_bytes += self._owed_bytes
            self._conn.send_header(header(Kind.WINDOW, Flag.NONE, self.stream_id, self._owed_bytes))
            self._owed_bytes = 0

    # ---- the rest of IMuxedStream

    def set_deadline(self, ttl: int) -> None:
        """Yamux has none: use trio's cancel scopes."""
        raise NotImplementedError

    def get_remote_address(self) -> tuple[str, int] | None:
        """Return the other end's address."""
        return self._conn.get_remote_address()

    async def __aenter__(self) -> Self:
        """Close at the end."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Close."""
        await self.close()
