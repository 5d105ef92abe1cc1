"""The network of the simulator: all members in one process, every fault from one seed.

Keeps the promises of node/network.py under trio's clock, real or virtual. Randomness belongs to
a link (from, to): what happens to its n-th message depends on the seed and n alone, never on the
order in which trio runs tasks. Deliveries to one member come in order of time, ties in order of
sending. Unlike gossip over libp2p nobody forwards for others: a cut link is a lost message.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias, final

import numpy as np
import trio

from ledger.errors import PeerError, UnavailableError
from node.framing import REPLY_HEADER_BYTES, REQUEST_HEADER_BYTES, Status, raise_for_status
from node.network import (
    TASK_STATUS_IGNORED,
    EventLog,
    Handlers,
    TaskStatus,
    Traffic,
    check_gossip,
    check_request,
)
from node.serving import GossipInbox, RequestDesk

_NEVER_S: Final = -1e18


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """What happens to messages on a link, one way. The defaults are a perfect network.

    loss: share of messages that vanish; the requester of a lost request waits for its time-out.
    delay_s, jitter_s: every message takes delay_s plus up to jitter_s; jitter reorders.
    duplicate: share of messages that travel twice; gossip is delivered once all the same (its
      copy costs bytes), a request is handled twice.
    bandwidth_bytes_s: messages queue behind each other; None = no limit.
    detect_s: a cut link looks connected for so long (requests over it time out).
    reconnect_s: a healed link comes back after so long.
    """

    loss: float = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    duplicate: float = 0.0
    bandwidth_bytes_s: float | None = None
    detect_s: float = 0.0
    reconnect_s: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.loss <= 1 and 0 <= self.duplicate <= 1):
            raise ValueError("loss and duplicate are shares from 0 to 1")
        if min(self.delay_s, self.jitter_s, self.detect_s, self.reconnect_s) < 0:
            raise ValueError("times are not negative")
        if self.bandwidth_bytes_s is not None and self.bandwidth_bytes_s <= 0:
            raise ValueError("bandwidth_bytes_s is positive or None")


@dataclass(slots=True)
class _Link:
    """One direction between two members."""

    random: np.random.Generator
    conditions: Conditions | None = None  # None: the hub's
    free_s: float = _NEVER_S  # when the last byte that was sent has left
    cut_s: float | None = None
    healed_s: float = _NEVER_S


@dataclass(slots=True)
class Answer:
    """What a waiting requester will see."""

    peer: int
    done: trio.Event = field(default_factory=trio.Event)
    reply: tuple[Status, bytes] | None = None


@dataclass(frozen=True, slots=True)
class Gossip:
    """Records that ``author`` announces."""

    author: int
    message: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """A question of ``author``, who waits."""

    author: int
    protocol: str
    body: bytes
    answer: Answer


@dataclass(frozen=True, slots=True)
class Reply:
    """What ``author`` answers."""

    author: int
    status: Status
    body: bytes
    answer: Answer


Message: TypeAlias = Gossip | Request | Reply


class Place(Protocol):
    """Where a member is, as the hub sees it: its network here, or what stands for one elsewhere."""

    @property
    def running(self) -> bool:
        """Whether it serves."""

    def post(self, due_s: float, message: Message, bytes_count: int) -> None:
        """Let a message arrive at ``due_s``."""

    def saw(self, peer: int) -> None:
        """Something of a peer was heard."""

    def lost(self, index: int) -> None:
        """A peer is gone."""

    def die(self) -> None:
        """Be gone at once."""


@final
class _Courier:
    """Brings every member's messages when they are due: one task for all of them, since waking costs."""

    def __init__(self) -> None:
        self._bag: list[tuple[float, int, MemoryNetwork, int, Message]] = []
        self._posted = 0
        self._at_work = False
        self._earlier = trio.Event()

    def post(self, due_s: float, to: "MemoryNetwork", bytes_count: int, message: Message) -> None:
        """Let a message arrive at ``due_s``."""
        self._posted += 1
        heapq.heappush(self._bag, (due_s, self._posted, to, bytes_count, message))
        if not self._at_work:
            self._at_work = True
            trio.lowlevel.spawn_system_task(self._work)
        elif self._bag[0][1] == self._posted:  # earlier than what is waited for
            self._earlier.set()

    async def _work(self) -> None:
        try:
            while True:
                now_s = _now_s()
                while self._bag and self._bag[0][0] <= now_s:
                    _, _, to, bytes_count, message = heapq.heappop(self._bag)
                    to.receive(message, bytes_count)
                self._earlier = trio.Event()
                with trio.move_on_at(self._bag[0][0] if self._bag else math.inf):
                    await self._earlier.wait()
        finally:
            self._at_work = False


@final
class MemoryHub:
    """The world between the networks: gives one network per member, and breaks things."""

    def __init__(self, *, seed: int, conditions: Conditions | None = None) -> None:
        self.conditions = conditions or Conditions()
        self._seed = seed
        self._links: dict[tuple[int, int], _Link] = {}
        self._networks: dict[int, Place] = {}
        self._once_cut: set[tuple[int, int]] = set()
        """Directions that were ever cut; all others are open."""
        self._up: tuple[int, ...] | None = None
        """Members that run, in order; None: to be counted again."""
        self.courier: Final = _Courier()

    def network(self, index: int, *, log: EventLog | None = None) -> "MemoryNetwork":
        """Return a new network for a member: its first, or after crash() its restart."""
        old = self._networks.get(index)
        if old is not None and old.running:
            raise ValueError(f"the network of member {index} runs; crash() or cancel it first")
        new = MemoryNetwork(self, index, log)
        self._networks[index] = new
        return new

    def place(self, index: int, place: Place) -> None:
        """Put something in the place of a member's network."""
        self._networks[index] = place
        self._up = None

    def crash(self, index: int) -> None:
        """Cut a member off at once and for good: its peers notice, what it sent may arrive.

        Its run() stays until it is cancelled, as the rest of that node has to be;
        network(index) then gives the restarted node its network.
        """
        peers = self.peers(index)
        self._networks[index].die()
        self._up = None
        for peer in peers:
            self._networks[peer].lost(index)

    def block(self, source: int, target: int) -> None:
        """Let nothing pass from source to target; the other direction stays open."""
        link = self.link(source, target)
        if link.cut_s is None:
            if self.looks_connected(source, target):
                self._networks[target].saw(source)
            link.cut_s = _now_s()
            self._once_cut.add((source, target))

    def unblock(self, source: int, target: int) -> None:
        """Undo block()."""
        link = self.link(source, target)
        if link.cut_s is not None:
            link.cut_s, link.healed_s = None, _now_s()

    def partition(self, groups: Iterable[Iterable[int]]) -> None:
        """Cut every link between different groups; members in no group form one more."""
        group_of: dict[int, int] = {}
        for number, group in enumerate(groups, start=1):
            group_of.update(dict.fromkeys(group, number))
        members = sorted(self._networks)
        for a in members:
            for b in members:
                if a != b and group_of.get(a, 0) != group_of.get(b, 0):
                    self.block(a, b)

    def heal(self) -> None:
        """Undo every block and partition (not the crashes)."""
        for source, target in sorted(self._links):
            self.unblock(source, target)

    def shape(self, source: int, target: int, conditions: Conditions | None) -> None:
        """Give one direction its own conditions; None = the hub's again."""
        self.link(source, target).conditions = conditions

    def link(self, source: int, target: int) -> _Link:
        """Return the state of one direction (made on first use)."""
        link = self._links.get((source, target))
        if link is None:
            sequence = np.random.SeedSequence([self._seed, source, target])
            link = self._links[source, target] = _Link(np.random.default_rng(sequence))
        return link

    def looks_connected(self, a: int, b: int) -> bool:
        """Return whether a and b both believe that they are connected."""
        return self.runs(a) and self.runs(b) and self._look_open(a, b)

    def peers(self, index: int) -> list[int]:
        """Return whom a member is connected to, in order of index."""
        if not self.runs(index):
            return []
        if self._up is None:
            self._up = tuple(one for one in sorted(self._networks) if self.runs(one))
        return [p for p in self._up if p != index and self._look_open(index, p)]

    def changed(self) -> None:
        """A network has begun to run."""
        self._up = None

    def send(self, source: int, target: int, message: Message, bytes_count: int) -> None:
        """Put a message on its way; it arrives later, twice or never."""
        link = self.link(source, target)
        conditions = link.conditions or self.conditions
        lost, duplicated, *jitters = link.random.random(4)
        now_s = _now_s()
        if conditions.bandwidth_bytes_s is not None:
            link.free_s = max(link.free_s, now_s) + bytes_count / conditions.bandwidth_bytes_s
        left_s = max(link.free_s, now_s)
        if lost < conditions.loss or link.cut_s is not None:
            return
        copies = 2 if duplicated < conditions.duplicate else 1
        for jitter in jitters[:copies]:
            due_s = left_s + conditions.delay_s + conditions.jitter_s * float(jitter)
            self.post(target, due_s, message, bytes_count)

    def post(self, target: int, due_s: float, message: Message, bytes_count: int) -> None:
        """Let a message arrive, whatever the link is like."""
        network = self._networks.get(target)
        if network is not None:
            network.post(due_s, message, bytes_count)

    def is_cut(self, source: int, target: int) -> bool:
        """Return whether nothing passes in this direction now."""
        return self.link(source, target).cut_s is not None

    def runs(self, index: int) -> bool:
        """Tell whether a member serves."""
        network = self._networks.get(index)
        return network is not None and network.running

    def _look_open(self, a: int, b: int) -> bool:
        if not self._once_cut:
            return True
        return self._looks_open(a, b) and self._looks_open(b, a)

    def _looks_open(self, source: int, target: int) -> bool:
        if (source, target) not in self._once_cut:
            return True
        link = self.link(source, target)
        conditions = link.conditions or self.conditions
        if link.cut_s is not None:
            return _now_s() - link.cut_s < conditions.detect_s
        return _now_s() - link.healed_s >= conditions.reconnect_s


@final
class MemoryNetwork:
    """One member's network (node.network.Network)."""

    def __init__(self, hub: MemoryHub, index: int, log: EventLog | None) -> None:
        self._hub = hub
        self._index = index
        self._dead = False
        self._begin_to_serve: Callable[[Request], None] | None = None
        self._waiting: list[Answer] = []
        self._last_seen_s: dict[int, float] = {}
        self._bytes_sent = self._bytes_received = 0
        self._desk = RequestDesk(log or _NoLog())
        self._gossip = GossipInbox(log or _NoLog())

    @property
    def running(self) -> bool:
        """Whether run() is active and the member was not crashed."""
        return self._begin_to_serve is not None and not self._dead

    async def run(
        self, handlers: Handlers, *, task_status: TaskStatus = TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            self._begin_to_serve = lambda one: nursery.start_soon(self._serve, one, handlers)
            self._hub.changed()
            nursery.start_soon(self._gossip.run, handlers)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:  # before the nursery closes: nothing may arrive any more
                if not self._dead:
                    self._hub.crash(self._index)

    async def broadcast(self, message: bytes) -> None:
        """Send to every connected member."""
        check_gossip(message)
        await trio.lowlevel.checkpoint()
        for peer in self._hub.peers(self._index):
            self._send(peer, Gossip(self._index, message), len(message))

    async def whisper(self, peer: int, message: bytes) -> None:
        """Gossip to one member only, as no honest node does: for simulated liars."""
        check_gossip(message)
        await trio.lowlevel.checkpoint()
        if self._hub.looks_connected(self._index, peer):
            self._send(peer, Gossip(self._index, message), len(message))

    async def request(
        self, peer: int, protocol: str, body: bytes, *, reply_bytes_max: int, timeout_s: float
    ) -> bytes:
        """Ask one member."""
        check_request(protocol, body, reply_bytes_max)
        if peer == self._index:
            raise ValueError("a member does not ask itself")
        await trio.lowlevel.checkpoint()
        if not self._hub.looks_connected(self._index, peer):
            raise UnavailableError(f"member {peer}: not connected")
        answer = Answer(peer)
        self._waiting.append(answer)
        try:
            message = Request(self._index, protocol, body, answer)
            self._send(peer, message, REQUEST_HEADER_BYTES + len(body))
            with trio.move_on_after(timeout_s):
                await answer.done.wait()
        finally:
            self._waiting.remove(answer)
        if not answer.done.is_set():
            raise UnavailableError(f"member {peer}: no reply in {timeout_s:g} s")
        if answer.reply is None:
            raise UnavailableError(f"member {peer}: connection lost")
        status, reply = answer.reply
        raise_for_status(status, reply, name=f"member {peer}")
        if len(reply) > reply_bytes_max:
            raise PeerError(
                f"member {peer}: frame of {len(reply)} bytes, at most {reply_bytes_max} are allowed"
            )
        return reply

    def connected(self) -> frozenset[int]:
        """Members that look reachable."""
        return frozenset(self._hub.peers(self._index))

    def last_seen_s(self) -> Mapping[int, float]:
        """Now for whom we hear (as with heartbeats), else the time of the last message."""
        for peer in self._hub.peers(self._index):
            if not self._hub.is_cut(peer, self._index):
                self.saw(peer)
        return dict(self._last_seen_s)

    @property
    def gossip_waiting(self) -> int:
        """Messages that wait for the handler."""
        return self._gossip.waiting

    def traffic(self) -> Traffic:
        """Bytes so far."""
        return Traffic(bytes_sent=self._bytes_sent, bytes_received=self._bytes_received)

    def _send(self, peer: int, message: Message, bytes_count: int) -> None:
        if not self.running:
            return
        self._bytes_sent += bytes_count
        self._hub.send(self._index, peer, message, bytes_count)

    def post(self, due_s: float, message: Message, bytes_count: int) -> None:
        """Let a message arrive at ``due_s``."""
        self._hub.courier.post(due_s, self, bytes_count, message)

    def receive(self, message: Message, bytes_count: int) -> None:
        """Take a message that has come; nobody is there for it if this network has ended."""
        if self._begin_to_serve is None or self._dead:
            return
        if self._hub.is_cut(message.author, self._index):
            return
        self._bytes_received += bytes_count
        self.saw(message.author)
        match message:
            case Gossip():
                self._gossip.put(message.author, message.message)
            case Request():
                self._begin_to_serve(message)
            case Reply():
                message.answer.reply = message.status, message.body
                message.answer.done.set()

    async def _serve(self, request: Request, handlers: Handlers) -> None:
        status, body = await self._desk.answer(
            handlers, request.author, request.protocol, request.body
        )
        reply = Reply(self._index, status, body, request.answer)
        self._send(request.author, reply, REPLY_HEADER_BYTES + len(body))

    def die(self) -> None:
        """Be gone at once, and for good."""
        self._dead = True
        for answer in self._waiting:
            answer.done.set()

    def saw(self, peer: int) -> None:
        """Something of a peer was heard."""
        self._last_seen_s[peer] = _now_s()

    def lost(self, index: int) -> None:
        """A peer is gone."""
        self.saw(index)
        for answer in self._waiting:
            if answer.peer == index:
                answer.done.set()


class _NoLog:
    """For tests that do not look."""

    def debug(self, event: str, **fields: object) -> None:
        """Drop it."""

    info = warning = debug


def _now_s() -> float:
    return trio.current_time()
