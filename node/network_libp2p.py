"""The network between hospitals: libp2p over TCP, noise and yamux. The only file that knows it.

Law 3. What is wrapped and why: docs/adr/0003. In short: nobody off the roster gets past the
handshake, no exception of a handler or a peer reaches libp2p's own task groups, no write is
cancelled half-way, silent peers are dropped and lost ones redialled forever.
"""

import logging
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, final
from weakref import WeakKeyDictionary

import trio
from libp2p.abc import (
    IHost,
    IMuxedConn,
    INetConn,
    INetStream,
    INetwork,
    INotifee,
    IPubsubRouter,
    IRawConnection,
)
from libp2p.crypto.ed25519 import Ed25519PublicKey
from libp2p.crypto.ed25519 import create_new_key_pair as ed25519_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as x25519_key_pair
from libp2p.custom_types import StreamHandlerFn, TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.host.basic_host import BasicHost
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig
from libp2p.network.connection import swarm_connection
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.stream.net_stream import NetStream
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.security.exceptions import HandshakeFailure
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.secure_session import SecureSession
from libp2p.security.security_multistream import SecurityMultistream
from libp2p.stream_muxer.yamux import yamux
from libp2p.stream_muxer.yamux.yamux import DEFAULT_WINDOW_SIZE, Yamux, YamuxStream
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.tools.anyio_service import background_trio_service
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from ledger.errors import ConfigError, PeerError, UnavailableError
from node.addresses import Address, check_listen, connect, parse_address
from node.framing import (
    REPLY_HEADER_BYTES,
    REQUEST_HEADER_BYTES,
    Status,
    error_text,
    raise_for_status,
    read_reply,
    read_request,
    reply_frame,
    request_frame,
)
from node.limits import TokenBucket
from node.links import Link, Timing, keep_dialling, watch_heartbeat
from node.network import (
    GOSSIP_BYTES_MAX,
    RECORDS_PROTOCOL,
    REQUEST_BYTES_MAX,
    REQUEST_PROTOCOLS,
    SERVING_MAX,
    SYNC_PROTOCOL,
    TASK_STATUS_IGNORED,
    EventLog,
    Handlers,
    OtherFederationError,
    Peer,
    TaskStatus,
    Traffic,
    check_gossip,
    check_request,
)
from node.serving import GossipInbox, RequestDesk

_PING: Final = "/swarm/ping/1"
_ASKING_MAX: Final = SERVING_MAX // 2  # requests to one peer at once; the others queue
_STREAMS_MAX: Final = 64  # streams that one peer has open with us, whatever for
_HANDSHAKES_MAX: Final = 128  # inbound connections that have not shown who they are
_UNREAD_BYTES_MAX: Final = 32 * 1024 * 1024  # per connection; a peer that ignores windows
_RPC_BYTES_MAX: Final = 1024 * 1024  # of gossip, several messages
_GOSSIP_RATE_PER_S: Final = 100.0
_GOSSIP_BURST: Final = 1000.0
_WRITE_S: Final = 30.0  # one write to a socket; then the connection is closed
_OPEN_S: Final = 10.0  # opening one stream; then the connection is closed
_SERVE_S: Final = 60.0  # reading one request, writing one reply
_NEGOTIATION_BYTES: Final = 1024  # of a stream's window that its opening may have used
_CLEANUP_S: Final = 2.0
_SIMULTANEOUS_S: Final = 3.0  # two connections so close in age crossed each other
_REPAIR_S: Final = 1.0
_FAREWELL_S: Final = 0.1
_NOWHERE: Final = Multiaddr("/ip4/0.0.0.0/tcp/0")  # for log lines of libp2p only
_LOST: Final = (BaseLibp2pError, OSError, trio.ClosedResourceError, trio.BrokenResourceError)


@final
class _Session(SecureSession):
    """A noise session whose writes end whole or with the connection, never in between."""

    async def write(self, data: bytes) -> None:
        with trio.move_on_after(_WRITE_S) as scope:
            scope.shield = True  # a half-written frame would garble every stream after it
            await super().write(data)
        if scope.cancelled_caught:
            await self.close()
            raise ConnectionClosedError(f"write stalled for {_WRITE_S:g} s")


@final
class _GatedNoise(NoiseTransport):
    """Noise that lets only known peers through, in both directions."""

    def __init__(self, keys: KeyPair, admits: Callable[[ID], bool]) -> None:
        super().__init__(keys, noise_privkey=x25519_key_pair().private_key)
        self._admits = admits

    async def secure_inbound(self, conn: IRawConnection) -> _Session:
        """Shake hands as the called."""
        return await self._gate(await super().secure_inbound(conn))

    async def secure_outbound(self, conn: IRawConnection, peer_id: ID) -> _Session:
        """Shake hands as the caller."""
        return await self._gate(await super().secure_outbound(conn, peer_id))

    async def _gate(self, session: object) -> _Session:
        if not isinstance(session, SecureSession):
            raise HandshakeFailure("noise gave an unknown kind of session")
        if not self._admits(session.get_remote_peer()):
            await session.close()
            raise HandshakeFailure("not on the roster")
        return _Session(
            local_peer=session.local_peer,
            local_private_key=session.local_private_key,
            remote_peer=session.remote_peer,
            remote_permanent_pubkey=session.remote_permanent_pubkey,
            is_initiator=session.is_initiator,
            conn=session.conn,
        )


@final
class _NoAutoConnector(AutoConnector):
    """We dial; libp2p would dial whatever addresses peers told it."""

    async def maybe_connect(self) -> None:
        """Do nothing."""


@final
class _GuardedRouter(GossipSub):
    """GossipSub whose heartbeat survives its own mistakes."""

    async def heartbeat(self) -> None:
        """Beat; begin again after an exception."""
        while True:
            try:
                await super().heartbeat()
            except Exception as error:  # noqa: BLE001 - it would end gossip for good
                _LIBP2P_LOG.warning("gossip heartbeat: %r", error)
                await trio.sleep(self.heartbeat_interval)

    async def publish(self, msg_forwarder: ID, pubsub_msg: rpc_pb2.Message) -> None:
        """Send on, and empty the list of delivery times that only adaptive mode would empty."""
        await super().publish(msg_forwarder, pubsub_msg)
        self.recent_message_deliveries.clear()


@final
class _GuardedPubsub(Pubsub):
    """Pubsub that no message can stop, with our limits and our queue in place of its own."""

    admit: Callable[[ID, bytes], bool]
    deliver: Callable[[bytes, bytes], None]
    sent: Callable[[int], None]

    def __init__(self, host: IHost, router: IPubsubRouter, topic: str) -> None:
        super().__init__(
            host,
            router,
            strict_signing=True,
            max_inbound_rpc_size=_RPC_BYTES_MAX,
            allowed_topics={topic},
        )
        # The stock counter starts at the second of the start: after a quick restart the first
        # messages would carry used numbers and be dropped as copies.
        self.counter = secrets.randbits(62)
        self.listeners: dict[ID, rpc_pb2.RPC.SubOpts] = {}
        self._without_stream: set[ID] = set()

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        """Take a message from ourselves or a peer; drop it if anything is wrong."""
        try:
            if self.admit(msg_forwarder, msg.data):
                await super().push_msg(msg_forwarder, msg)
        except Exception as error:  # noqa: BLE001 - forged fields raise all kinds of errors
            _LIBP2P_LOG.warning("dropped a message: %r", error)

    def notify_subscriptions(self, publish_message: rpc_pb2.Message) -> None:
        """Hand over a checked message (the stock queue holds 32 and drops silently)."""
        self.deliver(publish_message.from_id, publish_message.data)

    def handle_subscription(self, origin_id: ID, sub_message: rpc_pb2.RPC.SubOpts) -> None:
        """Note who listens to a topic, in a memory of our own too."""
        super().handle_subscription(origin_id, sub_message)
        if sub_message.subscribe:
            self.listeners[origin_id] = sub_message
        else:
            self.listeners.pop(origin_id, None)

    async def repair(self, connected: Sequence[ID]) -> None:
        """Put right what libp2p forgets when one of two connections to a peer closes.

        It keeps the closed stream until a message is lost on it; then forgets that the peer
        listens, which the peer, whose own stream still stands, will not say again; and gives up
        on a peer whose first stream fails.
        """
        for peer_id in connected:
            stream, told = self.peers.get(peer_id), self.listeners.get(peer_id)
            if stream is None:
                if peer_id in self._without_stream:
                    await self.ensure_peer_stream(peer_id, timeout=_REPAIR_S)
            elif _yamux(stream.muxed_conn).is_closed:
                self._handle_dead_peer(peer_id)
            elif told is not None and peer_id not in self.peer_topics.get(told.topicid, ()):
                self.handle_subscription(peer_id, told)
        self._without_stream = {peer_id for peer_id in connected if peer_id not in self.peers}
        for peer_id in self.listeners.keys() - set(connected):
            del self.listeners[peer_id]

    async def write_msg(self, stream: INetStream, rpc_msg: rpc_pb2.RPC) -> bool:
        """Write to a peer, and count."""
        written = await super().write_msg(stream, rpc_msg)
        if written:
            self.sent(sum(len(message.data) for message in rpc_msg.publish))
        return written


@final
class _Watch(INotifee):
    """Tells the network of connections that come and go."""

    def __init__(self, up: Callable[[INetConn], None], down: Callable[[INetConn], None]) -> None:
        self._up = up
        self._down = down

    async def connected(self, network: INetwork, conn: INetConn) -> None:  # noqa: ARG002
        self._up(conn)

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:  # noqa: ARG002
        self._down(conn)

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None: ...
    async def closed_stream(self, network: INetwork, stream: INetStream) -> None: ...
    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None: ...
    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None: ...


@final
class _CreditedSource:
    """Reads a reply for which the peer was given room in advance.

    Stock flow control starts each stream at 256 KiB, sends an update per read, and makes a
    writer without room look again every 10 ms. Credit for the longest allowed reply, sent once,
    avoids all three.
    """

    def __init__(self, stream: YamuxStream) -> None:
        self._stream = stream

    @classmethod
    async def of(cls, stream: INetStream, bytes_max: int) -> "_CreditedSource":
        muxed = stream.muxed_stream if isinstance(stream, NetStream) else None
        if not isinstance(muxed, YamuxStream):
            raise TypeError(f"expected a yamux stream, got {type(muxed).__name__}")
        if (missing := bytes_max - DEFAULT_WINDOW_SIZE + _NEGOTIATION_BYTES) > 0:
            muxed.recv_window += missing
            await muxed.send_window_update(missing)
        return cls(muxed)

    async def read(self, n: int) -> bytes:
        return await self._stream.conn.read_stream(self._stream.stream_id, n)


@dataclass(slots=True)
class _Opening:
    """A stream that is being opened for a requester who may give up meanwhile."""

    done: trio.Event = field(default_factory=trio.Event)
    wanted: bool = True
    stream: INetStream | None = None
    error: Exception | None = None


@final
class Libp2pNetwork:
    """One member's network (node.network.Network)."""

    def __init__(
        self,
        *,
        own_index: int,
        network_seed: bytes,
        listen: Sequence[str],
        peers: Sequence[Peer],
        net: bytes,
        log: EventLog,
        timing: Timing | None = None,
    ) -> None:
        self._own_index = own_index
        self._listen = [parse_address(text) for text in listen]
        self._keys = ed25519_key_pair(network_seed)
        self._own_id = ID.from_pubkey(self._keys.public_key)
        self._topic = f"{RECORDS_PROTOCOL}/{net.hex()}"  # so that two federations never mix
        self._protocols = {
            protocol: TProtocol(f"{protocol}/{net.hex()}")
            for protocol in (*REQUEST_PROTOCOLS, _PING)
        }
        self._log = log
        self._timing = timing or Timing()
        self._peers = {peer.index: peer for peer in peers if peer.index != own_index}
        self._ids = {index: _peer_id(peer.network_key) for index, peer in self._peers.items()}
        self._indices = {peer_id.to_bytes(): index for index, peer_id in self._ids.items()}
        self._addresses = {index: _addresses(peer) for index, peer in self._peers.items()}
        self._check_own_key(peers)
        self._links = {
            index: Link(peer=peer, is_up=partial(self._is_up, index), log=log)
            for index, peer in self._peers.items()
        }
        self._swarm: Swarm | None = None
        self._host: BasicHost | None = None
        self._pubsub: _GuardedPubsub | None = None
        self._nursery: trio.Nursery | None = None
        self._listeners: list[trio.SocketListener] = []
        self._handshakes = 0
        self._born_s: WeakKeyDictionary[INetConn, float] = WeakKeyDictionary()
        self._streams: Counter[ID] = Counter()
        self._asking = {index: trio.Semaphore(_ASKING_MAX) for index in self._peers}
        self._desk = RequestDesk(log)
        self._inbox = GossipInbox(log)
        self._gossip_limits = {
            index: TokenBucket(rate_per_s=_GOSSIP_RATE_PER_S, burst=_GOSSIP_BURST)
            for index in self._peers
        }
        self._refusals = TokenBucket(rate_per_s=0.1, burst=5)
        self._sent_bytes = 0
        self._received_bytes = 0

    # ---- node.network.Network

    async def run(
        self, handlers: Handlers, *, task_status: TaskStatus = TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled, then leave."""
        ready, stop = trio.Event(), trio.Event()
        self._listeners = await self._open_listeners()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._live, handlers, ready, stop)
                try:
                    await ready.wait()
                    task_status.started()
                    await trio.sleep_forever()
                finally:
                    stop.set()
        finally:
            for listener in self._listeners:
                listener.socket.close()

    async def broadcast(self, message: bytes) -> None:
        """Publish to the gossip topic."""
        check_gossip(message)
        await trio.lowlevel.checkpoint()
        if self._pubsub is not None:
            await self._pubsub.publish(self._topic, message)

    async def request(
        self, peer: int, protocol: str, body: bytes, *, reply_bytes_max: int, timeout_s: float
    ) -> bytes:
        """Ask one member over a stream of its own."""
        check_request(protocol, body, reply_bytes_max)
        if peer not in self._peers:
            raise ValueError(f"no peer has index {peer} (and a member does not ask itself)")
        name = self._peers[peer].name
        await trio.lowlevel.checkpoint()
        if not self._is_up(peer):
            raise UnavailableError(f"{name}: not connected")
        try:
            with trio.fail_after(timeout_s):
                async with self._asking[peer]:
                    status, reply = await self._exchange(peer, protocol, body, reply_bytes_max)
        except trio.TooSlowError:
            raise UnavailableError(f"{name}: no reply in {timeout_s:g} s") from None
        raise_for_status(status, reply, name=name)
        return reply

    def connected(self) -> frozenset[int]:
        """Peers with an open connection."""
        return frozenset(index for index in self._peers if self._is_up(index))

    def last_seen_s(self) -> Mapping[int, float]:
        """When each peer was last heard."""
        seen = {index: link.last_seen_s for index, link in self._links.items()}
        return {index: seen_s for index, seen_s in seen.items() if seen_s is not None}

    def traffic(self) -> Traffic:
        """Bytes so far."""
        return Traffic(bytes_sent=self._sent_bytes, bytes_received=self._received_bytes)

    def listening(self) -> tuple[str, ...]:
        """Return the addresses that we really listen on (port 0: the system chooses)."""
        names = [listener.socket.getsockname()[:2] for listener in self._listeners]
        return tuple(f"/ip{6 if ':' in ip else 4}/{ip}/tcp/{port}" for ip, port in names)

    # ---- life

    def _check_own_key(self, peers: Sequence[Peer]) -> None:
        for peer in peers:
            if peer.index == self._own_index and _peer_id(peer.network_key) != self._own_id:
                raise ConfigError(
                    f"the charter's network key of {peer.name} is not this site's: "
                    "use the key file that its member block was made from"
                )
        if self._own_id.to_bytes() in self._indices:
            raise ConfigError("another member of the charter has this site's network key")

    async def _open_listeners(self) -> list[trio.SocketListener]:
        """Listen by ourselves: libp2p shares its port, and a second node would go unnoticed."""
        opened: list[trio.SocketListener] = []
        for address in self._listen:
            try:
                opened += await trio.open_tcp_listeners(address.port, host=address.host)
            except OSError as error:
                problem = check_listen(address.text) or f"cannot listen on {address.text}: {error}"
                for listener in opened:
                    listener.socket.close()
                raise ConfigError(problem) from error
        return opened

    def _build(self, handlers: Handlers) -> tuple[Swarm, BasicHost, _GuardedPubsub]:
        store = PeerStore()
        store.add_key_pair(self._own_id, self._keys)
        gate = _GatedNoise(self._keys, self._admits)
        swarm = Swarm(
            self._own_id,
            store,
            TransportUpgrader({NOISE: gate}, {TProtocol(YAMUX): Yamux}),
            connection_config=ConnectionConfig(max_connections_per_peer=8),
        )
        swarm.auto_connector = _NoAutoConnector(swarm)
        # Only our own protocols: no identify, no libp2p ping.
        host = BasicHost(
            swarm,
            default_protocols=OrderedDict(
                (wire_id, partial(self._serve, handlers, protocol))
                for protocol, wire_id in self._protocols.items()
            ),
        )
        swarm.notifees.clear()
        swarm.register_notifee(_Watch(self._on_connected, self._on_disconnected))
        swarm.set_stream_handler(self._guarded(swarm.common_stream_handler))
        router = _GuardedRouter(
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
        router.scorer = None
        pubsub = _GuardedPubsub(host, router, self._topic)
        pubsub.admit, pubsub.deliver, pubsub.sent = self._admit, self._deliver, self._count_sent
        pubsub.set_topic_validator(self._topic, self._is_valid, is_async_validator=True)
        return swarm, host, pubsub

    async def _live(self, handlers: Handlers, ready: trio.Event, stop: trio.Event) -> None:
        """Run libp2p until stop is set. Never cancelled: its services are told to leave."""
        with trio.CancelScope() as scope, _forwarded_log(self._log):
            scope.shield = True
            swarm, host, pubsub = self._build(handlers)
            try:
                async with (
                    host.run([]),
                    background_trio_service(pubsub.router),  # type: ignore[arg-type]
                    background_trio_service(pubsub),
                ):
                    await pubsub.wait_until_ready()
                    await pubsub.subscribe(self._topic)
                    self._swarm, self._host, self._pubsub = swarm, host, pubsub
                    await self._work(handlers, ready, stop)
                    # Close every connection before libp2p's services stop, or they print races.
                    await self._close(swarm.get_connections())
                    await trio.sleep(_FAREWELL_S)
            except Exception as error:
                if not stop.is_set():
                    raise
                self._log.warning("leave_failed", error=repr(error))
            finally:
                self._swarm = self._host = self._pubsub = None
                pubsub.seen_messages.stop()

    async def _work(self, handlers: Handlers, ready: trio.Event, stop: trio.Event) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._inbox.run, handlers)
            nursery.start_soon(self._repair_gossip)
            if self._listeners:
                nursery.start_soon(trio.serve_listeners, self._accept, self._listeners)
            for index in self._peers:
                nursery.start_soon(self._watch_heartbeat, index)
                if self._addresses[index]:
                    nursery.start_soon(self._keep_dialling, index)
            ready.set()
            await stop.wait()
            self._nursery = None
            nursery.cancel_scope.cancel()

    # ---- connections

    def _admits(self, peer_id: ID) -> bool:
        known = peer_id.to_bytes() in self._indices
        if not known and self._refusals.take(now_s=trio.current_time()):
            reason = "our own key" if peer_id == self._own_id else "not on the roster"
            self._log.warning("stranger_refused", peer_id=str(peer_id), reason=reason)
        return known

    def _index(self, muxed: IMuxedConn) -> int:
        return self._indices[_yamux(muxed).peer_id.to_bytes()]

    def _is_up(self, peer: int) -> bool:
        return bool(self._open_connections(peer))

    def _open_connections(self, peer: int) -> list[INetConn]:
        if self._swarm is None:
            return []
        connections = self._swarm.get_connections(self._ids[peer])
        return [
            connection
            for connection in connections
            if connection in self._born_s  # else still being set up
            and not connection.is_closed
            and not _yamux(connection.muxed_conn).is_closed
        ]

    def _on_connected(self, connection: INetConn) -> None:
        muxed = _yamux(connection.muxed_conn)
        _bound_unread(muxed)
        self._born_s[connection] = trio.current_time()
        peer = self._index(muxed)
        connections = self._open_connections(peer)
        if len(connections) > 1 and self._nursery is not None:
            self._nursery.start_soon(self._close, self._superfluous(peer, connections))
        self._links[peer].heard()
        self._links[peer].changed()

    def _on_disconnected(self, connection: INetConn) -> None:
        if self._nursery is not None:
            self._links[self._index(connection.muxed_conn)].changed()

    def _superfluous(self, peer: int, connections: list[INetConn]) -> list[INetConn]:
        """Return all but one of a peer's connections, the same one at both ends.

        Dialled at the same time: the lower index's stays. Else the newest: the peer would not
        have dialled if its end of the older one still lived.
        """
        newest = max(connections, key=self._born_s.__getitem__)
        young_s = self._born_s[newest] - _SIMULTANEOUS_S
        young = [c for c in connections if self._born_s[c] >= young_s]
        dials = self._own_index < peer
        preferred = [c for c in young if _yamux(c.muxed_conn).is_initiator == dials]
        kept = max(preferred or young, key=self._born_s.__getitem__)
        return [connection for connection in connections if connection is not kept]

    async def _close(self, connections: Sequence[INetConn]) -> None:
        async with trio.open_nursery() as nursery:
            for connection in connections:
                nursery.start_soon(self._close_one, connection)

    async def _close_one(self, connection: INetConn) -> None:
        """Close the socket first: libp2p's own farewell could wait for a peer that is stuck."""
        with trio.move_on_after(_CLEANUP_S) as scope:
            scope.shield = True
            try:
                await _yamux(connection.muxed_conn).secured_conn.close()
                await connection.close()
            except _LOST as error:
                self._log.debug("close_failed", error=repr(error))

    async def _drop(self, peer: int) -> None:
        await self._close(self._open_connections(peer))

    async def _accept(self, stream: trio.SocketStream) -> None:
        """Find out who calls, within a time and a number of callers at once, and stay with it.

        Returning closes the socket.
        """
        if self._swarm is None or self._handshakes >= _HANDSHAKES_MAX:
            return
        muxed: IMuxedConn | None = None
        self._handshakes += 1
        try:
            with trio.move_on_after(self._timing.dial_s):
                raw = RawConnection(TrioTCPStream(stream), initiator=False)
                muxed = await self._swarm.upgrade_inbound_raw_conn(raw, _NOWHERE)
        except Exception as error:  # noqa: BLE001 - a stranger's bytes raise all kinds of errors
            self._log.debug("handshake_failed", error=_short(error))
        finally:
            self._handshakes -= 1
        if muxed is not None:
            await _yamux(muxed).event_closed.wait()

    async def _keep_dialling(self, peer: int) -> None:
        await keep_dialling(
            self._links[peer],
            partial(self._dial, peer),
            yields=self._own_index > peer,
            timing=self._timing,
            uniform=_uniform,
        )

    async def _watch_heartbeat(self, peer: int) -> None:
        await watch_heartbeat(
            self._links[peer],
            partial(self._ping, peer),
            partial(self._drop, peer),
            timing=self._timing,
            uniform=_uniform,
        )

    async def _ping(self, peer: int) -> None:
        with suppress(UnavailableError, PeerError):
            await self._exchange(peer, _PING, b"", 0)

    async def _dial(self, peer: int) -> str | None:
        """Try every address once. Returns why none worked, or None."""
        reasons: list[str] = []
        for address in self._addresses[peer]:
            reason: str | None = f"timeout: {address.text} does not finish the handshake"
            with trio.move_on_after(self._timing.dial_s):
                reason = await self._dial_address(peer, address)
            if reason is None:
                return None
            reasons.append(reason)
        return "; ".join(reasons)

    async def _dial_address(self, peer: int, address: Address) -> str | None:
        try:
            stream = await connect(address, timeout_s=self._timing.dial_s)
        except UnavailableError as error:
            return str(error)
        established = False
        try:
            if self._swarm is None:
                return "the network does not run"
            raw = RawConnection(TrioTCPStream(stream), initiator=True)
            await self._swarm.upgrade_outbound_raw_conn(raw, self._ids[peer])
            established = True
        except Exception as error:  # noqa: BLE001 - a stranger's bytes raise all kinds of errors
            return _handshake_reason(error, address)
        finally:
            if not established:
                stream.socket.close()
        return None

    # ---- gossip

    async def _repair_gossip(self) -> None:
        while True:
            await trio.sleep(_REPAIR_S)
            if self._pubsub is not None:
                await self._pubsub.repair([self._ids[peer] for peer in sorted(self.connected())])

    def _admit(self, forwarder: ID, message: bytes) -> bool:
        """Count a copy that came in, and bound how many one peer may bring."""
        if forwarder == self._own_id:
            return True
        peer = self._indices[forwarder.to_bytes()]
        self._links[peer].heard()
        self._received_bytes += len(message)
        return self._gossip_limits[peer].take(now_s=trio.current_time())

    async def _is_valid(self, _forwarder: ID, message: rpc_pb2.Message) -> bool:
        """Decide what is forwarded and delivered; its signature was checked before."""
        if message.from_id not in self._indices and message.from_id != self._own_id.to_bytes():
            return False
        return 0 < len(message.data) <= GOSSIP_BYTES_MAX

    def _deliver(self, author_id: bytes, message: bytes) -> None:
        if (author := self._indices.get(author_id)) is not None:
            self._inbox.put(author, message)

    # ---- requests

    async def _exchange(
        self, peer: int, protocol: str, body: bytes, reply_bytes_max: int
    ) -> tuple[Status, bytes]:
        stream = await self._open(peer, protocol)
        closed = False
        try:
            source = await _CreditedSource.of(stream, REPLY_HEADER_BYTES + reply_bytes_max)
            frame = request_frame(body)
            await stream.write(frame)
            self._count_sent(len(frame))
            status, reply = await read_reply(source, bytes_max=reply_bytes_max)
            await stream.close()
            closed = True
        except _LOST as error:
            name = self._peers[peer].name
            raise UnavailableError(f"{name}: connection lost ({_short(error)})") from error
        finally:
            if not closed:
                await _reset(stream)
        self._links[peer].heard()
        self._received_bytes += REPLY_HEADER_BYTES + len(reply)
        return status, reply

    async def _open(self, peer: int, protocol: str) -> INetStream:
        """Open a stream in a task of its own: giving up half-way would leak one of its slots."""
        opening = _Opening()
        if self._nursery is None:
            raise UnavailableError("the network does not run")
        self._nursery.start_soon(self._open_into, opening, peer, protocol)
        try:
            await opening.done.wait()
        except BaseException:
            opening.wanted = False
            if opening.stream is not None:
                await _reset(opening.stream)
            raise
        if protocol == SYNC_PROTOCOL and opening.stream is not None:
            self._links[peer].understood()
        if opening.stream is None:
            # Protocol names hold the charter's digest, and every version knows this one.
            if protocol == SYNC_PROTOCOL and opening.error and _is_unknown_there(opening.error):
                self._links[peer].refused()
                raise OtherFederationError(f"{self._peers[peer].name} holds another charter")
            reason = _short(opening.error) if opening.error else "no answer"
            raise UnavailableError(f"{self._peers[peer].name}: no stream ({reason})")
        return opening.stream

    async def _open_into(self, opening: _Opening, peer: int, protocol: str) -> None:
        try:
            with trio.move_on_after(_OPEN_S) as scope:
                if self._host is not None:
                    opening.stream = await self._host.new_stream(
                        self._ids[peer], [self._protocols[protocol]]
                    )
        except Exception as error:  # noqa: BLE001 - whatever it is, the stream did not open
            opening.error = error
        finally:
            opening.done.set()
        if scope.cancelled_caught:
            await self._drop(peer)
        elif opening.stream is not None and not opening.wanted:
            await _reset(opening.stream)

    async def _serve(self, handlers: Handlers, protocol: str, stream: INetStream) -> None:
        """Answer one request on a stream that a peer opened."""
        peer = self._index(_yamux(stream.muxed_conn))
        self._links[peer].heard()
        try:
            with trio.fail_after(_SERVE_S):
                body = await read_request(stream, bytes_max=REQUEST_BYTES_MAX)
            self._received_bytes += REQUEST_HEADER_BYTES + len(body)
            status, reply = Status.OK, b""
            if protocol != _PING:
                status, reply = await self._desk.answer(handlers, peer, protocol, body)
        except PeerError as error:
            status, reply = Status.REFUSED, error_text(error)
        frame = reply_frame(status, reply)
        with trio.fail_after(_SERVE_S):
            await stream.write(frame)
            self._count_sent(len(frame))
            await stream.close()

    def _guarded(self, inner: StreamHandlerFn) -> StreamHandlerFn:
        """Wrap what handles every inbound stream: an exception there would end the whole host."""

        async def handle(stream: INetStream) -> None:
            peer_id = _yamux(stream.muxed_conn).peer_id
            self._streams[peer_id] += 1
            try:
                if self._streams[peer_id] <= _STREAMS_MAX:
                    await inner(stream)
                    return
                self._log.debug("too_many_streams", peer_id=str(peer_id))
            except Exception as error:  # noqa: BLE001 - that is the point
                self._log.debug("stream_failed", peer_id=str(peer_id), error=_short(error))
            finally:
                self._streams[peer_id] -= 1
            await _reset(stream)

        return handle

    def _count_sent(self, bytes_count: int) -> None:
        self._sent_bytes += bytes_count


# ---- for the doctor


def peer_id_text(network_key: bytes) -> str:
    """Return the libp2p name of a network key ("12D3Koo…"). Raises ConfigError if it is none."""
    return str(_peer_id(network_key))


async def probe_member(*, network_seed: bytes, peer: Peer, timeout_s: float = 5.0) -> str | None:
    """Dial a member as the node would, and hang up. Returns None, or why it does not work.

    Stops before a connection counts as one, so that a node that runs meanwhile is not disturbed.
    The reason begins with one of: DNS, refused, unreachable, timeout, wrong key, no swarm node,
    not a member.
    """
    if not peer.addresses:
        return "no address in the charter: it has to dial us"
    target = _peer_id(peer.network_key)
    noise = _GatedNoise(ed25519_key_pair(network_seed), lambda peer_id: peer_id == target)
    reasons: list[str] = []
    for address in _addresses(peer):
        reason: str | None = f"timeout: {address.text} does not finish the handshake"
        with trio.move_on_after(timeout_s), _forwarded_log(None):
            reason = await _probe_address(noise, target, address, timeout_s=timeout_s)
        if reason is None:
            return None
        reasons.append(reason)
    return "; ".join(reasons)


async def _probe_address(
    noise: _GatedNoise, target: ID, address: Address, *, timeout_s: float
) -> str | None:
    try:
        stream = await connect(address, timeout_s=timeout_s)
    except UnavailableError as error:
        return str(error)
    async with stream:
        raw = RawConnection(TrioTCPStream(stream), initiator=True)
        try:
            session = await SecurityMultistream({NOISE: noise}).secure_outbound(raw, target)
        except Exception as error:  # noqa: BLE001 - a stranger's bytes raise all kinds of errors
            return _handshake_reason(error, address)
        try:
            await session.read(1)  # it speaks next, unless it refused us
        except _LOST:
            return _NOT_A_MEMBER.format(address.text)
    return None


# ---- helpers

_NOT_A_MEMBER: Final = "not a member: {} refused our key; compare the charters' digests"
_LIBP2P_LOG: Final = logging.getLogger("libp2p")
_uniform = secrets.SystemRandom().random
# A frame then is one noise message instead of one and a few bytes.
vars(yamux)["MAX_MESSAGE_SIZE"] = MAX_PLAINTEXT_LENGTH


def _peer_id(network_key: bytes) -> ID:
    try:
        return ID.from_pubkey(Ed25519PublicKey.from_bytes(network_key))
    except Exception as error:
        raise ConfigError(f"network key {network_key.hex()}: not an Ed25519 key") from error


def _addresses(peer: Peer) -> list[Address]:
    found = [parse_address(text) for text in peer.addresses]
    expected = peer_id_text(peer.network_key)
    for address in found:
        if address.peer_id not in (None, expected):
            raise ConfigError(f"address {address.text!r} of {peer.name}: its key is {expected}")
    return found


def _yamux(muxed: IMuxedConn) -> Yamux:
    if not isinstance(muxed, Yamux):
        raise TypeError(f"expected yamux, got {type(muxed).__name__}")
    return muxed


def _bound_unread(muxed: Yamux) -> None:
    """End a connection whose peer sends past its windows into our memory."""
    read = muxed._read_data_body  # noqa: SLF001 - libp2p has no hook; pinned to 0.8.1

    async def bounded(length: int) -> bytes:
        waiting = sum(map(len, muxed.stream_buffers.values()))
        if waiting + length > _UNREAD_BYTES_MAX:
            raise trio.TooSlowError  # what libp2p answers by closing the connection
        return await read(length)

    muxed._read_data_body = bounded  # type: ignore[method-assign]  # noqa: SLF001


async def _reset(stream: INetStream) -> None:
    with trio.move_on_after(_CLEANUP_S) as scope:
        scope.shield = True
        with suppress(Exception):
            await stream.reset()


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_unknown_there(error: BaseException) -> bool:
    return any("protocols not supported" in str(cause) for cause in _causes(error))


def _short(error: BaseException) -> str:
    *_, root = _causes(error)
    return f"{type(root).__name__}: {str(root).partition(chr(10))[0]}"[:120].removesuffix(": ")


def _handshake_reason(error: Exception, address: Address) -> str:
    names = {type(cause).__name__ for cause in _causes(error)}
    if "PeerIDMismatchesPubkey" in names or "Peer ID mismatch" in str(error):
        return f"wrong key: {address.text} answers with a key that is not this member's"
    if "MuxerUpgradeFailure" in names:
        return _NOT_A_MEMBER.format(address.text)
    return f"no swarm node: {address.text} does not shake hands ({_short(error)})"


class _Forward(logging.Handler):
    def __init__(self, log: EventLog | None) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        if self._log is not None:
            text = record.getMessage().partition("\n")[0]
            self._log.debug("libp2p", logger=record.name, text=text[:300])


@contextmanager
def _forwarded_log(log: EventLog | None) -> Iterator[None]:
    """Send libp2p's own warnings to our log at debug level instead of to stderr."""
    # This module writes to the root logger, which would also install a handler there.
    vars(swarm_connection)["logging"] = _LIBP2P_LOG
    handler = _Forward(log)
    _LIBP2P_LOG.addHandler(handler)
    try:
        yield
    finally:
        _LIBP2P_LOG.removeHandler(handler)
