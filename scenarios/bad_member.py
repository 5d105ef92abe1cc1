"""Attacks by a member: its key is on the roster, what it says on the connection is against the rules.

Room: scenarios. Each attack goes on until the node cuts it off; `attack_as_member` then connects again,
as long as the time lasts. They are meant for nodes that the caller has started. Attacks by those who
have no key: strangers.py.
"""

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final

import trio
import trio.lowlevel

from ledger.errors import UnavailableError
from node.framing import request_frame, request_header
from node.libp2p.by_hand import ConnectionByHand, connection_by_hand
from node.libp2p.frames import WINDOW_BYTES, Flag, Kind, header
from node.libp2p.multiselect import proposal
from node.libp2p.yamux import STREAMS_MAX
from node.network import FETCH_PROTOCOL, REQUEST_BYTES_MAX
from scenarios.strangers import Outcome
from swarm.protocol.messages import FetchRequest, Part, encode_fetch_request

PIECE_BYTES: Final = 60_000
TINY_FRAMES: Final = 4096
PINGS: Final = 5000
RETRY_S: Final = 0.05
_ASK_AT_ONCE: Final = 8


def frame(kind: Kind, flags: int, stream_id: int, body: bytes | int = 0) -> bytes:
    """A yamux frame, with a body or a number."""
    if isinstance(body, int):
        return header(kind, flags, stream_id, body)
    return header(kind, flags, stream_id, len(body)) + body


def opening(stream_id: int, protocol: str) -> bytes:
    """Open a stream and name its protocol."""
    named = frame(Kind.DATA, Flag.NONE, stream_id, proposal(protocol))
    return frame(Kind.WINDOW, Flag.SYN, stream_id) + named


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """The node that is attacked, and as whom. protocol: its name on the wire."""

    host: str
    port: int
    network_key: bytes
    network_seed: bytes
    protocol: str

    @classmethod
    def of(
        cls, host: str, port: int, *, network_key: bytes, network_seed: bytes, net: bytes
    ) -> "Target":
        """Name the target; net: the charter's digest."""
        return cls(
            host=host, port=port, network_key=network_key, network_seed=network_seed,
            protocol=f"{FETCH_PROTOCOL}/{net.hex()}",
        )  # fmt: skip

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[ConnectionByHand]:
        """Connect as the member. Raises UnavailableError."""
        async with connection_by_hand(
            self.host, self.port, network_seed=self.network_seed, peer_key=self.network_key
        ) as member:
            yield member


Attack = Callable[[ConnectionByHand, str], Awaitable[None]]
"""What a member does on a connection, given the protocol's name; ends with UnavailableError when cut."""


async def ignore_window(member: ConnectionByHand, protocol: str) -> None:
    """Send on one stream without end, whatever room was given and though nobody reads it."""
    await member.say(
        opening(1, protocol) + frame(Kind.DATA, Flag.NONE, 1, request_frame(b"no request"))
    )
    piece = frame(Kind.DATA, Flag.NONE, 1, bytes(PIECE_BYTES))
    while True:
        await member.say(piece)


async def fill_windows(member: ConnectionByHand, protocol: str) -> None:
    """Fill the window of as many streams as there may be, and finish no request."""
    streams = range(1, 2 * STREAMS_MAX, 2)
    for stream_id in streams:
        promise = request_header(bytes(REQUEST_BYTES_MAX))
        await member.say(
            opening(stream_id, protocol) + frame(Kind.DATA, Flag.NONE, stream_id, promise)
        )
    for _ in range(WINDOW_BYTES // PIECE_BYTES):
        for stream_id in streams:
            await member.say(frame(Kind.DATA, Flag.NONE, stream_id, bytes(PIECE_BYTES)))
    await trio.sleep_forever()


async def never_read(member: ConnectionByHand, _: str) -> None:
    """Ask for answers and take none."""
    pings = b"".join(frame(Kind.PING, Flag.SYN, 0, number) for number in range(PINGS))
    while True:
        await member.say(pings)


async def many_streams(member: ConnectionByHand, protocol: str) -> None:
    """Open streams without end and close none."""
    stream_id = 1
    while True:
        await member.say(opening(stream_id, protocol))
        stream_id += 2


async def tiny_frames(member: ConnectionByHand, protocol: str) -> None:
    """Promise a long request and send it a byte a frame, again and again."""
    stream_id = 1
    while True:
        promise = request_header(bytes(REQUEST_BYTES_MAX))
        await member.say(
            opening(stream_id, protocol) + frame(Kind.DATA, Flag.NONE, stream_id, promise)
        )
        tiny = frame(Kind.DATA, Flag.NONE, stream_id, b"x") * TINY_FRAMES
        for _ in range(16):
            await member.say(tiny)
        stream_id += 2


async def ask_without_pause(member: ConnectionByHand, protocol: str) -> None:
    """Ask for payloads that nobody has, as fast as it goes."""
    stream_id = 1
    while True:
        asked = b""
        for _ in range(_ASK_AT_ONCE):
            request = FetchRequest(digest=secrets.token_bytes(32), part=Part.MANIFEST, index=0)
            body = request_frame(encode_fetch_request(request))
            asked += opening(stream_id, protocol) + frame(Kind.DATA, Flag.FIN, stream_id, body)
            stream_id += 2
        await member.say(asked)
        await trio.lowlevel.checkpoint()


READS_NOTHING: Final = frozenset({never_read})
ATTACKS: Final[Mapping[str, Attack]] = MappingProxyType(
    {
        attack.__name__: attack
        for attack in (
            ignore_window,
            fill_windows,
            never_read,
            many_streams,
            tiny_frames,
            ask_without_pause,
        )
    }
)


def attack_as_member(name: str, target: Target, *, seconds: float) -> Outcome:
    """Attack for so many seconds; whenever it is cut off, connect again.

    Of the outcome: connections that were made, and how many the node ended.
    """
    return trio.run(partial(_attack, ATTACKS[name], target, seconds=seconds))


async def _attack(attack: Attack, target: Target, *, seconds: float) -> Outcome:
    started_s = time.monotonic()
    made = ended = sent = 0
    with trio.move_on_after(seconds) as time_left:
        while not time_left.cancelled_caught:
            with suppress(UnavailableError):  # refused: it tries again
                async with target.connected() as member:
                    made += 1
                    try:
                        await _until_cut(member, attack, target.protocol)
                        ended += 1
                    finally:
                        sent += member.sent_bytes
            await trio.sleep(RETRY_S)
    return Outcome(
        attack=attack.__name__, connections=made, ended=ended, bytes_sent=sent,
        seconds=time.monotonic() - started_s,
    )  # fmt: skip


async def _until_cut(member: ConnectionByHand, attack: Attack, protocol: str) -> None:
    """Attack on one connection, and read what comes unless that is the point."""

    async def listen() -> None:
        await member.listen()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        if attack not in READS_NOTHING:
            nursery.start_soon(listen)
        with suppress(UnavailableError):
            await attack(member, protocol)
        nursery.cancel_scope.cancel()
