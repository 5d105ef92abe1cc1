"""One connection by hand: a member's true handshake, then the caller's own bytes. For tests and attacks.

Room: node.libp2p. Nothing that a node does goes through here.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import final

import trio
from libp2p.crypto.ed25519 import create_new_key_pair as ed25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.security.security_multistream import SecurityMultistream
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux as StockYamux

from ledger.errors import UnavailableError
from node.libp2p.gate import offered
from node.libp2p.members import peer_id
from node.libp2p.reasons import LOST, short
from node.libp2p.session import Session
from node.libp2p.wire import Wire


@final
class ConnectionByHand:
    """A session that has agreed on yamux: frames are the caller's to make."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.sent_bytes = 0

    async def say(self, data: bytes) -> None:
        """Send bytes. Raises UnavailableError when the other end has hung up."""
        try:
            await self._session.write(data)
        except LOST as error:
            raise UnavailableError(f"cut: {short(error)}") from error
        self.sent_bytes += len(data)

    async def hear(self) -> list[bytes]:
        """Return what has come, at least something. Raises UnavailableError at the end."""
        try:
            return await self._session.receive()
        except LOST as error:
            raise UnavailableError(f"cut: {short(error)}") from error

    async def listen(self) -> None:
        """Read and forget until the other end hangs up."""
        try:
            while True:
                await self.hear()
        except UnavailableError:
            return

    async def is_cut(self, *, s: float) -> bool:
        """Whether the other end hangs up within so many seconds."""
        with trio.move_on_after(s) as waiting:
            await self.listen()
        return not waiting.cancelled_caught

    async def say_until_cut(self, more: Callable[[], bytes], *, bytes_max: int, s: float) -> bool:
        """Go on until the other end hangs up, and read meanwhile. Returns whether it did."""
        was_cut = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.listen)
            with trio.move_on_after(s):
                try:
                    while self.sent_bytes < bytes_max:
                        await self.say(more())
                except UnavailableError:
                    was_cut = True
            nursery.cancel_scope.cancel()
        return was_cut


@asynccontextmanager
async def connection_by_hand(
    host: str, port: int, *, network_seed: bytes, peer_key: bytes
) -> AsyncIterator[ConnectionByHand]:
    """Connect to the member whose network key is ``peer_key``, with the key of ``network_seed``.

    Raises UnavailableError where the other end does not admit it.
    """
    keys = ed25519_key_pair(network_seed)
    try:
        async with await trio.open_tcp_stream(host, port) as stream:
            wire = Wire(stream, is_initiator=True)
            secure = SecurityMultistream(offered(keys, lambda _: True))
            session = await secure.secure_outbound(wire, peer_id(peer_key))
            await MuxerMultistream({TProtocol(YAMUX): StockYamux}).select_transport(session)
            if not isinstance(session, Session):
                raise TypeError(f"expected our own session, got {type(session).__name__}")
            yield ConnectionByHand(session)
    except LOST as error:
        raise UnavailableError(f"no connection: {short(error)}") from error
