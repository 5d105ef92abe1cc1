"""Yamux, bounded: what a peer may make us hold, and room for a whole reply at once."""

from contextlib import suppress
from typing import Final, final

import trio
from libp2p.abc import IMuxedConn, INetStream
from libp2p.network.stream.net_stream import NetStream
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH
from libp2p.stream_muxer.yamux import yamux as stock
from libp2p.stream_muxer.yamux.yamux import DEFAULT_WINDOW_SIZE, Yamux, YamuxStream

UNREAD_BYTES_MAX: Final = 32 * 1024 * 1024
"""Per connection; a peer that ignores its windows is cut off."""
_NEGOTIATION_BYTES: Final = 1024  # of a stream's window that its opening may have used
_RESET_S: Final = 2.0

# A frame then is one noise message instead of one and a few bytes.
vars(stock)["MAX_MESSAGE_SIZE"] = MAX_PLAINTEXT_LENGTH


def as_yamux(muxed: IMuxedConn) -> Yamux:
    """Return the connection as what it must be."""
    if not isinstance(muxed, Yamux):
        raise TypeError(f"expected yamux, got {type(muxed).__name__}")
    return muxed


def bound_unread(muxed: Yamux) -> None:
    """End a connection whose peer sends past its windows into our memory."""
    read = muxed._read_data_body  # noqa: SLF001 - libp2p has no hook; pinned to 0.8.1

    async def bounded(length: int) -> bytes:
        waiting = sum(map(len, muxed.stream_buffers.values()))
        if waiting + length > UNREAD_BYTES_MAX:
            raise trio.TooSlowError  # what libp2p answers by closing the connection
        return await read(length)

    muxed._read_data_body = bounded  # type: ignore[method-assign]  # noqa: SLF001


async def reset(stream: INetStream) -> None:
    """Give a stream up, whatever state it is in."""
    with trio.move_on_after(_RESET_S) as scope:
        scope.shield = True
        with suppress(Exception):
            await stream.reset()


@final
class CreditedSource:
    """Reads a reply for which the peer was given room in advance.

    Stock flow control starts each stream at 256 KiB, sends an update per read, and makes a
    writer without room look again every 10 ms. Credit for the longest allowed reply, sent once,
    avoids all three.
    """

    def __init__(self, stream: YamuxStream) -> None:
        self._stream = stream

    @classmethod
    async def of(cls, stream: INetStream, bytes_max: int) -> "CreditedSource":
        """Give credit for bytes_max."""
        muxed = stream.muxed_stream if isinstance(stream, NetStream) else None
        if not isinstance(muxed, YamuxStream):
            raise TypeError(f"expected a yamux stream, got {type(muxed).__name__}")
        if (missing := bytes_max - DEFAULT_WINDOW_SIZE + _NEGOTIATION_BYTES) > 0:
            muxed.recv_window += missing
            await muxed.send_window_update(missing)
        return cls(muxed)

    async def read(self, n: int) -> bytes:
        """Read between 1 and n bytes, or none at the end."""
        return await self._stream.conn.read_stream(self._stream.stream_id, n)
