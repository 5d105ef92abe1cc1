"""One member's network: puts the parts together, runs them, takes them down."""

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, final

import trio
from libp2p.custom_types import TProtocol
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.tools.anyio_service import background_trio_service

from ledger.errors import PeerError, UnavailableError
from node.addresses import Address, parse_address
from node.framing import raise_for_status
from node.libp2p.connections import Connections
from node.libp2p.dialler import Dialler
from node.libp2p.door import Door, open_listeners
from node.libp2p.gossip import REPAIR_S, Admission, GuardedPubsub
from node.libp2p.host import build_host
from node.libp2p.members import Members
from node.libp2p.pacing import Paces
from node.libp2p.quiet import forwarded_log
from node.libp2p.requests import PING, Answerer, Requester
from node.libp2p.traffic import Meter
from node.limits import TokenBucket
from node.line import Line
from node.links import Link, Timing, keep_dialling, watch_heartbeat
from node.network import (
    RECORDS_PROTOCOL,
    REQUEST_PROTOCOLS,
    TASK_STATUS_IGNORED,
    EventLog,
    Handlers,
    Peer,
    TaskStatus,
    Traffic,
    check_gossip,
    check_request,
)
from node.serving import GossipInbox, RequestDesk

_FAREWELL_S: Final = 0.1
_uniform = secrets.SystemRandom().random


@dataclass(frozen=True, kw_only=True, slots=True)
class _Life:
    """What there is only while the network runs."""

    pubsub: GuardedPubsub
    connections: Connections
    requester: Requester
    dialler: Dialler
    door: Door


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
        line: Line | None = None,
    ) -> None:
        self._listen = [parse_address(text) for text in listen]
        self._members = Members(own_index=own_index, network_seed=network_seed, peers=peers)
        self._topic = f"{RECORDS_PROTOCOL}/{net.hex()}"  # so that two federations never mix
        self._net = net
        self._wire_ids: dict[str, TProtocol] = {}
        for protocol in (*REQUEST_PROTOCOLS, PING):
            self.speak(protocol)
        self._log = log
        self._timing = timing or Timing()
        self._line = line or Line()
        self._paces = Paces(self._line)
        self._links = {
            index: Link(peer=peer, is_up=partial(self._is_up, index), log=log)
            for index, peer in self._members.peers.items()
        }
        self._meter = Meter()
        self._desk = RequestDesk(log)
        self._inbox = GossipInbox(log)
        self._refusals = TokenBucket(rate_per_s=0.1, burst=5)
        self._listeners: list[trio.SocketListener] = []
        self._life: _Life | None = None

    def speak(self, protocol: str) -> None:
        """Offer one more protocol, from the next start on, and allow requests in it."""
        self._wire_ids[protocol] = TProtocol(f"{protocol}/{self._net.hex()}")

    # ---- node.network.Network

    async def run(
        self, handlers: Handlers, *, task_status: TaskStatus = TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled, then leave."""
        ready, stop = trio.Event(), trio.Event()
        self._listeners = await open_listeners(self._listen)
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
        if self._life is not None:
            await self._life.pubsub.publish(self._topic, message)

    async def request(
        self, peer: int, protocol: str, body: bytes, *, reply_bytes_max: int, timeout_s: float
    ) -> bytes:
        """Ask one member over a stream of its own."""
        check_request(protocol, body, reply_bytes_max, spoken=tuple(self._wire_ids))
        if peer not in self._members.peers:
            raise ValueError(f"no peer has index {peer} (and a member does not ask itself)")
        name = self._members.peers[peer].name
        await trio.lowlevel.checkpoint()
        if self._life is None or not self._is_up(peer):
            raise UnavailableError(f"{name}: not connected")
        try:
            with trio.fail_after(timeout_s):
                status, reply = await self._life.requester.ask(
                    peer, protocol, body, reply_bytes_max=reply_bytes_max
                )
        except trio.TooSlowError:
            raise UnavailableError(f"{name}: no reply in {timeout_s:g} s") from None
        raise_for_status(status, reply, name=name)
        return reply

    def connected(self) -> frozenset[int]:
        """Peers with an open connection."""
        return frozenset(index for index in self._members.peers if self._is_up(index))

    def last_seen_s(self) -> Mapping[int, float]:
        """When each peer was last heard."""
        seen = {index: link.last_seen_s for index, link in self._links.items()}
        return {index: seen_s for index, seen_s in seen.items() if seen_s is not None}

    def traffic(self) -> Traffic:
        """Bytes so far."""
        return self._meter.total()

    def redirect(self, peer: int, addresses: Sequence[Address]) -> None:
        """Dial a member at these addresses from now on (node.network.Dialling)."""
        if list(addresses) != self._members.addresses[peer]:
            self._members.addresses[peer] = list(addresses)
            self._links[peer].changed()

    def redial(self, peer: int) -> None:
        """Dial a member that is away now (node.network.Dialling)."""
        self._links[peer].changed()

    def failures(self) -> Mapping[int, str]:
        """Why the newest dial of each member that is away failed."""
        reasons = {index: link.reason for index, link in self._links.items()}
        return {index: reason for index, reason in reasons.items() if reason is not None}

    def listening(self) -> tuple[str, ...]:
        """Return the addresses that we really listen on (port 0: the system chooses)."""
        names = [listener.socket.getsockname()[:2] for listener in self._listeners]
        return tuple(f"/ip{6 if ':' in ip else 4}/{ip}/tcp/{port}" for ip, port in names)

    # ---- life

    async def _live(self, handlers: Handlers, ready: trio.Event, stop: trio.Event) -> None:
        """Run libp2p until stop is set. Never cancelled: its services are told to leave."""
        answerer = Answerer(handlers, self._desk, self._members, self._links, self._meter)
        with trio.CancelScope() as scope, forwarded_log(self._log):
            scope.shield = True
            swarm, host = build_host(
                self._members,
                {wire_id: partial(answerer.serve, p) for p, wire_id in self._wire_ids.items()},
                admits=self._admits,
                pace_of=lambda peer_id: self._paces.of(self._members.known_index(peer_id)),
                log=self._log,
            )
            admission = Admission(self._members, self._meter, self._inbox)
            pubsub = GuardedPubsub(host, self._topic, admission)
            try:
                async with (
                    host.run([]),
                    background_trio_service(pubsub.router),  # type: ignore[arg-type]
                    background_trio_service(pubsub),
                ):
                    await pubsub.wait_until_ready()
                    await pubsub.subscribe(self._topic)
                    async with trio.open_nursery() as nursery:
                        connections = Connections(
                            swarm, self._members, self._links, nursery=nursery, log=self._log
                        )
                        self._life = self._put_together(swarm, pubsub, connections)
                        self._start(self._life, nursery, handlers)
                        ready.set()
                        await stop.wait()
                        self._life = None
                        connections.leave()
                        nursery.cancel_scope.cancel()
                    # Before libp2p's services stop, or they print races.
                    await connections.close_all()
                    await trio.sleep(_FAREWELL_S)
            except Exception as error:
                if not stop.is_set():
                    raise
                self._log.warning("leave_failed", error=repr(error))
            finally:
                self._life = None
                pubsub.seen_messages.stop()

    def _put_together(
        self,
        swarm: Swarm,
        pubsub: GuardedPubsub,
        connections: Connections,
    ) -> _Life:
        requester = Requester(
            self._members, self._links, connections, wire_ids=self._wire_ids, meter=self._meter
        )
        return _Life(
            pubsub=pubsub,
            connections=connections,
            requester=requester,
            dialler=Dialler(swarm, self._members, dial_s=self._timing.dial_s, psk=self._line.psk),
            door=Door(swarm, handshake_s=self._timing.dial_s, psk=self._line.psk, log=self._log),
        )

    def _start(self, life: _Life, nursery: trio.Nursery, handlers: Handlers) -> None:
        nursery.start_soon(self._inbox.run, handlers)
        nursery.start_soon(self._repair_gossip, life)
        if self._listeners:
            nursery.start_soon(trio.serve_listeners, life.door.accept, self._listeners)
        for index, link in self._links.items():
            nursery.start_soon(
                partial(watch_heartbeat, timing=self._timing, uniform=_uniform),
                link,
                partial(self._ping, life, index),
                partial(life.connections.drop, index),
            )
            nursery.start_soon(
                partial(
                    keep_dialling,
                    yields=self._members.own_index > index,
                    timing=self._timing,
                    uniform=_uniform,
                ),
                link,
                partial(life.dialler.dial, index),
            )

    async def _ping(self, life: _Life, peer: int) -> None:
        with suppress(UnavailableError, PeerError):
            await life.requester.ping(peer)

    async def _repair_gossip(self, life: _Life) -> None:
        while True:
            await trio.sleep(REPAIR_S)
            ids = self._members.ids
            await life.pubsub.repair([ids[peer] for peer in sorted(self.connected())])

    # ---- members

    def _admits(self, peer_id: ID) -> bool:
        known = self._members.index(peer_id.to_bytes()) is not None
        if not known and self._refusals.take(now_s=trio.current_time()):
            reason = "our own key" if peer_id == self._members.own_id else "not on the roster"
            self._log.warning("stranger_refused", peer_id=str(peer_id), reason=reason)
        return known

    def _is_up(self, peer: int) -> bool:
        return self._life is not None and bool(self._life.connections.open(peer))
