"""A member that breaks the rules: a true handshake with its key, then whatever bytes a test likes."""

import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.security_multistream import SecurityMultistream
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux as StockYamux

from node.libp2p.gate import GatedNoise
from node.libp2p.multiselect import proposal
from node.libp2p.session import Session
from node.libp2p.wire import Wire

DATA, WINDOW, PING = 0, 1, 2
SYN, ACK, FIN, RST = 1, 2, 4, 8


def frame(kind: int, flags: int, stream_id: int, body: bytes | int = 0) -> bytes:
    """A yamux frame, with a body or a number."""
    length = body if isinstance(body, int) else len(body)
    header = struct.pack(">BBHII", 0, kind, flags, stream_id, length)
    return header if isinstance(body, int) else header + body


def opening(stream_id: int, protocol: str) -> bytes:
    """Open a stream and name its protocol."""
    return frame(WINDOW, SYN, stream_id) + frame(DATA, 0, stream_id, proposal(protocol))


class BadMember:
    """Its connection, after the handshake."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.sent_bytes = 0

    async def say(self, data: bytes) -> None:
        await self.session.write(data)
        self.sent_bytes += len(data)

    async def say_until_cut(self, more: Callable[[], bytes], *, bytes_max: int, s: float) -> bool:
        """Go on until the other end hangs up. Returns whether it did."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.listen)
            with trio.move_on_after(s):
                try:
                    while self.sent_bytes < bytes_max:
                        await self.say(more())
                except Exception:  # noqa: BLE001 - that is what we wait for
                    nursery.cancel_scope.cancel()
                    return True
            nursery.cancel_scope.cancel()
        return False

    async def listen(self) -> None:
        """Read what comes, and forget it."""
        try:
            while True:
                await self.session.receive()
        except Exception:  # noqa: BLE001 - the end
            return

    async def is_cut(self, *, s: float) -> bool:
        with trio.move_on_after(s):
            await self.listen()
            return True
        return False


@asynccontextmanager
async def bad_member(port: int, *, seed: bytes, victim_seed: bytes) -> AsyncIterator[BadMember]:
    keys = create_new_key_pair(seed)
    target = ID.from_pubkey(create_new_key_pair(victim_seed).public_key)
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        noise = GatedNoise(keys, lambda _: True)
        wire = Wire(stream, is_initiator=True)
        session = await SecurityMultistream({NOISE: noise}).secure_outbound(wire, target)
        await MuxerMultistream({TProtocol(YAMUX): StockYamux}).select_transport(session)
        assert isinstance(session, Session)
        yield BadMember(session)
