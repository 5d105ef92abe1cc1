"""Coming, staying and going: names that move, slow lines, ports in use, leaving under load."""

import os
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
import trio
import trio.testing
from bad_member import bad_member
from network_swarm import (
    NET,
    Log,
    Member,
    Service,
    all_connected,
    free_port,
    peers_on,
    running_swarm,
    seeds,
    until,
)
from test_network_contract import gossip_works
from test_network_libp2p import count_tasks, pair_through_a_proxy
from test_network_session import two_ends

from ledger.errors import ConfigError, UnavailableError
from node.libp2p import Libp2pNetwork
from node.libp2p.frames import Flag, Kind, header
from node.libp2p.yamux import WRITE_S, Yamux
from node.links import Timing
from node.network import Peer

REPEATS = int(os.environ.get("SWARM_REPEATS", "4"))
QUICK = Timing(heartbeat_s=0.4, ping_s=0.4, dial_s=2, redial_s=0.5)


class Names(trio.abc.HostnameResolver):
    """A name server whose answers change."""

    def __init__(self, name: str, ip: str) -> None:
        self.name, self.ip, self.asked = name, ip, 0

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002 - trio's signature
        proto: int = 0,
        flags: int = 0,
    ) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        if host != self.name.encode():
            found = await trio.to_thread.run_sync(
                socket.getaddrinfo, host, port, family, type, proto, flags
            )
            return [(int(f), int(t), p, n, where) for f, t, p, n, where in found]
        self.asked += 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self.ip, int(port or 0)))]

    async def getnameinfo(self, sockaddr: object, flags: int) -> tuple[str, str]:
        raise NotImplementedError("nothing here asks for names")


async def test_a_name_is_asked_for_again_at_every_dial() -> None:
    """A hospital whose address changes is found again: its name is not remembered."""
    names = Names("swarm.hospital.example", "127.0.0.2")
    before = trio.socket.set_custom_hostname_resolver(names)
    try:
        port = free_port()
        known = peers_on([free_port(), port])
        moving = Peer(
            index=1,
            name="site 1",
            network_key=known[1].network_key,
            addresses=(f"/dns4/{names.name}/tcp/{port}",),
        )
        caller = network(0, [], [known[0], moving])
        called = network(1, [f"/ip4/127.0.0.1/tcp/{port}"], silent(known))
        async with trio.open_nursery() as nursery:
            await nursery.start(called.run, Service())
            await nursery.start(caller.run, Service())
            await until(lambda: names.asked >= 2)
            assert not caller.connected()
            names.ip = "127.0.0.1"
            await until(lambda: caller.connected() == {1}, s=3)
            nursery.cancel_scope.cancel()
    finally:
        trio.socket.set_custom_hostname_resolver(before)


def network(index: int, listen: Sequence[str], peers: list[Peer]) -> Libp2pNetwork:
    return Libp2pNetwork(
        own_index=index,
        network_seed=seeds(2)[index],
        listen=listen,
        peers=peers,
        net=NET,
        log=Log(),
        timing=QUICK,
    )


def silent(peers: list[Peer]) -> list[Peer]:
    """The same members without addresses: whoever knows them waits to be dialled."""
    return [Peer(index=p.index, name=p.name, network_key=p.network_key) for p in peers]


async def test_a_port_that_another_program_would_share_is_in_use() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"/ip4/127.0.0.1/tcp/{other.getsockname()[1]}"
        with pytest.raises(ConfigError, match=r"in use; stop the other program"):
            await network(0, [address], []).run(Service())


async def test_a_payload_on_a_slow_line_is_a_sign_of_life() -> None:
    """The answer to a ping stands behind half a second of payload; nobody is dropped for that."""
    async with pair_through_a_proxy(timing=QUICK) as (members, proxy):
        proxy.bytes_per_s = 800_000
        asked_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(take_megabyte, members[0])
        assert trio.current_time() - asked_s > 1.5, "the line was not slow"
        assert not members[0].log.named("peer_lost")
        assert not members[1].log.named("peer_lost")


async def take_megabyte(member: Member) -> None:
    assert len(await member.ask(1, b"zeros 1000000", bytes_max=1_000_000, s=20)) == 1_000_000


async def test_a_write_that_gets_nowhere_ends_the_connection_and_a_slow_one_does_not(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lasts_s = 0.9 * WRITE_S

    async def write_messages(_: object) -> None:
        await trio.sleep(lasts_s)

    async with two_ends() as (session, _, _), trio.open_nursery() as nursery:
        monkeypatch.setattr(session, "write_messages", write_messages)
        muxed = Yamux(session, session.remote_peer)
        nursery.start_soon(muxed.start)
        await trio.sleep(5 * WRITE_S)
        for _ in range(40):
            muxed.send_header(header(Kind.PING, Flag.SYN, 0, 1))
            await trio.sleep(WRITE_S / 4)
        assert not muxed.is_closed, "it was idle, then slow"
        await trio.sleep(WRITE_S)
        lasts_s = float("inf")
        muxed.send_header(header(Kind.PING, Flag.SYN, 0, 1))
        started_s = trio.current_time()
        with trio.fail_after(9 * WRITE_S):
            await muxed.event_closed.wait()
        assert WRITE_S <= trio.current_time() - started_s <= 2 * WRITE_S


async def test_a_peer_that_takes_nothing_is_dropped_without_a_heartbeat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("node.libp2p.yamux.WRITE_S", 0.2)
    async with pair_through_a_proxy(timing=Timing(heartbeat_s=60, redial_s=0.5)) as (
        members,
        proxy,
    ):
        proxy.frozen = True
        async with trio.open_nursery() as asking:
            for _ in range(48):  # 12 MiB at once: no socket's buffer holds so much
                asking.start_soon(push_in_vain, members[0])
            await until(lambda: not members[0].network.connected(), s=2)
        told = [str(event["text"]) for event in members[0].log.named("libp2p")]
        assert any("takes nothing" in text for text in told)
        proxy.frozen = False
        await all_connected(members)
        assert await members[0].ask(1, b"back") == b"back"


async def push_in_vain(member: Member) -> None:
    with pytest.raises(UnavailableError):
        await member.ask(1, bytes(1_000_000), s=30)


async def test_a_member_that_connects_again_and_again_holds_two_connections_at_most() -> None:
    async with running_swarm("libp2p", 2) as members, AsyncExitStack() as stack:
        await members[1].stop()
        swarm = members[0].network._life.connections._swarm
        port = int(members[0].network.listening()[0].split("/")[-1])
        for _ in range(12):
            await stack.enter_async_context(
                bad_member(port, seed=seeds(2)[1], victim_seed=seeds(2)[0])
            )
        await until(lambda: members[0].network.connected() == {1})
        await trio.sleep(0.2)
        assert len(swarm.get_connections()) <= 3
        await until(lambda: len(swarm.get_connections()) == 1, s=3)


async def test_who_calls_and_says_nothing_is_hung_up_on() -> None:
    async with running_swarm("libp2p", 1, timing=Timing(dial_s=0.3)) as members:
        async with await trio.open_tcp_stream("127.0.0.1", port_of(members[0])) as mute:
            with trio.fail_after(2):
                while await mute.receive_some():
                    pass
        await until(lambda: len(members[0].network._life.door.callers) == 0, s=1)


async def test_who_calls_too_often_is_hung_up_on_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.libp2p.callers.CALLS_BURST", 3)
    monkeypatch.setattr("node.libp2p.callers.CALLS_PER_S", 0.01)
    async with running_swarm("libp2p", 1) as members, AsyncExitStack() as stack:
        for _ in range(5):
            stranger = await trio.open_tcp_stream("127.0.0.1", port_of(members[0]))
            await stack.enter_async_context(stranger)
        await until(lambda: len(members[0].log.named("calls_refused")) == 2, s=2)
        assert len(members[0].network._life.door.callers) == 3


def port_of(member: Member) -> int:
    return int(member.network.listening()[0].split("/")[-1])


async def test_a_stream_that_begins_with_nothing_ends_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("node.libp2p.reception._BEGINNING_S", 0.1)
    async with running_swarm("libp2p", 3) as members:
        await members[2].stop()
        port = port_of(members[0])
        async with bad_member(port, seed=seeds(3)[2], victim_seed=seeds(3)[0]) as member:
            await member.say(header(Kind.WINDOW, Flag.SYN, 1, 0))
            await member.say(header(Kind.WINDOW, Flag.SYN, 3, 0))
            await member.say(header(Kind.WINDOW, Flag.RST, 3, 0))
            log = members[0].log
            await until(lambda: len(log.named("stream_failed")) == 2, s=2)
            await member.say(header(Kind.PING, Flag.SYN, 0, 7))
            said = b""
            with trio.fail_after(2):
                while header(Kind.PING, Flag.ACK, 0, 7) not in said:
                    said += b"".join(await member.hear())
            assert header(Kind.WINDOW, Flag.RST, 1, 0) in said
        assert await members[1].ask(0, b"alive?") == b"alive?"


async def test_what_is_said_after_a_quick_restart_is_no_copy_of_what_was_said_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("node.libp2p.network.REPAIR_S", 0.1)
    async with running_swarm("libp2p", 2) as members:
        await gossip_works(members[::-1])
        for number in range(200):
            await members[1].network.broadcast(b"before %d" % number)
        heard = members[0].service.gossip
        await until(lambda: (1, b"before 199") in heard)
        await members[1].stop()
        await members[1].start()
        await all_connected(members)
        for number in range(100):  # the first may be said before gossip has begun again
            await members[1].network.broadcast(b"after %d" % number)
            with trio.move_on_after(0.05):
                await until(lambda: any(text.startswith(b"after") for _, text in heard))
                return
        pytest.fail("nothing arrives: taken for copies")


async def test_leaving_under_load_leaves_nothing_behind_however_often() -> None:
    tasks, files = count_tasks(), open_files()
    for repeat in range(REPEATS):
        async with running_swarm("libp2p", 3, start=False) as members, trio.open_nursery() as load:
            for member in members:
                await member.start()
            await all_connected(members)
            for member in members:
                load.start_soon(keep_asking, member, (member.index + 1) % 3)
                load.start_soon(keep_asking, member, (member.index + 2) % 3)
            await trio.sleep(0.05 + 0.02 * repeat)
            for member in members:
                load.start_soon(member.stop)
        assert count_tasks() == tasks, f"repeat {repeat}"
        assert open_files() == files, f"repeat {repeat}"
        for member in members:
            assert not member.log.named("leave_failed"), f"repeat {repeat}"


async def keep_asking(member: Member, peer: int) -> None:
    with suppress(UnavailableError):
        while True:
            await member.ask(peer, b"zeros 300000", bytes_max=300_000)
            await member.network.broadcast(os.urandom(100))


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
