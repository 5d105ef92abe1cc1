"""Our session and muxer against libp2p's own, and their parts alone."""

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import pairwise

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from libp2p import new_host
from libp2p.abc import INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.network.config import ConnectionConfig
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.secure_session import SecureSession
from libp2p.stream_muxer.yamux.yamux import Yamux as StockYamux
from multiaddr import Multiaddr
from network_swarm import (
    NET,
    Log,
    Member,
    Service,
    free_port,
    peers_on,
    running_swarm,
    seeds,
    until,
)
from test_network_session import two_ends

from ledger.errors import UnavailableError
from node.framing import Status, read_reply, read_request, reply_frame, request_frame
from node.libp2p import Libp2pNetwork
from node.libp2p.callers import CALLS_BURST, HALF_OPEN_MAX, HALF_OPEN_PER_ADDRESS_MAX, Callers
from node.libp2p.frames import WINDOW_BYTES, Flag, Frame, FrameError, FrameReader, Kind, header
from node.libp2p.multiselect import proposal, read_agreement
from node.libp2p.outbox import HEADERS_MAX, Outbox
from node.libp2p.pacing import Both, Bucket
from node.libp2p.reasons import LOST
from node.libp2p.session import MESSAGE_BYTES_MAX
from node.libp2p.stream import Stream
from node.libp2p.yamux import (
    _EVENTS_MAX,
    GRANTED_BYTES_MAX,
    LONG_BYTES,
    STREAMS_MAX,
    UNREAD_BYTES_MAX,
    Yamux,
)
from node.line import Line
from node.network import FETCH_PROTOCOL, REQUEST_BYTES_MAX

FETCH = TProtocol(f"{FETCH_PROTOCOL}/{NET.hex()}")
BODY = random.Random(1).randbytes(REQUEST_BYTES_MAX)


@asynccontextmanager
async def stock_host(seed: bytes, port: int) -> AsyncIterator[BasicHost]:
    """An unmodified libp2p node: its own noise session, its own yamux."""
    keys = create_new_key_pair(seed)
    noise = NoiseTransport(keys, noise_privkey=x25519_key_pair().private_key)
    config = ConnectionConfig(min_connections=0, low_watermark=0, high_watermark=0)
    host = new_host(keys, sec_opt={NOISE: noise}, connection_config=config)
    host.get_network().notifees.clear()
    async with host.run([Multiaddr(f"/ip4/127.0.0.1/tcp/{port}")]):
        yield host
        await host.get_network().close()


def is_stock(host: BasicHost) -> bool:
    (connection,) = host.get_network().get_connections()
    assert isinstance(connection, SwarmConn)
    muxed = connection.muxed_conn
    return isinstance(muxed, StockYamux) and isinstance(muxed.secured_conn, SecureSession)


async def test_a_stock_peer_dials_us_and_long_bodies_pass_both_ways() -> None:
    async with running_swarm("libp2p", 2) as members:
        await members[1].stop()
        async with stock_host(seeds(2)[1], free_port()) as host:
            target = ID.from_pubkey(create_new_key_pair(seeds(2)[0]).public_key)
            where = Multiaddr(members[0].network.listening()[0])
            await host.connect(PeerInfo(target, [where]))
            assert is_stock(host)
            for _ in range(3):
                stream = await host.new_stream(target, [FETCH])
                await stream.write(request_frame(BODY))
                assert await read_reply(stream, bytes_max=len(BODY)) == (Status.OK, BODY)
                await stream.close()
            await until(lambda: members[0].network.connected() == {1})


async def test_we_dial_a_stock_peer_and_long_bodies_pass_both_ways() -> None:
    ports = [free_port(), free_port()]
    async with stock_host(seeds(2)[1], ports[1]) as host, trio.open_nursery() as nursery:

        async def echo(stream: INetStream) -> None:
            body = await read_request(stream, bytes_max=REQUEST_BYTES_MAX)
            await stream.write(reply_frame(Status.OK, body))
            await stream.close()

        host.set_stream_handler(FETCH, echo)
        network = Libp2pNetwork(
            own_index=0,
            network_seed=seeds(2)[0],
            listen=[],
            peers=peers_on(ports),
            net=NET,
            log=Log(),
        )
        await nursery.start(network.run, Service())
        await until(
            lambda: network.connected() == {1} and bool(host.get_network().get_connections())
        )
        assert is_stock(host)

        async def ask(body: bytes) -> None:
            reply = await network.request(
                1, FETCH_PROTOCOL, body, reply_bytes_max=REQUEST_BYTES_MAX, timeout_s=10
            )
            assert reply == body

        async with trio.open_nursery() as asking:
            for size in (0, 1, 65_507, 262_144, len(BODY)):
                asking.start_soon(ask, BODY[:size])
        nursery.cancel_scope.cancel()


async def test_a_reply_arrives_whole_however_many_are_on_their_way() -> None:
    async with running_swarm("libp2p", 2) as members:

        async def ask(number: int) -> None:
            body = bytes([number]) * (REQUEST_BYTES_MAX - number)
            assert await members[0].ask(1, body, bytes_max=REQUEST_BYTES_MAX, s=20) == body

        async with trio.open_nursery() as nursery:
            for number in range(24):
                nursery.start_soon(ask, number)


async def test_a_ping_does_not_wait_for_a_payload() -> None:
    """On a line of 4 Mbit/s a payload takes long, and the small ones pass it."""
    async with running_swarm("libp2p", 2, line=Line(upload_mbit_s_max=4.0)) as members:
        async with trio.open_nursery() as nursery:
            started_s = trio.current_time()
            nursery.start_soon(partial(members[0].ask, 1, b"zeros 700000", bytes_max=700_000, s=20))
            await trio.sleep(0.3)
            for _ in range(5):
                asked_s = trio.current_time()
                await members[0].ask(1, b"small")
                assert trio.current_time() - asked_s < 0.2
        assert 0.7 < trio.current_time() - started_s < 4, "5.6 Mbit, of which 2 at once"


async def fetched_at_once(members: list[Member], *, bytes_each: int) -> list[float]:
    """Let everybody fetch from member 0, each on two streams; return how long each one waited."""
    took_s: list[float] = []

    async def fetch(member: Member) -> None:
        started_s, size = trio.current_time(), bytes_each // 2
        async with trio.open_nursery() as both:
            for _ in range(2):
                both.start_soon(partial(member.ask, 0, b"zeros %d" % size, bytes_max=size, s=30))
        took_s.append(trio.current_time() - started_s)

    async with trio.open_nursery() as nursery:
        for member in members[1:]:
            nursery.start_soon(fetch, member)
    return took_s


def shortest_s(count: int, *, mbit_s: float, batch_bytes: int) -> float:
    """Until the last batch of so many bytes may leave: half a second's worth goes at once."""
    return (count - batch_bytes) / (mbit_s * 1e6 / 8) - 0.5


async def test_each_peer_has_a_line_of_its_own_that_no_other_peer_takes_from() -> None:
    """Two peers at 2 Mbit/s each: 600 kB take 1.7 s each, and 4.1 s if they had one line together."""
    line, each = Line(peer_upload_mbit_s_max=2.0), 600_000
    of_line = partial(shortest_s, mbit_s=2.0, batch_bytes=62_500)
    async with running_swarm("libp2p", 3, line=line) as members:
        took_s = await fetched_at_once(members, bytes_each=each)
    assert min(took_s) > of_line(each), "neither got more than its cap"
    assert max(took_s) < of_line(2 * each), "and together they got more than one"


async def test_the_lines_of_all_peers_together_keep_to_the_total() -> None:
    """At 2 Mbit/s for each and 2.5 for both, 600 kB twice take 3.1 s."""
    line, each = Line(peer_upload_mbit_s_max=2.0, upload_mbit_s_max=2.5), 600_000
    async with running_swarm("libp2p", 3, line=line) as members:
        took_s = await fetched_at_once(members, bytes_each=each)
    assert max(took_s) > shortest_s(2 * each, mbit_s=2.5, batch_bytes=62_500)


async def test_what_nobody_reads_is_capped_over_all_streams() -> None:
    granted = GRANTED_BYTES_MAX // LONG_BYTES
    pieces = [
        header(Kind.DATA, Flag.NONE, 2 * stream, 60_000) + bytes(60_000)
        for piece in range((WINDOW_BYTES + LONG_BYTES) // 60_000)
        for stream in range(1, STREAMS_MAX + 1)  # each within its own window
        if stream <= granted or piece < WINDOW_BYTES // 60_000
    ]
    allowed = UNREAD_BYTES_MAX // 60_000
    assert len(pieces) > allowed
    async with two_ends() as (ours, theirs, _), trio.open_nursery() as nursery:
        muxed = Yamux(ours, ours.remote_peer)
        nursery.start_soon(muxed.start)
        for stream in range(1, STREAMS_MAX + 1):
            await theirs.write(header(Kind.WINDOW, Flag.SYN, 2 * stream, 0))
        for piece in pieces[:allowed]:
            await theirs.write_messages([piece])
        await until(lambda: muxed._unread_bytes == 60_000 * allowed)
        assert not muxed.is_closed
        await theirs.write_messages([pieces[allowed]])
        with trio.fail_after(2):
            await muxed.event_closed.wait()


async def test_a_stream_under_a_number_used_before_counts_and_outlives_the_first() -> None:
    async with two_ends() as (ours, theirs, _), trio.open_nursery() as nursery:
        muxed = Yamux(ours, ours.remote_peer)
        nursery.start_soon(muxed.start)
        opened = header(Kind.WINDOW, Flag.SYN, 2, 0)
        await theirs.write(opened + header(Kind.WINDOW, Flag.RST, 2, 0) + opened)
        first, second = await muxed.accept_stream(), await muxed.accept_stream()
        first.abandon()
        assert (muxed._streams, muxed._theirs, muxed._granted) == ({2: second}, {2}, {2})
        await theirs.write(header(Kind.DATA, Flag.NONE, 2, 5) + b"heard")
        with trio.fail_after(2):
            assert await second.read() == b"heard"
        second.abandon()
        assert (muxed._streams, muxed._theirs, muxed._granted) == ({}, set(), set())
        await muxed.close()


async def test_frames_in_a_message_each_leave_others_their_turn() -> None:
    turns = 0
    handled: Counter[int] = Counter()

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with two_ends() as (ours, theirs, _), trio.open_nursery() as nursery:
        muxed = Yamux(ours, ours.remote_peer)
        take_frame = muxed._take_frame

        def counted(frame: Frame) -> Stream | None:
            handled[turns] += 1
            return take_frame(frame)

        muxed._take_frame = counted  # type: ignore[method-assign]
        await theirs.write_messages([header(Kind.WINDOW, Flag.NONE, 98, 0)] * 2000)
        nursery.start_soon(take_turns)
        nursery.start_soon(muxed.start)
        await until(lambda: handled.total() == 2000)
        assert max(handled.values()) <= 2 * _EVENTS_MAX, "the order of turns is drawn"
        await muxed.close()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("gives_up", ["the connection", "the stream"])
async def test_what_never_left_takes_nothing_of_the_shared_line(gives_up: str) -> None:
    line = Bucket(100_000.0)
    async with two_ends() as (ours, _theirs, _), trio.open_nursery() as nursery:
        line.reserve(100_000, now_s=trio.current_time())  # so that a batch has to wait
        paid_until_s = line._paid_until_s
        muxed = Yamux(ours, ours.remote_peer, line)
        nursery.start_soon(muxed.start)
        stream = muxed.open_now()

        async def write() -> None:
            with suppress(*LOST):
                await stream.write(bytes(200_000))

        nursery.start_soon(write)
        await until(lambda: line._paid_until_s > paid_until_s)
        await (muxed.close() if gives_up == "the connection" else stream.reset())
        await until(lambda: line._paid_until_s == pytest.approx(paid_until_s))
        await muxed.close()


@given(
    frames=st.lists(
        st.tuples(
            st.sampled_from(Kind), st.integers(0, 15), st.integers(0, 2**32 - 1), st.binary()
        ),
        max_size=8,
    ),
    cuts=st.lists(st.integers(0, 300), max_size=20),
)
def test_frames_survive_any_split(
    frames: list[tuple[Kind, int, int, bytes]], cuts: list[int]
) -> None:
    wire, expected = b"", []
    for kind, flags, stream_id, body in frames:
        body_there = body if kind is Kind.DATA else b""
        wire += header(kind, flags, stream_id, len(body)) + body_there
        expected.append((Frame(kind, flags, stream_id, len(body)), body_there))
    reader = FrameReader()
    found: list[tuple[Frame, bytes]] = []
    edges = [0, *sorted(cut for cut in cuts if cut < len(wire)), len(wire)]
    for start, end in pairwise(edges):
        for event in reader.feed(wire[start:end]):
            if isinstance(event, Frame):
                found.append((event, b""))
            else:
                found[-1] = (found[-1][0], found[-1][1] + bytes(event))
    assert found == expected


def test_another_version_or_type_is_no_frame() -> None:
    for broken in (b"\x01" + bytes(11), b"\x00\x04" + bytes(10)):
        with pytest.raises(FrameError):
            list(FrameReader().feed(broken))


def test_a_peer_that_makes_us_answer_and_does_not_read_is_told_from_one_that_does() -> None:
    outbox = Outbox()
    for _ in range(HEADERS_MAX):
        outbox.put_header(bytes(12))
    with pytest.raises(FrameError, match="does not read"):
        outbox.put_header(bytes(12))
    assert b"".join(outbox.take_small()) == bytes(12 * HEADERS_MAX)
    outbox.put_header(bytes(12))


@pytest.mark.parametrize("size", [1, 16 * 1024, 32_759, 32_760, MESSAGE_BYTES_MAX])
def test_what_waits_to_be_read_keeps_twice_its_size_in_memory_at_most(size: int) -> None:
    stream = Stream(None, Outbox(), 2, flag=Flag.ACK, extra_bytes=1 << 20)  # type: ignore[arg-type]
    for _ in range(16):
        stream.expect(size, is_last=False)
        stream.take_in(memoryview(bytes(MESSAGE_BYTES_MAX))[:size])
    held = [one.obj if isinstance(one, memoryview) else one for one in stream._pieces]
    assert stream.unread_bytes == 16 * size
    assert sum(map(len, held)) <= 2 * stream.unread_bytes


async def test_the_oldest_silent_stranger_makes_room() -> None:
    callers = Callers()
    scopes = [trio.CancelScope() for _ in range(HALF_OPEN_PER_ADDRESS_MAX + 1)]
    for scope in scopes:
        callers.begin(scope, "192.0.2.1")
    assert [scope.cancel_called for scope in scopes] == [True] + [False] * (len(scopes) - 1)
    others = [trio.CancelScope() for _ in range(HALF_OPEN_MAX)]
    for number, scope in enumerate(others):
        callers.begin(scope, f"198.51.100.{number}")
    assert len(callers) == HALF_OPEN_MAX
    assert all(scope.cancel_called for scope in scopes)
    assert not any(scope.cancel_called for scope in others)
    callers.end(others[0])
    callers.end(others[0])
    assert len(callers) == HALF_OPEN_MAX - 1


def test_one_address_does_not_use_up_the_calls_of_another() -> None:
    callers = Callers()
    burst = int(CALLS_BURST)
    assert [callers.may_call("2001:db8::1", now_s=0) for _ in range(burst + 1)][-1] is False
    assert not callers.may_call("2001:db8::2", now_s=0), "the same network of 64 bits"
    assert callers.may_call("2001:db8:0:1::1", now_s=0)
    assert callers.may_call("192.0.2.1", now_s=0)
    assert callers.may_call("2001:db8::1", now_s=1)


def test_the_slower_of_two_lines_decides() -> None:
    line = Both(Bucket(1000.0), Bucket(100.0))
    assert line.reserve(50, now_s=10.0) == 10.0, "half a second's worth at once"
    assert line.reserve(100, now_s=10.0) == 10.0
    assert line.reserve(100, now_s=10.0) == 11.0
    assert line.reserve(100, now_s=100.0) == 100.0
    assert line.reserve(100, now_s=100.0) == 100.5
    line.give_back(100)
    assert line.reserve(100, now_s=100.0) == 100.5, "as if it had never been asked for"
    assert line.batch_bytes(10**6) == 16 * 1024
    with pytest.raises(ValueError, match="more than 0"):
        Bucket(0)


class Said:
    def __init__(self, data: bytes) -> None:
        self.data = data

    async def read(self, n: int) -> bytes:
        out, self.data = self.data[:n], self.data[n:]
        return out


async def test_a_protocol_that_is_not_offered_is_told_from_a_broken_peer() -> None:
    assert proposal("/a") == b"\x13/multistream/1.0.0\n\x03/a\n"
    await read_agreement(Said(proposal("/a")), "/a")
    with pytest.raises(UnavailableError, match="is not offered"):
        await read_agreement(Said(b"\x13/multistream/1.0.0\n\x03na\n"), "/a")
    for broken in (proposal("/b"), b"\x03na\n", b"\xff", b"\x13/multi"):
        with pytest.raises(UnavailableError):
            await read_agreement(Said(broken), "/a")
    with pytest.raises(ValueError, match="bytes"):
        proposal("/" + "x" * 200)
