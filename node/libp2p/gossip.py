"""Gossip that no message can stop: GossipSub 1.1 with our limits, our queue and our memory."""

import secrets
from collections.abc import Sequence
from typing import Final, final

import trio
from libp2p.abc import IHost, INetStream
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub

from node.libp2p.members import Members
from node.libp2p.muxer import as_yamux
from node.libp2p.quiet import LIBP2P_LOG
from node.libp2p.traffic import Meter
from node.limits import TokenBucket
from node.network import GOSSIP_BYTES_MAX
from node.serving import GossipInbox

REPAIR_S: Final = 1.0
_RPC_BYTES_MAX: Final = 1024 * 1024  # of gossip, several messages
_RATE_PER_S: Final = 100.0
_BURST: Final = 1000.0


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

    def admits(self, forwarder: ID, message: bytes) -> bool:
        """Count a copy that came in, and bound how many one peer may bring."""
        if forwarder == self._members.own_id:
            return True
        peer = self._members.known_index(forwarder)
        self._meter.received(len(message))
        return self._limits[peer].take(now_s=trio.current_time())

    async def is_valid(self, _forwarder: ID, message: rpc_pb2.Message) -> bool:
        """Decide what is forwarded and delivered; its signature was checked before."""
        author = message.from_id
        if self._members.index(author) is None and author != self._members.own_id.to_bytes():
            return False
        return 0 < len(message.data) <= GOSSIP_BYTES_MAX

    def deliver(self, author_id: bytes, message: bytes) -> None:
        """Hand over a message that passed."""
        if (author := self._members.index(author_id)) is not None:
            self._inbox.put(author, message)

    def sent(self, rpc_msg: rpc_pb2.RPC) -> None:
        """Count what was written to a peer."""
        self._meter.sent(sum(len(message.data) for message in rpc_msg.publish))


@final
class GuardedRouter(GossipSub):
    """GossipSub whose heartbeat survives its own mistakes."""

    def __init__(self) -> None:
        super().__init__(
            protocols=[PROTOCOL_ID_V11],
            degree=8,
            degree_low=6,
            degree_high=12,
            heartbeat_interval=1,
            # Adaptive mode slows the heartbeat to 30 s and more; the other two drop by message
            # rate and by shared IP address, which fits no hospital behind one gateway.
            adaptive_gossip_enabled=False,
            spam_protection_enabled=False,
            eclipse_protection_enabled=False,
        )
        self.scorer = None

    async def heartbeat(self) -> None:
        """Beat; begin again after an exception."""
        while True:
            try:
                await super().heartbeat()
            except Exception as error:  # noqa: BLE001 - it would end gossip for good
                LIBP2P_LOG.warning("gossip heartbeat: %r", error)
                await trio.sleep(self.heartbeat_interval)

    async def publish(self, msg_forwarder: ID, pubsub_msg: rpc_pb2.Message) -> None:
        """Send on, and empty the list of delivery times that only adaptive mode would empty."""
        await super().publish(msg_forwarder, pubsub_msg)
        self.recent_message_deliveries.clear()


@final
class GuardedPubsub(Pubsub):
    """Pubsub that no message can stop, with our limits and our queue in place of its own."""

    def __init__(self, host: IHost, topic: str, admission: Admission) -> None:
        super().__init__(
            host,
            GuardedRouter(),
            strict_signing=True,
            max_inbound_rpc_size=_RPC_BYTES_MAX,
            allowed_topics={topic},
        )
        # The stock counter starts at the second of the start: after a quick restart the first
        # messages would carry used numbers and be dropped as copies.
        self.counter = secrets.randbits(62)
        self._admission = admission
        self._listeners: dict[ID, rpc_pb2.RPC.SubOpts] = {}
        self._without_stream: set[ID] = set()
        self.set_topic_validator(topic, admission.is_valid, is_async_validator=True)

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
        """Note who listens to a topic, in a memory of our own too."""
        super().handle_subscription(origin_id, sub_message)
        if sub_message.subscribe:
            self._listeners[origin_id] = sub_message
        else:
            self._listeners.pop(origin_id, None)

    async def repair(self, connected: Sequence[ID]) -> None:
        """Put right what libp2p forgets when one of two connections to a peer closes.

        It keeps the closed stream until a message is lost on it; then forgets that the peer
        listens, which the peer, whose own stream still stands, will not say again; and gives up
        on a peer whose first stream fails.
        """
        for peer_id in connected:
            stream, told = self.peers.get(peer_id), self._listeners.get(peer_id)
            if stream is None:
                if peer_id in self._without_stream:
                    await self.ensure_peer_stream(peer_id, timeout=REPAIR_S)
            elif as_yamux(stream.muxed_conn).is_closed:
                self._handle_dead_peer(peer_id)
            elif told is not None and peer_id not in self.peer_topics.get(told.topicid, ()):
                self.handle_subscription(peer_id, told)
        self._without_stream = {peer_id for peer_id in connected if peer_id not in self.peers}
        for peer_id in self._listeners.keys() - set(connected):
            del self._listeners[peer_id]

    async def write_msg(self, stream: INetStream, rpc_msg: rpc_pb2.RPC) -> bool:
        """Write to a peer, and count."""
        written = await super().write_msg(stream, rpc_msg)
        if written:
            self._admission.sent(rpc_msg)
        return written
