"""The noise session over a real socket pair: any portions, any sizes, and no damage unnoticed."""

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.peer.id import ID
from libp2p.security.exceptions import HandshakeFailure
from libp2p.security.noise.transport import PROTOCOL_ID as STOCK_NOISE
from libp2p.security.security_multistream import SecurityMultistream
from network_swarm import seeds

from node.libp2p.gate import AES_NOISE, GatedNoise, offered
from node.libp2p.session import _OPENED_MAX, MESSAGE_BYTES_MAX, Session
from node.libp2p.wire import Wire

STRANGER_BYTES = 2048  # as docs/adr/0012 says, whatever the code does


@asynccontextmanager
async def two_ends(
    way: TProtocol = STOCK_NOISE,
) -> AsyncIterator[tuple[Session, Session, trio.SocketStream]]:
    """Two sessions after a true handshake, and the socket under the first."""
    keys = [create_new_key_pair(seed) for seed in seeds(2)]
    one, other = map(trio.SocketStream, trio.socket.socketpair())
    sessions: list[Session] = []

    async def answer() -> None:
        noise = offered(keys[1], lambda _: True)[way]
        sessions.append(await noise.secure_inbound(Wire(other, is_initiator=False)))

    async with one, other:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            noise = offered(keys[0], lambda _: True)[way]
            called = ID.from_pubkey(keys[1].public_key)
            first = await noise.secure_outbound(Wire(one, is_initiator=True), called)
        yield first, sessions[0], one


@pytest.mark.parametrize("way", [AES_NOISE, STOCK_NOISE])
@pytest.mark.parametrize("seed", range(4))
async def test_what_is_written_is_read_whatever_the_sizes(seed: int, way: TProtocol) -> None:
    source = random.Random(seed)
    sizes = [source.choice([1, 100, MESSAGE_BYTES_MAX, 300_000]) for _ in range(12)]
    said = [source.randbytes(source.randint(1, size)) for size in sizes]
    async with two_ends(way) as (first, second, _), trio.open_nursery() as nursery:

        async def write() -> None:
            for data in said:
                await first.write(data)

        nursery.start_soon(write)
        heard = bytearray()
        while len(heard) < sum(map(len, said)):
            if source.random() < 0.3:
                heard += b"".join(await second.receive())
            else:
                heard += await second.read(source.randint(1, 70_000))
        assert bytes(heard) == b"".join(said), f"seed {seed}"


async def test_thousands_of_short_messages_at_once_leave_others_their_turn() -> None:
    turns = 0
    opened: Counter[int] = Counter()

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with two_ends() as (first, second, _), trio.open_nursery() as nursery:
        open_one = second._in.open

        def counted(sealed: memoryview) -> bytes:
            opened[turns] += 1
            return open_one(sealed)

        second._in.open = counted  # type: ignore[method-assign]
        await first.write_messages([b"x"] * 2000)
        nursery.start_soon(take_turns)
        heard = 0
        while heard < 2000:
            heard += len(await second.receive())
        assert max(opened.values()) <= 2 * _OPENED_MAX, "the order of turns is drawn"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("way", [AES_NOISE, STOCK_NOISE])
async def test_a_damaged_byte_ends_the_connection(way: TProtocol) -> None:
    async with two_ends(way) as (_, second, socket):
        await socket.send_all(b"\x00\x20" + bytes(32))
        with pytest.raises(ConnectionClosedError, match="damaged"):
            await second.read(1)


@pytest.mark.parametrize("way", [AES_NOISE, STOCK_NOISE])
async def test_our_session_speaks_as_the_noise_library_does(way: TProtocol) -> None:
    keys = [create_new_key_pair(seed) for seed in seeds(2)]
    ours, stock = (offered(key, lambda _: True)[way] for key in keys)
    one, other = map(trio.SocketStream, trio.socket.socketpair())
    heard: list[bytes] = []

    async def answer() -> None:
        pattern = stock.get_pattern()
        session = await pattern.handshake_inbound(Wire(other, is_initiator=False))
        for _ in range(3):
            heard.append(await session.read())
            await session.write(heard[-1][::-1])

    async with one, other, trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        called = ID.from_pubkey(keys[1].public_key)
        first = await ours.secure_outbound(Wire(one, is_initiator=True), called)
        for said in (b"one", b"two", b"three"):
            await first.write(said)
            assert await first.read(100) == said[::-1]
    assert heard == [b"one", b"two", b"three"]


async def test_the_fast_cipher_is_agreed_on_where_both_know_it_and_else_libp2ps_own() -> None:
    keys = [create_new_key_pair(seed) for seed in seeds(2)]
    every = [offered(key, lambda _: True) for key in keys]
    called = ID.from_pubkey(keys[1].public_key)
    for known, agreed in (([AES_NOISE, STOCK_NOISE], AES_NOISE), ([STOCK_NOISE], STOCK_NOISE)):
        one, other = map(trio.SocketStream, trio.socket.socketpair())
        answers = SecurityMultistream({way: every[1][way] for way in known})
        async with one, other, trio.open_nursery() as nursery:
            nursery.start_soon(answers.secure_inbound, Wire(other, is_initiator=False))
            wire = Wire(one, is_initiator=True)
            session = await SecurityMultistream(every[0]).secure_outbound(wire, called)
        assert getattr(session, "negotiated_security_protocol", None) == agreed


async def test_a_key_is_not_used_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.libp2p.session.KEY_USES_MAX", 3)
    async with two_ends(AES_NOISE) as (first, second, _):
        for _number in range(3):
            await first.write(b"x")
            assert await second.read(1) == b"x"
        with pytest.raises(ConnectionClosedError, match="long enough"):
            await first.write(b"x")


async def test_an_end_in_the_middle_of_a_message_is_an_end() -> None:
    async with two_ends() as (first, second, socket):
        await first.write(b"whole")
        await socket.send_all(b"\xff\xff half")
        await socket.aclose()
        assert await second.read(100) == b"whole"
        with pytest.raises(ConnectionClosedError, match="closed"):
            await second.read(100)


async def test_a_stranger_has_a_budget_of_bytes() -> None:
    one, other = map(trio.SocketStream, trio.socket.socketpair())
    async with one, other:
        wire = Wire(other, is_initiator=False)
        await one.send_all(bytes(STRANGER_BYTES))
        for _ in range(16):
            await wire.read(STRANGER_BYTES // 16)
        await one.send_all(b"x")
        with pytest.raises(ConnectionClosedError, match="stranger"):
            await wire.read(1)


async def test_who_is_not_admitted_gets_no_session() -> None:
    keys = [create_new_key_pair(seed) for seed in seeds(2)]
    one, other = map(trio.SocketStream, trio.socket.socketpair())
    async with one, other, trio.open_nursery() as nursery:
        caller = GatedNoise(keys[0], lambda _: True)
        called = ID.from_pubkey(keys[1].public_key)
        nursery.start_soon(caller.secure_outbound, Wire(one, is_initiator=True), called)
        with pytest.raises(HandshakeFailure, match="roster"):
            await GatedNoise(keys[1], lambda _: False).secure_inbound(
                Wire(other, is_initiator=False)
            )
