"""Gossip that no message can stop: GossipSub 1.1 with our limits, our queue and our memory."""

import secrets
from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from typing import Final, final
from weakref import WeakSet

import trio
import trio.lowlevel
from libp2p.abc import IHost, INetStream
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.rpc_queue import RpcQueue
from libp2p.utils.varint import read_varint_prefixed_bytes_limited

from node.libp2p.gossip_router import GuardedRouter
from node.libp2p.members import Members
from node.libp2p.muxer import as_yamux
from node.libp2p.quiet import LIBP2P_LOG
from node.libp2p.reasons import short
from node.libp2p.traffic import Meter
from node.limits import ByteMeter, TokenBucket
from node.network import GOSSIP_BYTES_MAX
from node.serving import GossipInbox

REPAIR_S: Final = 1.0
_RPC_BYTES_MAX: Final = 1024 * 1024  # of gossip, several messages
_STREAMS_MAX: Final = 2  # that one peer speaks on
_PARTS_MAX: Final = 4096  # of each kind in one RPC; so many of the shortest messages fill it
_ENVELOPE_BYTES_MAX: Final = 1024  # of a message beyond its data: names, number, signature
_NUMBER_BYTES: Final = 8  # of an author's number for a message
_RATE_PER_S: Final = 100.0
_BURST: Final = 1000.0
VOLUME_BYTES_PER_S: Final = 4 * 1024 * 1024
"""What is read of one peer's gossip in the long run, whatever it is: a MiB may take 50 ms to parse."""
VOLUME_BURST_BYTES: Final = 8 * 1024 * 1024


@final
class Admission:
    """What of the gossip that comes in is taken, forwarded and delivered."""

    def __init__(self, members: Members, meter: Meter, inbox: GossipInbox) -> None:
        self._members = members
        self._meter = meter
        self._inbox = inbox
        self._limits = {
            index: TokenBucket(rate_per_s=_RATE_PER_S, burst=_BURST) for index in members.peers
        }
        self._volumes = {
            index: ByteMeter(bytes_per_s=VOLUME_BYTES_PER_S, burst=VOLUME_BURST_BYTES)
            for index in members.peers
        }

    def admits(self, forwarder: ID, message: bytes) -> bool:
        """Count a copy that came in, and bound how many one peer may bring."""
        if forwarder == self._members.own_id:
            return True
        self._meter.received(len(message))
        return self.admits_word(forwarder)

    def admits_word(self, peer_id: ID) -> bool:
        """Bound how often a peer is listened to, whatever it says."""
        peer = self._members.known_index(peer_id)
        return self._limits[peer].take(now_s=trio.current_time())

    def pause_s(self, peer_id: ID) -> float:
        """Return how long nothing more is read of a peer."""
        volume = self._volumes[self._members.known_index(peer_id)]
        return volume.wait_s(now_s=trio.current_time())

    def was_read(self, peer_id: ID, count: int) -> None:
        """Count bytes that a peer sent."""
        volume = self._volumes[self._members.known_index(peer_id)]
        volume.charge(count, now_s=trio.current_time())

    def knows(self, author_id: bytes) -> bool:
        """Whether another member is named as the author; only the signature shows that it is."""
        return self._members.index(author_id) is not None

    async def is_valid(self, _forwarder: ID, message: rpc_pb2.Message) -> bool:
        """Decide what is forwarded and delivered; author and signature were checked before."""
        return 0 < len(message.data) <= GOSSIP_BYTES_MAX

    def deliver(self, author_id: bytes, message: bytes) -> None:
        """Hand over a message that passed."""
        if (author := self._members.index(author_id)) is not None:
            self._inbox.put(author, message)

    def sent(self, rpc_msg: rpc_pb2.RPC) -> None:
        """Count what was written to a peer."""
        self._meter.sent(sum(len(message.data) for message in rpc_msg.publish))


@final
class GuardedPubsub(Pubsub):
    """Pubsub that no message can stop, with our limits and our queue in place of its own."""

    def __init__(self, host: IHost, topic: str, admission: Admission) -> None:
        self._router = GuardedRouter(topic, admission.admits_word)
        super().__init__(host, self._router, strict_signing=True, allowed_topics={topic})
        # The stock counter starts at the second of the start: after a quick restart the first
        # messages would carry used numbers and be dropped as copies.
        self.counter = secrets.randbits(62)
        self._topic = topic
        self._admission = admission
        self._listeners: set[ID] = set()
        self._opening: set[ID] = set()
        self._heard_on: defaultdict[ID, list[trio.CancelScope]] = defaultdict(list)
        self._openings: trio.Nursery
        self._offered: WeakSet[INetStream] = WeakSet()
        self.set_topic_validator(topic, admission.is_valid, is_async_validator=True)

    # ---- what comes in

    async def continuously_read_stream(self, stream: INetStream) -> None:
        """Hear a peer out, one thing after the other; reset its stream at the end.

        The stock loop starts a task for each message, looks for the task's parent among all of
        them, and takes an error here for the death of our own stream to the peer. A peer has one stream,
        and for a moment a second one: on each a MiB could wait for its end.
        """
        heard_on, scope = self._heard_on[stream.muxed_conn.peer_id], trio.CancelScope()
        heard_on.append(scope)
        if len(heard_on) > _STREAMS_MAX:
            heard_on.pop(0).cancel()
        with scope:
            await self._hear_out(stream)
        if scope in heard_on:
            heard_on.remove(scope)
        await stream.reset()

    async def _hear_out(self, stream: INetStream) -> None:
        """Read until the stream ends. What a peer may not say yet waits in its stream, counted there."""
        peer_id = stream.muxed_conn.peer_id
        try:
            while True:
                await trio.sleep(self._admission.pause_s(peer_id))
                said = await read_varint_prefixed_bytes_limited(stream, _RPC_BYTES_MAX)
                self._admission.was_read(peer_id, len(said))
                for message in await self._hear(peer_id, said):
                    await self.push_msg(peer_id, message)
                    await trio.lowlevel.checkpoint()  # others' turn: many may come in one
        except Exception as error:  # noqa: BLE001 - random bytes raise all kinds of errors
            LIBP2P_LOG.debug("gossip stream of %s ended: %s", peer_id, short(error))

    async def _hear(self, peer_id: ID, said: bytes) -> list[rpc_pb2.Message]:
        """Act on what a peer says of itself; return the messages that it brings.

        They are copies: a part keeps all of its RPC in memory, and empty parts, of which a MiB
        holds half a million, take a hundred times what was sent.
        """
        rpc = rpc_pb2.RPC.FromString(said)
        told = [sub for sub in islice(rpc.subscriptions, _PARTS_MAX) if sub.topicid == self._topic]
        if told and self._admission.admits_word(peer_id):
            self.handle_subscription(peer_id, told[-1])
        if rpc.HasField("control"):
            await self._router.handle_rpc(rpc, peer_id)
        return [_copy(part) for part in islice(rpc.publish, _PARTS_MAX) if self._is_ours(part)]

    def _is_ours(self, message: rpc_pb2.Message) -> bool:
        """Whether a message has our topic alone, a member for its author, and a number of its length.

        libp2p keeps these longer than the message: in what was seen, and for each topic. An
        author's name may hold a key, which it would parse.
        """
        return (
            len(message.topicIDs) == 1
            and message.topicIDs[0] == self._topic
            and self._admission.knows(message.from_id)
            and len(message.seqno) == _NUMBER_BYTES
            and message.ByteSize() <= GOSSIP_BYTES_MAX + _ENVELOPE_BYTES_MAX
        )

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        """Take a message from ourselves or a peer; drop it if anything is wrong."""
        try:
            if self._admission.admits(msg_forwarder, msg.data):
                await super().push_msg(msg_forwarder, msg)
        except Exception as error:  # noqa: BLE001 - forged fields raise all kinds of errors
            LIBP2P_LOG.warning("dropped a message: %r", error)

    def notify_subscriptions(self, publish_message: rpc_pb2.Message) -> None:
        """Hand over a checked message (the stock queue holds 32 and drops silently)."""
        self._admission.deliver(publish_message.from_id, publish_message.data)

    def handle_subscription(self, origin_id: ID, sub_message: rpc_pb2.RPC.SubOpts) -> None:
        """Note who listens to our topic, in a memory of our own too."""
        if sub_message.topicid != self._topic:
            return
        super().handle_subscription(origin_id, sub_message)
        if sub_message.subscribe:
            self._listeners.add(origin_id)
        else:
            self._listeners.discard(origin_id)

    async def _replay_recent_messages(self, peer_id: ID, topic: str) -> None:
        """Send nothing to who begins to listen: the stock replay comes with every subscription.

        Each holds a message while it waits. Repair offers what is recent, and sync brings the rest.
        """

    # ---- our streams to the others

    async def run(self) -> None:
        """Serve, and open streams beside libp2p's own tasks, which wait for those that they start."""
        async with trio.open_nursery() as self._openings:
            await super().run()

    async def repair(self, connected: Sequence[ID]) -> None:
        """Open a stream to whoever has none, and put right what libp2p forgets.

        When one of two connections to a peer closes, it keeps the closed stream until a message is
        lost on it; then forgets that the peer listens, which the peer, whose own stream still
        stands, will not say again. Nothing else opens streams: a peer that resets them costs one
        in each round.
        """
        for peer_id in connected:
            stream = self.peers.get(peer_id)
            if stream is not None and as_yamux(stream.muxed_conn).is_closed:
                self._handle_dead_peer(peer_id)
                stream = None
            if stream is None:
                self._open(peer_id)
            elif peer_id in self._listeners:
                if peer_id not in self.peer_topics.get(self._topic, ()):
                    self._listens(peer_id)
                if stream not in self._offered:
                    self._offered.add(stream)
                    await self._router.offer(peer_id)
        self._listeners &= set(connected)

    def _listens(self, peer_id: ID) -> None:
        told = rpc_pb2.RPC.SubOpts(subscribe=True, topicid=self._topic)
        self.handle_subscription(peer_id, told)

    def _open(self, peer_id: ID) -> None:
        """Open a stream, in a task: a peer that does not answer must not hold up the others."""
        if peer_id not in self._opening:
            self._opening.add(peer_id)
            self._openings.start_soon(self._try_to_open, peer_id)

    async def _try_to_open(self, peer_id: ID) -> None:
        try:
            await self.ensure_peer_stream(peer_id, timeout=0)
        finally:
            self._opening.discard(peer_id)

    def _schedule_peer_stream_retry(self, peer_id: ID) -> None:
        """Leave it to repair: at once would be as often as the peer likes."""

    async def handle_sending_messages(
        self, peer_id: ID, stream: INetStream, queue: RpcQueue
    ) -> None:
        """Send what is queued; then reset the stream, or it would keep what has not left."""
        await super().handle_sending_messages(peer_id, stream, queue)
        await stream.reset()

    async def write_msg(self, stream: INetStream, rpc_msg: rpc_pb2.RPC) -> bool:
        """Write to a peer, and count."""
        written = await super().write_msg(stream, rpc_msg)
        if written:
            self._admission.sent(rpc_msg)
        return written


def _copy(message: rpc_pb2.Message) -> rpc_pb2.Message:
    copy = rpc_pb2.Message()
    copy.CopyFrom(message)
    return copy
