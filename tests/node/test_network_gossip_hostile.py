"""What one bad member can make the gossip layer keep, send and do. The last member is the bad one."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import trio
from libp2p.abc import INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.envelope import seal_record
from libp2p.peer.id import ID
from libp2p.peer.peer_record import PeerRecord
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils import encode_varint_prefixed
from multiaddr import Multiaddr
from network_swarm import Member, running_swarm, until
from test_network_libp2p import TOPIC, count_tasks, signed

from node.libp2p import network as network_module
from node.libp2p import stream as stream_module
from node.libp2p.gossip import (
    _STREAMS_MAX,
    VOLUME_BURST_BYTES,
    VOLUME_BYTES_PER_S,
    GuardedPubsub,
)
from node.libp2p.gossip_router import ANSWER_BYTES_MAX, CONTROL_IDS_MAX, GuardedRouter
from node.libp2p.muxer import as_yamux
from node.limits import TokenBucket

LONG = 60_000


@dataclass
class Fight:
    """A victim and a bad member that are connected."""

    victim: Member
    bad: Member
    stream: INetStream
    said: int = 0

    @property
    def pubsub(self) -> GuardedPubsub:
        return self.victim.network._life.pubsub

    @property
    def router(self) -> GuardedRouter:
        return self.pubsub._router

    @property
    def bad_id(self) -> ID:
        return self.bad.network._members.own_id

    async def say(self, rpc: rpc_pb2.RPC) -> None:
        await self.stream.write(encode_varint_prefixed(rpc.SerializeToString()))

    async def all_is_heard(self) -> None:
        """Wait until the victim has taken everything in: a last message says so."""
        self.said += 1
        word = b"last word %d" % self.said
        await self.say(rpc_pb2.RPC(publish=[signed(b"\x02" * 32, word, number=self.said)]))
        await until(lambda: (1, word) in self.victim.service.gossip, s=5)

    async def treat(self, handler: Callable[[INetStream], Awaitable[None]]) -> None:
        """Let the bad member handle the victim's gossip streams so from now on."""
        self.bad.network._life.pubsub.host.set_stream_handler(PROTOCOL_ID_V11, handler)
        for connection in self.bad.network._life.connections.open(0):
            muxed = as_yamux(connection.muxed_conn)
            for stream_id, stream in list(muxed._streams.items()):
                if not muxed.is_ours(stream_id):
                    stream.abandon()
        self.pubsub._handle_dead_peer(self.bad_id)

    async def registered(self) -> None:
        await until(lambda: self.bad_id in self.pubsub.peer_queues, s=3)

    def streams(self) -> int:
        """How many streams to the bad member the victim has open."""
        muxed = as_yamux(self.victim.network._life.connections.open(1)[0].muxed_conn)
        return sum(muxed.is_ours(stream_id) for stream_id in muxed._streams)

    def fill_cache(self, count: int) -> list[bytes]:
        """Put messages of others into the victim's cache. Returns their ids."""
        for number in range(count):
            self.router.mcache.put(
                rpc_pb2.Message(
                    from_id=bytes(38),
                    seqno=number.to_bytes(8, "big"),
                    data=bytes(LONG),
                    topicIDs=[TOPIC],
                )
            )
        return [bytes(38) + number.to_bytes(8, "big") for number in range(count)]


@asynccontextmanager
async def fight(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fight]:
    monkeypatch.setattr(network_module, "REPAIR_S", 0.1)
    async with running_swarm("libp2p", 2) as (victim, bad):
        host, victim_id = bad.network._life.pubsub.host, victim.network._members.own_id
        fought = Fight(victim, bad, await host.new_stream(victim_id, [PROTOCOL_ID_V11]))
        await fought.registered()
        await until(lambda: fought.bad_id in fought.pubsub.peer_topics.get(TOPIC, ()), s=3)
        await trio.sleep(0.3)  # until the newcomer was offered what there is
        yield fought


async def never_reads(_: INetStream) -> None:
    await trio.sleep_forever()


async def test_what_a_peer_missed_is_sent_once_and_within_its_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with fight(monkeypatch) as fought:
        ids = fought.fill_cache(40)
        before = fought.victim.network.traffic().bytes_sent

        async def sent_for(wanted: list[bytes]) -> int:
            start = fought.victim.network.traffic().bytes_sent
            rpc = rpc_pb2.RPC()
            rpc.control.iwant.add(messageIDs=wanted)
            await fought.say(rpc)
            await fought.all_is_heard()
            await until(lambda: not fought.pubsub.peer_queues[fought.bad_id], s=3)
            await trio.sleep(0.2)
            return fought.victim.network.traffic().bytes_sent - start

        assert await sent_for([ids[0]] * CONTROL_IDS_MAX) == LONG
        assert await sent_for([b"\xff" * 46, *ids]) > ANSWER_BYTES_MAX // 2
        assert await sent_for(ids) <= ANSWER_BYTES_MAX // 2
        assert fought.victim.network.traffic().bytes_sent - before < 2 * ANSWER_BYTES_MAX


async def test_invented_topics_and_recommended_peers_leave_no_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with fight(monkeypatch) as fought:
        store = fought.pubsub.host.get_peerstore()
        known = set(store.peer_ids())
        rpc = rpc_pb2.RPC()
        for number in range(2000):
            name = f"topic {number}"
            rpc.control.graft.add(topicID=name)
            rpc.control.prune.add(topicID=name)
            rpc.control.ihave.add(topicID=name, messageIDs=[b"%d" % number])
        await fought.say(rpc)
        await fought.say(rpc_pb2.RPC(control={"prune": [prune_that_recommends(8)]}))
        await fought.say(long_names(fought.bad_id))
        await fought.all_is_heard()
        router = fought.router
        assert set(router.back_off) == {TOPIC}, "the one PRUNE of ours counts"
        assert set(router.graft_flood_tracking[fought.bad_id]) == {TOPIC}
        assert set(router.ihave_message_limits[fought.bad_id]) <= {TOPIC}
        assert set(router.time_since_last_publish) <= {TOPIC}
        assert max(map(len, fought.pubsub.seen_messages.cache)) < 100
        assert set(store.peer_ids()) == known


def prune_that_recommends(count: int) -> rpc_pb2.ControlPrune:
    prune = rpc_pb2.ControlPrune(topicID=TOPIC)
    for _ in range(count):
        keys = create_new_key_pair(os.urandom(32))
        peer_id = ID.from_pubkey(keys.public_key)
        record = PeerRecord(peer_id, [Multiaddr("/ip4/127.0.0.1/tcp/9")], seq=1)
        sealed = seal_record(record, keys.private_key).marshal_envelope()
        prune.peers.add(peerID=peer_id.to_bytes(), signedPeerRecord=sealed)
    return prune


def long_names(author: ID) -> rpc_pb2.RPC:
    """A message with many topics, and one with a long number, both well signed."""
    keys = create_new_key_pair(b"\x02" * 32)
    rpc = rpc_pb2.RPC()
    for topics, number in (([TOPIC, "x", "y"], bytes(8)), ([TOPIC], bytes(100_000))):
        message = rpc_pb2.Message(
            data=b"long", topicIDs=topics, from_id=author.to_bytes(), seqno=number
        )
        message.signature = keys.private_key.sign(b"libp2p-pubsub:" + message.SerializeToString())
        message.key = keys.public_key.serialize()
        rpc.publish.append(message)
    return rpc


async def test_a_stream_that_stalls_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fight(monkeypatch) as fought:
        monkeypatch.setattr(stream_module, "STALL_S", 0.1)
        await fought.treat(never_reads)
        await fought.registered()
        tasks = count_tasks()
        for _ in range(4):
            await fought.registered()
            queue = fought.pubsub.peer_queues[fought.bad_id]
            for _ in range(3):  # more than a stream has room for
                queue.push(rpc_pb2.RPC(publish=[rpc_pb2.Message(data=bytes(LONG))] * 14))
            await until(lambda q=queue: q.closed, s=3)
        await fought.registered()
        assert fought.streams() <= 1
        assert count_tasks() <= tasks + 5


async def test_a_peer_that_resets_our_streams_gets_one_in_each_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with fight(monkeypatch) as fought:
        opened = 0

        async def resets(stream: INetStream) -> None:
            nonlocal opened
            await stream.read(1)
            opened += 1
            await stream.reset()

        await fought.treat(resets)
        tasks = count_tasks()
        for _ in range(100):
            if (queue := fought.pubsub.peer_queues.get(fought.bad_id)) is not None:
                queue.push(rpc_pb2.RPC(publish=[rpc_pb2.Message(data=b"hello")]))
            await trio.sleep(0.01)
        assert 2 <= opened <= 1 / 0.1 + 2
        assert count_tasks() <= tasks + 5


async def test_subscribing_again_and_again_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fight(monkeypatch) as fought:
        await fought.treat(never_reads)
        await fought.registered()
        fought.fill_cache(8)
        tasks = count_tasks()
        off = rpc_pb2.RPC.SubOpts(subscribe=False, topicid=TOPIC)
        on = rpc_pb2.RPC.SubOpts(subscribe=True, topicid=TOPIC)
        await fought.say(rpc_pb2.RPC(subscriptions=[off, on] * 300))
        for _ in range(150):
            await fought.say(rpc_pb2.RPC(subscriptions=[off]))
            await fought.say(rpc_pb2.RPC(subscriptions=[on]))
        await fought.all_is_heard()
        assert count_tasks() <= tasks + 5
        assert fought.bad_id in fought.pubsub.peer_topics[TOPIC]
        await fought.say(rpc_pb2.RPC(subscriptions=[{"subscribe": False, "topicid": "x"}]))
        await fought.all_is_heard()
        assert fought.bad_id in fought.pubsub._listeners


async def test_a_message_keeps_nothing_of_what_came_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with fight(monkeypatch) as fought:
        ours = signed(b"\x02" * 32, b"ours", number=1)
        came = rpc_pb2.RPC(publish=[ours, rpc_pb2.Message(data=bytes(900_000))])
        with monkeypatch.context() as parsed:
            there = SimpleNamespace(FromString=lambda _: came)
            replaced = SimpleNamespace(RPC=there, Message=rpc_pb2.Message)
            parsed.setattr("node.libp2p.gossip.rpc_pb2", replaced)
            (message,) = await fought.pubsub._hear(fought.bad_id, b"")
        came.publish[0].data = b"a part of it would change with it"
        assert message == ours


async def test_a_peer_that_libp2p_has_forgotten_hears_gossip_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with fight(monkeypatch) as fought:
        fought.pubsub._handle_dead_peer(fought.bad_id)  # which says no second time that it listens
        assert fought.bad_id not in fought.pubsub.peer_topics.get(TOPIC, ())
        await until(lambda: fought.bad_id in fought.pubsub.peer_topics.get(TOPIC, ()), s=3)
        await fought.victim.network.broadcast(b"again")
        await until(lambda: (0, b"again") in fought.bad.service.gossip, s=3)


async def test_what_was_said_while_a_member_was_away_is_offered_when_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with fight(monkeypatch) as fought:
        await fought.bad.stop()
        await until(lambda: not fought.victim.network.connected())
        await fought.victim.network.broadcast(b"missed")
        await fought.bad.start()
        await until(lambda: (0, b"missed") in fought.bad.service.gossip, s=3)


async def test_a_peer_speaks_on_two_streams_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fight(monkeypatch) as fought:
        host, victim_id = (
            fought.bad.network._life.pubsub.host,
            fought.victim.network._members.own_id,
        )
        begun = encode_varint_prefixed(bytes(900_000))[:100_000]  # and never ended
        for _ in range(6):
            stream = await host.new_stream(victim_id, [PROTOCOL_ID_V11])
            await stream.write(begun)
        muxed = as_yamux(fought.victim.network._life.connections.open(1)[0].muxed_conn)
        await until(
            lambda: sum(not muxed.is_ours(one) for one in muxed._streams) <= _STREAMS_MAX, s=3
        )


async def test_who_owes_for_its_gossip_makes_nobody_hold_more_by_opening_streams(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with fight(monkeypatch) as fought:
        host, victim_id = (
            fought.bad.network._life.pubsub.host,
            fought.victim.network._members.own_id,
        )
        monkeypatch.setattr(fought.pubsub._admission, "pause_s", lambda *_: 60.0)
        await fought.stream.reset()
        tasks = count_tasks()
        for _ in range(10):
            stream = await host.new_stream(victim_id, [PROTOCOL_ID_V11])
            await stream.write(encode_varint_prefixed(bytes(100_000)))
        muxed = as_yamux(fought.victim.network._life.connections.open(1)[0].muxed_conn)
        await until(lambda: muxed._unread_bytes > 100_000, s=3)
        await trio.sleep(0.2)
        assert muxed._unread_bytes < (_STREAMS_MAX + 1) * 100_000
        assert count_tasks() <= tasks + _STREAMS_MAX + 1, "one sleeps for each stream"


async def test_gossip_is_read_at_a_bounded_rate_whatever_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with fight(monkeypatch) as fought:
        admission = fought.pubsub._admission
        with monkeypatch.context() as owing:
            owing.setattr(admission, "pause_s", lambda *_: 0.3)
            await fought.all_is_heard()  # the next one waits
            started_s = trio.current_time()
            await fought.all_is_heard()
            assert trio.current_time() - started_s >= 0.2, "nobody waits"
        admission.was_read(fought.bad_id, VOLUME_BURST_BYTES // 2)
        assert admission.pause_s(fought.bad_id) == 0
        owed = 5 * VOLUME_BURST_BYTES
        admission.was_read(fought.bad_id, owed)
        due_s = (owed - VOLUME_BURST_BYTES / 2) / VOLUME_BYTES_PER_S
        assert admission.pause_s(fought.bad_id) == pytest.approx(due_s, rel=0.05)


async def test_a_peer_that_says_more_than_its_share_is_not_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with fight(monkeypatch) as fought:
        share = TokenBucket(rate_per_s=0.01, burst=5)
        monkeypatch.setitem(fought.pubsub._admission._limits, fought.bad.index, share)
        for number in range(10):
            message = signed(b"\x02" * 32, b"%d" % number, number=number)
            await fought.say(rpc_pb2.RPC(publish=[message]))
        heard = fought.victim.service.gossip
        await until(lambda: len(heard) >= 5, s=2)
        await trio.sleep(0.2)
        assert heard == [(1, b"%d" % number) for number in range(5)]


async def test_thousands_of_tiny_messages_in_one_do_not_hold_up_the_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with fight(monkeypatch) as fought:
        tiny = rpc_pb2.Message(data=b"x", topicIDs=[TOPIC], from_id=bytes(38), seqno=bytes(8))
        await fought.say(rpc_pb2.RPC(publish=[tiny] * 3000))
        started_s = trio.current_time()
        await trio.sleep(0.2)
        assert trio.current_time() - started_s < 1
