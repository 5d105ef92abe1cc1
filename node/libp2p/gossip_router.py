"""GossipSub 1.1 for one topic: what a peer's control messages may make us keep, say and send."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain, islice
from typing import Final, final

import trio
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.utils import safe_bytes_from_hex

from node.libp2p.quiet import LIBP2P_LOG
from node.limits import ByteMeter

CONTROL_ENTRIES_MAX: Final = 64
"""How many entries of each kind are looked at in one control message."""
CONTROL_IDS_MAX: Final = 1024
"""How many message ids one control message may name, of those that are offered and of those wanted."""
ANSWER_BYTES_MAX: Final = 1024 * 1024
"""What a peer gets at once of the messages that it says it missed; sync brings the rest."""
ANSWER_BYTES_PER_S: Final = 256 * 1024
"""What it gets of them in the long run."""
_ID_BYTES_MAX: Final = 128  # peer id and number, 46 bytes; old peers say them in hex


@final
class GuardedRouter(GossipSub):
    """GossipSub whose heartbeat survives its own mistakes, and which knows one topic."""

    def __init__(self, topic: str, admits_word: Callable[[ID], bool]) -> None:
        """admits_word: whether a peer may say one more thing now."""
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
        self._topic = topic
        self._admits_word = admits_word
        self._answered: defaultdict[ID, ByteMeter] = defaultdict(
            partial(ByteMeter, bytes_per_s=ANSWER_BYTES_PER_S, burst=ANSWER_BYTES_MAX)
        )

    async def heartbeat(self) -> None:
        """Beat; begin again after an exception."""
        while True:
            try:
                await super().heartbeat()
            except Exception as error:  # noqa: BLE001 - it would end gossip for good
                LIBP2P_LOG.warning("gossip heartbeat: %r", error)
                await trio.sleep(self.heartbeat_interval)

    async def publish(self, msg_forwarder: ID, pubsub_msg: rpc_pb2.Message) -> None:
        """Send on, and empty what would keep messages."""
        await super().publish(msg_forwarder, pubsub_msg)
        self.recent_message_deliveries.clear()  # only adaptive mode would empty it
        self.equivocation_detection.clear()  # what was seen is dropped before
        # Sent whole to each who subscribes, as often as he does; see offer().
        self._pending_messages.clear()

    async def offer(self, peer_id: ID) -> None:
        """Tell a peer that has just come what it may have missed: names only, it asks for the rest."""
        if recent := self.mcache.window(self._topic):
            await self.emit_ihave(self._topic, recent[:CONTROL_IDS_MAX], peer_id)

    async def handle_rpc(self, rpc: rpc_pb2.RPC, sender_peer_id: ID) -> None:
        """Take what a peer's control message says about our topic; the rest leaves no trace."""
        if self._admits_word(sender_peer_id):
            control = self._about_us(rpc.control)
            await super().handle_rpc(rpc_pb2.RPC(control=control), sender_peer_id)

    async def handle_iwant(self, iwant_msg: rpc_pb2.ControlIWant, sender_peer_id: ID) -> None:
        """Send what a peer missed, each message once, up to its share."""
        wanted = dict.fromkeys(map(safe_bytes_from_hex, iwant_msg.messageIDs))
        meter, now_s = self._answered[sender_peer_id], trio.current_time()
        answer = rpc_pb2.RPC()
        for message_id in wanted:
            message = None if message_id is None else self.mcache.get(message_id)
            if message is None:
                continue
            if meter.wait_s(now_s=now_s):
                break
            meter.charge(message.ByteSize(), now_s=now_s)
            answer.publish.append(message)
        if answer.publish:
            self.send_rpc(sender_peer_id, answer)

    def _about_us(self, control: rpc_pb2.ControlMessage) -> rpc_pb2.ControlMessage:
        """Return what is said about our topic, each kind once, without peers to exchange.

        For each topic that a peer names the stock handlers keep an entry for good, and they dial
        whomever it recommends; an honest peer may repeat an entry for our topic.
        """
        first = CONTROL_ENTRIES_MAX
        about_us = rpc_pb2.ControlMessage()
        if any(graft.topicID == self._topic for graft in islice(control.graft, first)):
            about_us.graft.add(topicID=self._topic)
        for prune in islice(control.prune, first):
            if prune.topicID == self._topic:
                about_us.prune.add(topicID=self._topic, backoff=prune.backoff)
                break
        offers = (
            ihave.messageIDs
            for ihave in islice(control.ihave, first)
            if ihave.topicID == self._topic
        )
        if offered := _bounded(offers):
            about_us.ihave.add(topicID=self._topic, messageIDs=offered)
        if wanted := _bounded(iwant.messageIDs for iwant in islice(control.iwant, first)):
            about_us.iwant.add(messageIDs=wanted)
        return about_us


def _bounded(ids: Iterable[Iterable[bytes]]) -> list[bytes]:
    named = islice(chain.from_iterable(ids), CONTROL_IDS_MAX)
    return [message_id for message_id in named if len(message_id) <= _ID_BYTES_MAX]
