"""What a plan does to a running swarm: faults begin, end, and are healed. Room: scenarios."""

import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, final

import trio

from node.network_memory import Conditions, MemoryHub
from node.service import Service
from scenarios.simulation import faults as plans
from scenarios.simulation.faults import CrashAtStep
from scenarios.simulation.plan import Plan
from scenarios.simulation.rosters import Admins, removal, rotation
from scenarios.simulation.swarm import Swarm
from scenarios.simulation.window import WINDOW_S
from scenarios.simulation.world import Rough
from swarm.protocol.round import Phase

HEALED: Final = Conditions(delay_s=WINDOW_S)


@final
class Mischief:
    """Lets the faults of a plan happen, and mends what they did."""

    def __init__(
        self,
        plan: Plan,
        swarm: Swarm,
        world: Rough,
        hub: MemoryHub,
        here: list[int],
        *,
        excuse: Callable[[int], None],
    ) -> None:
        """here: members that run in this process; who is added comes to them.

        excuse: judges a member that stopped by itself.
        """
        self._plan, self._swarm, self._world, self._hub = plan, swarm, world, hub
        self._here = here
        self._excuse = excuse
        self._admins = Admins(swarm, world, plan.honest)
        self._healed = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._down: set[int] = set()
        """Members whose return somebody sees to, or who stay away."""
        self._rounds_begun = [trio.Event() for _ in range(plan.rounds + 2)]
        """Set when the first honest member begins that round."""
        self.begun: list[plans.Timed | CrashAtStep] = []
        """Faults that came to happen."""

    @asynccontextmanager
    async def in_nursery(self, nursery: trio.Nursery) -> AsyncIterator[None]:
        """Let faults begin meanwhile; those who are down return in this nursery, also later."""
        self._nursery = nursery
        self._world.crashed = self._crashed
        async with trio.open_nursery() as timed:
            for fault in self._timed():
                timed.start_soon(self._happen, fault)
            yield
            timed.cancel_scope.cancel()

    def waits_for_rounds(self) -> bool:
        """Tell whether a fault begins with a round."""
        return any(one.from_round is not None for one in self._timed())

    def round_begins(self, round_: int) -> None:
        """Somebody honest is in this round now."""
        for begun in self._rounds_begun[: round_ + 1]:
            begun.set()

    def returns(self, index: int) -> bool:
        """Tell whether a member is brought back by what took it down, or is to stay away."""
        return index in self._down

    def _timed(self) -> list[plans.Timed]:
        return [one for one in self._plan.faults if isinstance(one, plans.Timed)]

    async def heal(self) -> None:
        """Mend everything but the liars, and those who stay away."""
        self._world.say("healed")
        self._healed.set()
        self._hub.heal()
        self._hub.conditions = HEALED
        for source in range(self._plan.sites):
            for target in range(self._plan.sites):
                self._hub.shape(source, target, None)
        for member in self._world.members:
            member.crashes.clear()
            member.disk.fault = None
            member.stalled_s = 0.0
        for index in self._plan.stays_dead:
            self._down.add(index)
            if not self._swarm.ended[index].is_set():
                self._take_down(index, power=True)
                await self._swarm.ended[index].wait()

    def _take_down(self, index: int, *, power: bool) -> None:
        self._world.dies(index, power=power)
        self._swarm.cut_down(index)

    def _crashed(self, index: int, crash: CrashAtStep) -> None:
        """A member has died at one of its steps: end the rest of it, and bring it back later."""
        self.begun.append(crash)
        self._swarm.cut_down(index)
        self._down.add(index)
        self._bring_back(index, crash.down_s)

    def _bring_back(self, index: int, down_s: float) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._return, index, down_s)

    async def _return(self, index: int, down_s: float) -> None:
        """Start a dead member again, sooner if all is healed."""
        await self._swarm.ended[index].wait()
        with trio.move_on_after(down_s):
            await self._healed.wait()
        if index in self._plan.stays_dead and self._healed.is_set():
            return
        self._down.discard(index)
        if self._swarm.ended[index].is_set():
            self._swarm.start(index)

    async def _happen(self, fault: plans.Timed) -> None:
        """Let one fault begin and end."""
        if fault.from_round is not None:
            await self._rounds_begun[fault.from_round].wait()
        await trio.sleep(fault.at_s)
        if isinstance(fault, plans.Kill | plans.Rotation | plans.Leaving) and self._is_away(
            fault.member
        ):
            return
        if isinstance(fault, plans.BadDisk) and fault.member not in self._here:
            return
        self.begun.append(fault)
        match fault:
            case plans.Kill() | plans.Leaving():
                self._kill(fault)
            case plans.BadDisk():
                await self._spoil(fault)
            case plans.Cut():
                await self._cut(fault)
            case plans.Rotation() | plans.Removal() | plans.Addition():
                await self._change_roster(fault)
            case plans.ClockJump():
                self._world.members[fault.member].skew_ms += fault.by_ms
            case plans.SlowLink() | plans.Weather() | plans.Stall():
                self._hamper(fault)
                await trio.sleep(fault.for_s)
                self._relieve(fault)

    def _hamper(self, fault: plans.SlowLink | plans.Weather | plans.Stall) -> None:
        match fault:
            case plans.SlowLink():
                slow = Conditions(
                    delay_s=fault.delay_s, jitter_s=fault.delay_s / 2,
                    bandwidth_bytes_s=fault.bandwidth_bytes_s,
                )  # fmt: skip
                self._hub.shape(fault.source, fault.target, slow)
            case plans.Weather():
                self._hub.conditions = fault.conditions
            case plans.Stall():
                self._world.members[fault.member].stalled_s = fault.cost_s

    def _relieve(self, fault: plans.SlowLink | plans.Weather | plans.Stall) -> None:
        match fault:
            case plans.SlowLink():
                self._hub.shape(fault.source, fault.target, None)
            case plans.Weather():
                self._hub.conditions = self._plan.network
            case plans.Stall():
                self._world.members[fault.member].stalled_s = 0.0

    def _is_away(self, index: int) -> bool:
        """Whether an honest member is down already, or not there yet; liars are rotated from without."""
        return index in self._plan.honest and (
            index not in self._here or index in self._down or self._swarm.ended[index].is_set()
        )

    def _kill(self, fault: plans.Kill | plans.Leaving) -> None:
        index = fault.member
        self._world.say(str(fault))
        self._down.add(index)
        if isinstance(fault, plans.Leaving):
            self._swarm.leaving.add(index)
        self._take_down(index, power=isinstance(fault, plans.Kill) and fault.power)
        self._bring_back(index, fault.down_s)

    async def _change_roster(self, fault: plans.Rotation | plans.Removal | plans.Addition) -> None:
        """Let the admins sign; a liar is rotated from without, and goes on with its old key."""
        match fault:
            case plans.Addition():
                if self._admins.add(fault.member, self._running()):
                    self._here.append(fault.member)
                    self._swarm.start(fault.member)
            case plans.Rotation() if fault.member in self._plan.honest:
                await self._rotate(fault)
            case _:
                update_of = removal if isinstance(fault, plans.Removal) else rotation
                await self._admins.vote_out(fault.member, update_of, self._running())

    async def _rotate(self, fault: plans.Rotation) -> None:
        """Stop a site, cut its log where it ends, and start it with its next key; others hear it from it."""
        index = fault.member
        self._down.add(index)
        self._take_down(index, power=False)
        await self._swarm.ended[index].wait()
        self._admins.rotate(index)
        self._bring_back(index, fault.down_s)

    def _running(self) -> list[Service]:
        """Return the honest members that run, and are not about to end."""
        return [
            self._swarm.services[index]
            for index in self._plan.honest
            if index in self._swarm.services and not self._is_away(index)
        ]

    async def _spoil(self, fault: plans.BadDisk) -> None:
        """Writes fail; a node that stops for it is started again once the disk is mended."""
        index = fault.member
        disk = self._world.members[index].disk
        self._world.say(f"disk of member {index} fails")
        disk.fault = errno.EIO if fault.broken else errno.ENOSPC
        await trio.sleep(fault.for_s)
        disk.fault = None
        if self._swarm.ended[index].is_set() and index not in self._down:
            self._excuse(index)
            service = self._swarm.services.get(index)
            if service is None or service.machine.phase is not Phase.DONE:
                self._swarm.start(index)

    async def _cut(self, fault: plans.Cut) -> None:
        pairs = [(a, b) for a in fault.sources for b in fault.targets]
        if fault.symmetric:
            pairs += [(b, a) for a, b in pairs]
        self._world.say(str(fault))
        for source, target in pairs:
            self._hub.block(source, target)
        await trio.sleep(fault.for_s)
        for source, target in pairs:
            self._hub.unblock(source, target)
