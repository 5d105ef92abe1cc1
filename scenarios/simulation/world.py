"""What the members of a plan stand on: networks, disks, clocks and machines that fail as it says.

Room: scenarios. Implements `Surroundings` (swarm.py). Every step of a member (a flush, a commit, a
message, a piece of work) is counted here, and a crash can be bound to any of them.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, TypeVar, TypeVarTuple, final

import trio

from ledger.store import Store
from node.blobs import BlobStore
from node.compute import Compute
from node.network import TASK_STATUS_IGNORED, EventLog, Handlers, Network, TaskStatus, Traffic
from node.network_memory import MemoryHub, MemoryNetwork
from node.service import Service
from scenarios.simulation.disk import CrashedError, MemberDisk, seen_flushes
from scenarios.simulation.faults import CrashAtStep, Removal, Rotation
from scenarios.simulation.liars import OLD_KEY, LyingNetwork
from scenarios.simulation.observations import Observations
from scenarios.simulation.plan import Plan
from scenarios.simulation.swarm import EPOCH_MS

T = TypeVar("T")
Args = TypeVarTuple("Args")

SHARES: Final = {"train": 1.0, "local_moments": 0.5, "evaluate": 0.2, "merge": 0.1}
"""What a piece of computing takes of a member's `cost_s`; of what is not here, CHEAP."""
CHEAP: Final = 0.02


@dataclass
class Member:
    """One member's machine."""

    index: int
    disk: MemberDisk
    cost_s: float
    skew_ms: int
    crashes: dict[int, CrashAtStep] = field(default_factory=dict)
    """step → the crash that happens there"""
    stalled_s: float = 0.0
    """What everything takes while the machine swaps."""
    steps: int = 0
    is_dead: bool = False
    network: MemoryNetwork | None = None


class NoLog:
    """Takes events and keeps none, but for what no handler of an honest member may meet."""

    def __init__(self, world: "Rough", index: int) -> None:
        self._world = world
        self._index = index

    def debug(self, event: str, **fields: object) -> None:
        """Drop it."""

    info = debug

    def warning(self, event: str, **fields: object) -> None:
        """Look whether a handler has failed."""
        if event == "handler_failed":
            self._world.handler_failed(self._index, str(fields.get("error")))


class PrintedLog(NoLog):
    """Prints what happens, with the virtual time: for `--trace`."""

    def __init__(self, world: "Rough", index: int, write: Callable[[str], None]) -> None:
        super().__init__(world, index)
        self._write = write

    def debug(self, event: str, **fields: object) -> None:
        """Print one event."""
        told = " ".join(f"{name}={value}" for name, value in fields.items())
        self._write(f"{trio.current_time():8.2f} s  member {self._index}  {event} {told}".rstrip())

    info = debug

    def warning(self, event: str, **fields: object) -> None:
        """Print it, and look whether a handler has failed."""
        self.debug(event, **fields)
        super().warning(event, **fields)


@final
class Rough:
    """The surroundings of one run."""

    def __init__(
        self,
        plan: Plan,
        hub: MemoryHub,
        directory: Path,
        observations: Observations,
        *,
        payloads: Path,
        trace: Callable[[str], None] | None = None,
    ) -> None:
        """payloads: the folder in which they are all kept, in one of their own."""
        self._plan = plan
        self._hub = hub
        self._directory = directory
        self._observations = observations
        self._trace = trace
        ended = {one.member for one in plan.faults if isinstance(one, Rotation | Removal)}
        self._attacks = {
            liar.member: (*liar.attacks, OLD_KEY) if liar.member in ended else liar.attacks
            for liar in plan.liars
        }
        self._lying: dict[int, LyingNetwork] = {}
        self.crashed: Callable[[int, CrashAtStep], None] = lambda _index, _crash: None
        """Called when a member dies at one of its steps."""
        self.payloads = payloads / "payloads"
        """Every payload that any honest member ever held, for the auditor."""
        self.payloads.mkdir(exist_ok=True)
        self.members = [self._member(index) for index in range(plan.sites)]

    def _member(self, index: int) -> Member:
        random = Random(f"{self._plan.seed}/disk/{index}")  # noqa: S311 - not a secret
        member = Member(
            index=index,
            disk=MemberDisk(
                self._directory / str(index),
                random,
                lambda: self.step(member),
                archive=None if index in self._attacks else self.payloads,
                is_calm=self._plan.is_calm,
            ),
            cost_s=self._plan.compute_s[index],
            skew_ms=self._plan.skew_ms[index],
            crashes={
                one.step: one
                for one in self._plan.faults
                if isinstance(one, CrashAtStep) and one.member == index
            },
        )
        return member

    def flushes(self) -> AbstractContextManager[None]:
        """Let the disks see what is flushed, for the length of a run."""
        return seen_flushes(self._directory, lambda name: self.members[int(name)].disk)

    def step(self, member: Member) -> None:
        """Count one step of a member, and let it die there if the plan says so."""
        if member.is_dead:
            raise CrashedError
        member.steps += 1
        crash = member.crashes.pop(member.steps, None)
        if crash is not None:
            self.say(f"member {member.index} dies at step {member.steps}")
            self.dies(member.index, power=crash.power)
            self.crashed(member.index, crash)
            raise CrashedError

    def dies(self, index: int, *, power: bool) -> None:
        """End a member's life: nothing that it does from now on counts."""
        self.stops(index)
        self.members[index].disk.crash(power=power)

    def stops(self, index: int) -> None:
        """End a member's life: what its disk holds stays as it is."""
        member = self.members[index]
        member.is_dead = member.disk.is_dead = True
        if member.network is not None and member.network.running:
            self._hub.crash(index)

    def say(self, line: str) -> None:
        """Tell the trace."""
        if self._trace is not None:
            self._trace(f"{trio.current_time():8.2f} s  {line}")

    # Surroundings

    @contextmanager
    def files(self, index: int) -> Iterator[tuple[Store, BlobStore]]:
        """Open the member's disk for its next life."""
        member = self.members[index]
        member.is_dead = False
        with member.disk.open() as opened:
            yield opened

    def network(self, index: int) -> Network:
        """Return a network that is watched, or that lies."""
        member = self.members[index]
        inner = member.network = self._hub.network(index, log=self.log(index))
        if index not in self._attacks:
            return _WatchedNetwork(self, member, inner, self._observations)
        random = Random(f"{self._plan.seed}/liar/{index}/{member.steps}")  # noqa: S311
        lying = self._lying[index] = LyingNetwork(
            inner, index, self._attacks[index], random,
            lambda server, digest: self._observations.leaked(server, index, digest),
        )  # fmt: skip
        return lying

    def inbox(self, index: int) -> Path:
        """Where a site's operator leaves roster updates; made when the first one comes."""
        return self._directory / "inbox" / str(index)

    def compute(self, index: int) -> Compute:
        """Computing takes what the plan says, and more while the machine stalls."""
        return _Machine(self, self.members[index], is_disk=False)

    def disk(self, index: int) -> Compute:
        """The disk's work takes no time, and may be the last."""
        return _Machine(self, self.members[index], is_disk=True)

    def time_ms(self, index: int) -> int:
        """A clock that is off."""
        return max(0, EPOCH_MS + int(trio.current_time() * 1000) + self.members[index].skew_ms)

    def log(self, index: int) -> EventLog:
        """Events go to the trace, or nowhere."""
        return NoLog(self, index) if self._trace is None else PrintedLog(self, index, self._trace)

    def handler_failed(self, index: int, error: str) -> None:
        """An exception in an honest member's handler is a bug, unless its disk or its life was over."""
        member = self.members[index]
        excused = member.is_dead or member.disk.fault is not None or index in self._attacks
        theirs = error.startswith(("PeerError", "VerificationError", "StoreError"))
        if not (excused or theirs):
            self._observations.blame("no-bug", f"a handler of member {index} fails: {error}")

    def started(self, index: int, service: Service) -> None:
        """Hold a restarted member to what it had sent; give a liar its pen."""
        lying = self._lying.get(index)
        if lying is not None:
            lying.serve_for(service)
        elif self.members[index].steps:
            stored = list(service.journal._store.records())  # noqa: SLF001 - only looks
            self._observations.starts(index, service.journal, stored)

    def ended(self, index: int, error: BaseException) -> bool:
        """Whether the simulation ended this life."""
        del error
        return self.members[index].is_dead


@final
class _Machine:
    """node.compute.Compute that takes virtual time and can be where a member dies."""

    def __init__(self, world: Rough, member: Member, *, is_disk: bool) -> None:
        self._world = world
        self._member = member
        self._is_disk = is_disk
        self._lock = trio.Lock()

    async def run(self, function: "Callable[[*Args], T]", *args: *Args) -> T:
        """Call ``function``, then let its cost pass."""
        try:
            self._lock.acquire_nowait()  # the checkpoint is below
        except trio.WouldBlock:
            await self._lock.acquire()
        try:
            self._world.step(self._member)
            result = function(*args)
            await trio.sleep(0.0 if self._is_disk else self._cost_s(function))
            self._world.step(self._member)
            return result
        finally:
            self._lock.release()

    def _cost_s(self, function: Callable[..., object]) -> float:
        share = SHARES.get(getattr(function, "__name__", ""), CHEAP)
        return max(self._member.cost_s * share, self._member.stalled_s)


@final
class _WatchedNetwork:
    """An honest member's network: every message is a step, and what leaves is seen."""

    def __init__(
        self, world: Rough, member: Member, inner: MemoryNetwork, observations: Observations
    ) -> None:
        self._world = world
        self._member = member
        self._inner = inner
        self._observations = observations

    async def run(
        self, handlers: Handlers, *, task_status: TaskStatus = TASK_STATUS_IGNORED
    ) -> None:
        """Serve."""
        await self._inner.run(_WatchedHandlers(self, handlers), task_status=task_status)

    async def broadcast(self, message: bytes) -> None:
        """Send."""
        self._world.step(self._member)
        self._observations.broadcast(self._member.index, message)
        await self._inner.broadcast(message)
        self._world.step(self._member)

    async def request(
        self, peer: int, protocol: str, body: bytes, *, reply_bytes_max: int, timeout_s: float
    ) -> bytes:
        """Ask."""
        self._world.step(self._member)
        return await self._inner.request(
            peer, protocol, body, reply_bytes_max=reply_bytes_max, timeout_s=timeout_s
        )

    def queues(self) -> None:
        """See how much gossip waits."""
        self._observations.queue(self._member.index, self._inner.gossip_waiting)

    def replies(self, protocol: str, reply: bytes) -> bytes:
        """See what an answer carries away."""
        self._world.step(self._member)
        self._observations.replied(self._member.index, protocol, reply)
        return reply

    def connected(self) -> frozenset[int]:
        """As the real one."""
        return self._inner.connected()

    def last_seen_s(self) -> Mapping[int, float]:
        """As the real one."""
        return self._inner.last_seen_s()

    def traffic(self) -> Traffic:
        """As the real one."""
        return self._inner.traffic()


@final
class _WatchedHandlers:
    def __init__(self, network: _WatchedNetwork, inner: Handlers) -> None:
        self._network = network
        self._inner = inner

    async def on_gossip(self, peer: int, message: bytes) -> None:
        self._network.queues()
        await self._inner.on_gossip(peer, message)

    async def on_request(self, peer: int, protocol: str, body: bytes) -> bytes:
        reply = await self._inner.on_request(peer, protocol, body)
        return self._network.replies(protocol, reply)
