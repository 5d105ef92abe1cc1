"""Attacks and accidents on real sockets: what a stranger, a bad member or a dead one can do."""

import os
import random
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.lowlevel
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.network.config import ConnectionConfig
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11
from libp2p.pubsub.pb import rpc_pb2
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.utils import encode_varint_prefixed
from multiaddr import Multiaddr
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

from ledger.errors import ConfigError, UnavailableError
from node.libp2p import Libp2pNetwork, peer_id_text, probe_member
from node.links import Timing
from node.network import (
    FETCH_PROTOCOL,
    GOSSIP_BYTES_MAX,
    RECORDS_PROTOCOL,
    SYNC_PROTOCOL,
    OtherFederationError,
    Peer,
)

TOPIC = f"{RECORDS_PROTOCOL}/{NET.hex()}"
FETCH = TProtocol(f"{FETCH_PROTOCOL}/{NET.hex()}")
QUICK = Timing(heartbeat_s=0.4, ping_s=0.4, dial_s=2, redial_s=1)


@asynccontextmanager
async def stock_host(seed: bytes) -> AsyncIterator[BasicHost]:
    """A libp2p node of somebody else's making."""
    keys = create_new_key_pair(seed)
    noise = NoiseTransport(keys, noise_privkey=x25519_key_pair().private_key)
    config = ConnectionConfig(min_connections=0, low_watermark=0, high_watermark=0)
    host = new_host(keys, sec_opt={NOISE: noise}, connection_config=config)
    host.get_network().notifees.clear()
    async with host.run([Multiaddr(f"/ip4/127.0.0.1/tcp/{free_port()}")]):
        yield host
        await host.get_network().close()


def target(member: Member) -> PeerInfo:
    address = member.network.listening()[0]
    return PeerInfo(
        ID.from_pubkey(create_new_key_pair(seeds(9)[member.index]).public_key), [Multiaddr(address)]
    )


@asynccontextmanager
async def bad_member(members: list[Member]) -> AsyncIterator[tuple[BasicHost, PeerInfo]]:
    """The last member is replaced by a stock host with its key, connected to member 0."""
    await members[-1].stop()
    async with stock_host(seeds(9)[members[-1].index]) as host:
        info = target(members[0])
        await host.connect(info)
        await until(lambda: members[-1].index in members[0].network.connected())
        yield host, info


async def nothing_happened(members: list[Member]) -> None:
    await trio.sleep(0.3)
    assert await members[1].ask(0, b"alive?") == b"alive?"
    await gossip_works(members)


async def test_a_stranger_is_refused_at_the_handshake() -> None:
    async with running_swarm("libp2p", 2) as members, stock_host(secrets.token_bytes(32)) as host:
        with trio.fail_after(5), pytest.raises(Exception, match="unable to connect"):
            await host.connect(target(members[0]))
        assert members[0].network.connected() == {1}
        refused = members[0].log.named("stranger_refused")
        assert refused[0]["peer_id"] == str(host.get_id())
        await nothing_happened(members)


async def test_a_member_of_another_federation_with_the_same_keys_hears_nothing() -> None:
    async with running_swarm("libp2p", 2) as members:
        await members[1].stop()
        port = free_port()
        peers = peers_on([int(members[0].network.listening()[0].split("/")[-1]), port])
        other, log = Service(), Log()
        network = Libp2pNetwork(
            own_index=1,
            network_seed=seeds(2)[1],
            listen=peers[1].addresses,
            peers=peers,
            net=bytes(32),
            log=log,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(network.run, other)
            await until(lambda: network.connected() == {0})
            for number in range(10):
                await members[0].network.broadcast(b"secret %d" % number)
                await trio.sleep(0.1)
            with pytest.raises(UnavailableError, match="no stream"):
                await network.request(0, FETCH_PROTOCOL, b"x", reply_bytes_max=9, timeout_s=5)
            assert not other.gossip
            for asked in range(4):
                with pytest.raises(OtherFederationError, match="holds another charter"):
                    await network.request(0, SYNC_PROTOCOL, b"x", reply_bytes_max=9, timeout_s=5)
                # A peer that still starts may refuse once; one that goes on is told once.
                assert len(log.named("other_charter")) == (asked >= 1)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("protocol", [PROTOCOL_ID_V11, FETCH, TProtocol("/ipfs/id/1.0.0")])
async def test_random_bytes_on_a_protocol_do_no_harm(protocol: TProtocol) -> None:
    async with running_swarm("libp2p", 3) as members, bad_member(members) as (host, info):
        source = random.Random(5)
        for _ in range(8):
            try:
                stream = await host.new_stream(info.peer_id, [protocol])
                await stream.write(source.randbytes(64))
                await stream.close()
            except Exception:  # noqa: BLE001 - that we hang up is fine
                await trio.lowlevel.checkpoint()
        await nothing_happened(members[:2])
        if protocol != FETCH:
            return
        assert not members[0].service.requests or all(
            p != 2 for p, _, _ in members[0].service.requests
        )


async def test_forged_gossip_neither_kills_nor_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.libp2p.network.REPAIR_S", 0.1)
    async with running_swarm("libp2p", 3) as members, bad_member(members) as (host, info):
        bad, stranger = seeds(9)[2], secrets.token_bytes(32)
        me, victim = host.get_id().to_bytes(), target(members[1]).peer_id.to_bytes()
        by_another = signed(bad, b"f6", number=6)
        by_another.from_id = victim
        forged = [
            # Of members, but not signed by them: nothing but the signature tells.
            unsigned(b"f3", author=victim, number=3, signature=bytes(64)),
            unsigned(b"f4", author=me, number=4),
            unsigned(b"f5", author=victim, number=5, key=by_another.key, signature=b"x" * 64),
            by_another,
            # Well signed, but of a length that is not allowed.
            signed(bad, b"f" * (GOSSIP_BYTES_MAX + 1), number=8),
            signed(bad, b"", number=9),
        ]
        # What costs more to keep than to look at does not even come there.
        kept_out = [
            # Of nobody we know: names and keys that whoever reads them trips over, or reads for long.
            unsigned(b"f1", author=b"\x00", number=1, key=b"x", signature=b"x"),
            unsigned(b"f2", author=b"\xff" * 38, number=2, key=b"\xff" * 40, signature=b"\xff"),
            signed(stranger, b"f7", number=7),
            signed(bad, b"f" * (GOSSIP_BYTES_MAX + 2000), number=10),
            signed(bad, b"f11", number=11, topics=["another"]),
            signed(bad, b"f12", number=12, topics=[TOPIC, "another"]),
            signed(bad, b"f13", number=13, number_bytes=9),
            signed(bad, b"f14", number=14, number_bytes=1),
        ]
        reached: list[list[bytes]] = [[], []]
        for member in members[:2]:
            admission = member.network._life.pubsub._admission
            noted = partial(note, admission.admits, reached[member.index])
            monkeypatch.setattr(admission, "admits", noted)
        stream = await host.new_stream(info.peer_id, [PROTOCOL_ID_V11])
        for message in [*forged, *kept_out, signed(bad, b"honest", number=15)]:
            rpc = rpc_pb2.RPC(publish=[message])
            await stream.write(encode_varint_prefixed(rpc.SerializeToString()))
        await until(lambda: (2, b"honest") in members[0].service.gossip)
        await until(lambda: (2, b"honest") in members[1].service.gossip)
        # Each came as far as it was meant to: a coarser sieve before would hide a hole behind it.
        assert reached == [[*(message.data for message in forged), b"honest"], [b"honest"]]
        for message in kept_out[:2]:  # nothing but the guard would help
            await members[0].network._life.pubsub.push_msg(host.get_id(), message)
        dropped = [str(event["text"]) for event in members[0].log.named("libp2p")]
        assert len([text for text in dropped if text.startswith("dropped a message")]) == 2
        await nothing_happened(members[:2])
        for member in members[:2]:
            texts = [text for _, text in member.service.gossip]
            assert not [text for text in texts if not text or text.startswith(b"f")]


def note(admits: Callable[[ID, bytes], bool], noted: list[bytes], by: ID, data: bytes) -> bool:
    noted.append(data)
    return admits(by, data)


def unsigned(data: bytes, *, author: bytes, number: int, **more: bytes) -> rpc_pb2.Message:
    return rpc_pb2.Message(
        data=data, topicIDs=[TOPIC], from_id=author, seqno=number.to_bytes(8, "big"), **more
    )


def signed(
    seed: bytes,
    data: bytes,
    *,
    number: int,
    topics: Sequence[str] = (TOPIC,),
    number_bytes: int = 8,
) -> rpc_pb2.Message:
    keys = create_new_key_pair(seed)
    message = rpc_pb2.Message(
        data=data,
        topicIDs=topics,
        from_id=ID.from_pubkey(keys.public_key).to_bytes(),
        seqno=number.to_bytes(number_bytes, "big"),
    )
    message.signature = keys.private_key.sign(b"libp2p-pubsub:" + message.SerializeToString())
    message.key = keys.public_key.serialize()
    return message


async def test_a_request_that_never_ends_its_frame_holds_nothing_up() -> None:
    async with running_swarm("libp2p", 3) as members, bad_member(members) as (host, info):
        for _ in range(80):  # more than one peer may have open
            with trio.move_on_after(1):
                try:
                    stream = await host.new_stream(info.peer_id, [FETCH])
                    await stream.write(b"\x01\x00\x10\x00\x00only the beginning")
                except Exception:  # noqa: BLE001 - that we hang up is fine
                    break
        await nothing_happened(members[:2])


async def test_a_frame_that_promises_gigabytes_is_refused_at_once() -> None:
    async with running_swarm("libp2p", 3) as members, bad_member(members) as (host, info):
        stream = await host.new_stream(info.peer_id, [FETCH])
        await stream.write(b"\x01\xff\xff\xff\xff")
        with trio.fail_after(2):
            assert b"at most" in await stream.read(1000)
        await nothing_happened(members[:2])


async def test_two_members_that_dial_each_other_keep_one_connection() -> None:
    async with running_swarm("libp2p", 4) as members:
        await trio.sleep(0.5)
        for member in members:
            for index in member.network.connected():
                assert len(member.network._life.connections.open(index)) == 1


async def test_a_superfluous_connection_is_closed_and_the_same_at_both_ends() -> None:
    async with running_swarm("libp2p", 2) as members:
        async with trio.open_nursery() as asking:
            for member in members:
                asking.start_soon(keep_asking, member)
            for member in members:
                await trio.sleep(0.1)
                assert await member.network._life.dialler.dial(1 - member.index) is None
        await until(lambda: all(sockets(m) == 1 for m in members))
        assert [connections(m) for m in members] == [1, 1]
        assert await members[0].ask(1, b"works") == b"works"
        assert await members[1].ask(0, b"works") == b"works"
        await gossip_works(members)


async def keep_asking(member: Member) -> None:
    """No request is lost because a connection turned out to be one too many."""
    for number in range(200):
        body = b"%d" % number
        assert await member.ask(1 - member.index, body) == body


def sockets(member: Member) -> int:
    life = member.network._life
    return len(life.connections._swarm.get_connections())


def connections(member: Member) -> int:
    return len(member.network._life.connections.open(1 - member.index))


class Proxy:
    """Forwards TCP; frozen, it swallows everything and closes nothing (a stopped machine)."""

    def __init__(self, target_port: int) -> None:
        self.port, self.target_port, self.frozen = free_port(), target_port, False
        self.bytes_per_s: float | None = None
        self.holds_bytes = 128 * 1024

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
            listeners[0].socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.holds_bytes)
            await nursery.start(trio.serve_listeners, self._serve, listeners)
            task_status.started()

    async def _serve(self, near: trio.SocketStream) -> None:
        try:
            far = await trio.open_tcp_stream("127.0.0.1", self.target_port)
        except OSError:
            return
        far.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.holds_bytes)
        async with near, far, trio.open_nursery() as nursery:
            nursery.start_soon(self._copy, near, far)
            await self._copy(far, near)
            nursery.cancel_scope.cancel()

    async def _copy(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                await self._thawed()
                if self.bytes_per_s is not None:
                    await trio.sleep(len(data) / self.bytes_per_s)
                await sink.send_all(data)
        await self._thawed()

    async def _thawed(self) -> None:
        while self.frozen:  # noqa: ASYNC110 - a test's switch
            await trio.sleep(0.05)


@asynccontextmanager
async def pair_through_a_proxy(
    *, timing: Timing = QUICK, both_known: bool = False
) -> AsyncIterator[tuple[list[Member], Proxy]]:
    """Member 0 dials member 1 through a proxy; member 1 knows no address of member 0."""
    ports = [free_port(), free_port()]
    proxy = Proxy(ports[1])
    behind = peers_on([ports[0], proxy.port])
    silent = [Peer(index=0, name="site 0", network_key=behind[0].network_key), behind[1]]
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.run)
        members = []
        for index in (0, 1):
            log = Log()

            def make(i: int = index, log: Log = log) -> Libp2pNetwork:
                return Libp2pNetwork(
                    own_index=i,
                    network_seed=seeds(2)[i],
                    listen=[f"/ip4/127.0.0.1/tcp/{ports[i]}"],
                    peers=behind if i == 0 or both_known else silent,
                    net=NET,
                    log=log,
                    timing=timing,
                )

            members.append(Member(index, make, nursery, log=log))
            await members[-1].start()
        await all_connected(members)
        yield members, proxy
        for member in members:
            await member.stop()
        nursery.cancel_scope.cancel()


async def test_a_stopped_peer_is_noticed_dropped_and_met_again() -> None:
    async with pair_through_a_proxy() as (members, proxy):
        assert await members[1].ask(0, b"outbound-only still asks") == b"outbound-only still asks"
        proxy.frozen = True
        with trio.fail_after(4):
            with pytest.raises(UnavailableError):
                await members[0].ask(1, b"zeros 100", s=1)
            await until(lambda: not members[0].network.connected())
            await until(lambda: not members[1].network.connected())
        await until(lambda: bool(members[0].log.named("peer_lost")), s=1)
        proxy.frozen = False
        await all_connected(members)
        assert await members[0].ask(1, b"back") == b"back"
        await gossip_works(members)


async def test_a_peer_that_comes_back_replaces_its_dead_connection() -> None:
    async with pair_through_a_proxy(timing=Timing(heartbeat_s=60), both_known=True) as (
        members,
        proxy,
    ):
        await trio.sleep(3.2)  # older than two dials that cross each other
        proxy.frozen = True
        await members[1].stop()
        assert members[0].network.connected() == {1}, "dead, but nothing tells"
        await members[1].start()
        await until(lambda: members[1].network.connected() == {0}, s=3)
        assert await members[0].ask(1, b"back", s=2) == b"back"
        assert [connections(member) for member in members] == [1, 1]
        await gossip_works(members)


async def test_leaving_does_not_wait_for_a_peer_that_is_stuck() -> None:
    async with pair_through_a_proxy() as (members, proxy):
        proxy.frozen = True
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(push_quietly, members[0])
            await trio.sleep(0.3)
            with trio.fail_after(4):
                await members[0].stop()


async def push_quietly(member: Member) -> None:
    with suppress(UnavailableError):
        await member.ask(1, bytes(1_000_000), s=20)


async def test_many_reconnections_leave_nothing_behind() -> None:
    async with running_swarm("libp2p", 3) as members, bad_member(members) as (host, info):
        tasks = 0
        for number in range(5):
            await host.disconnect(info.peer_id)
            with trio.fail_after(5):
                await host.connect(info)
            if number == 0:
                await trio.sleep(0.3)  # until it has settled
                tasks = count_tasks()
        await until(lambda: members[0].network.connected() == {1, 2})
        await trio.sleep(0.5)
        assert len(members[0].network._life.door.callers) == 0
        assert count_tasks() < tasks + 4, "a task stays behind with every connection"
        await nothing_happened(members[:2])


def count_tasks() -> int:
    todo, count = [trio.lowlevel.current_root_task()], 0
    while todo:
        task = todo.pop()
        count += 1
        if task is not None:
            todo += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return count


async def test_nothing_runs_after_a_network_has_left() -> None:
    before = count_tasks()
    async with running_swarm("libp2p", 3) as members:
        await gossip_works(members)
        ports = [int(m.network.listening()[0].split("/")[-1]) for m in members]
    assert count_tasks() == before
    for port in ports:
        with pytest.raises(OSError, match="failed"):
            await trio.open_tcp_stream("127.0.0.1", port)


async def test_a_port_in_use_is_one_line_that_says_what_to_change() -> None:
    async with running_swarm("libp2p", 1) as members:
        address = members[0].network.listening()[0]
        network = Libp2pNetwork(
            own_index=1, network_seed=seeds(2)[1], listen=[address], peers=[], net=NET, log=Log()
        )
        with pytest.raises(ConfigError, match=r"in use; stop the other program") as caught:
            await network.run(Service())
        assert address in str(caught.value)
        assert "\n" not in str(caught.value)


async def test_port_0_lets_the_system_choose() -> None:
    network = Libp2pNetwork(
        own_index=0,
        network_seed=seeds(1)[0],
        listen=["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0"],
        peers=[],
        net=NET,
        log=Log(),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(network.run, Service())
        ports = {int(text.split("/")[-1]) for text in network.listening()}
        assert len(ports) == 2
        assert 0 not in ports
        nursery.cancel_scope.cancel()


def test_a_roster_that_does_not_fit_our_key_is_refused() -> None:
    peers = peers_on([1, 2])
    with pytest.raises(ConfigError, match="not this site's"):
        Libp2pNetwork(
            own_index=0, network_seed=bytes(32), listen=[], peers=peers, net=NET, log=Log()
        )
    with pytest.raises(ConfigError, match="another member"):
        Libp2pNetwork(
            own_index=5, network_seed=seeds(1)[0], listen=[], peers=peers, net=NET, log=Log()
        )
    wrong = Peer(
        index=1,
        name="b",
        network_key=peers[1].network_key,
        addresses=(f"/ip4/127.0.0.1/tcp/1/p2p/{peer_id_text(peers[0].network_key)}",),
    )
    with pytest.raises(ConfigError, match="its key is"):
        Libp2pNetwork(
            own_index=5, network_seed=bytes(32), listen=[], peers=[wrong], net=NET, log=Log()
        )
    assert peer_id_text(peers[0].network_key).startswith("12D3Koo")
    with pytest.raises(ConfigError, match="not an Ed25519 key"):
        peer_id_text(b"short")


async def test_the_doctor_says_why_a_member_cannot_be_reached() -> None:
    async with running_swarm("libp2p", 2) as members:
        seed = seeds(9)[0]
        open_port = int(members[1].network.listening()[0].split("/")[-1])
        there, *_ = (peer for peer in peers_on([1, open_port]) if peer.index == 1)

        async def probe(
            *addresses: str, key: bytes = there.network_key, ours: bytes = seed
        ) -> str | None:
            peer = Peer(index=1, name="site 1", network_key=key, addresses=addresses)
            return await probe_member(network_seed=ours, peer=peer, timeout_s=1)

        good = f"/ip4/127.0.0.1/tcp/{open_port}"
        assert await probe(good) is None
        assert await probe(f"/dns4/localhost/tcp/{open_port}") is None
        assert await probe(f"/ip4/127.0.0.1/tcp/{free_port()}", good) is None, "the second works"
        assert "dial us" in (await probe() or "")
        assert (await probe(f"/ip4/127.0.0.1/tcp/{free_port()}") or "").startswith("refused")
        assert (await probe("/dns4/nowhere.invalid/tcp/1") or "").startswith("DNS")
        assert (await probe(good, key=peers_on([1, 1, 1])[2].network_key) or "").startswith(
            "wrong key"
        )
        assert (await probe(good, ours=bytes(32)) or "").startswith("not a member")
        async with trio.open_nursery() as nursery:
            mute, chatty = free_port(), free_port()
            await nursery.start(trio.serve_tcp, sleep_with, mute)
            await nursery.start(trio.serve_tcp, http_server, chatty)
            assert (await probe(f"/ip4/127.0.0.1/tcp/{mute}") or "").startswith("timeout")
            assert (await probe(f"/ip4/127.0.0.1/tcp/{chatty}") or "").startswith("no swarm node")
            nursery.cancel_scope.cancel()
        await trio.sleep(0.2)
        assert members[1].network.connected() == {0}, "the probe disturbed the connection"
        assert len(members[1].log.named("peer_connected")) == 1


async def sleep_with(_stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def http_server(stream: trio.SocketStream) -> None:
    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await trio.sleep(0.2)


async def test_a_peer_that_is_not_there_is_redialled_with_back_off_and_logged() -> None:
    peers = peers_on([free_port(), free_port()])
    log = Log()
    network = Libp2pNetwork(
        own_index=0,
        network_seed=seeds(1)[0],
        listen=[],
        peers=peers,
        net=NET,
        log=log,
        timing=QUICK,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(network.run, Service())
        await until(lambda: len(log.named("dial_failed")) >= 4)
        failures = log.named("dial_failed")
        assert [failure["attempts"] for failure in failures[:4]] == [1, 2, 3, 4]
        assert "refused" in str(failures[0]["reason"])
        assert all(float(str(failure["retry_s"])) <= QUICK.redial_s for failure in failures)
        warned = [
            fields
            for level, name, fields in log.events
            if (level, name) == ("warning", "dial_failed")
        ]
        assert [fields["attempts"] for fields in warned] == [3]
        nursery.cancel_scope.cancel()


def test_a_process_that_is_interrupted_under_load_prints_nothing() -> None:
    script = Path(__file__).with_name("network_process.py")
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PYTHONWARNINGS": "error::ResourceWarning",
    }
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "under load\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=15)
    assert (out, err, process.returncode) == ("left\n", "", 0)
