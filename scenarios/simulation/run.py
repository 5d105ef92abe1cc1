"""One seed: a safety phase in which anything may fail, then a liveness phase in which it may not matter.

Room: scenarios. Carries a plan out on a running swarm; what must hold is judged by observations.py
while it runs and by checkers.py afterwards.
"""

import gc
import hashlib
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import trio

from ledger.errors import SwarmError
from node.network_memory import MemoryHub
from node.service import Service
from scenarios.simulation.checkers import Evidence, check
from scenarios.simulation.federation import charter_of, sites_of
from scenarios.simulation.mischief import Mischief
from scenarios.simulation.observations import Observations, Violation
from scenarios.simulation.once import worked_out_once
from scenarios.simulation.plan import HEALTHY_ROUNDS, Plan
from scenarios.simulation.plants import planted
from scenarios.simulation.swarm import Swarm, heads_digest
from scenarios.simulation.window import Half, Halved
from scenarios.simulation.world import Rough
from swarm.protocol.round import Phase

LOOK_S: Final = 1.0
"""Virtual seconds between two looks at the members."""
GARBAGE: Final = 200_000, 20, 100
"""New objects between two looks for cycles, and how often the older ones are looked at too."""
ROUND_LOOKS: Final = 20
"""Looks a second for the round that has begun, where faults wait for it."""
REVIVE_S: Final = 3.0
"""After healing a member that stopped is started again so often."""
RAM_DISK: Final = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedResult:
    """What a seed came to."""

    seed: int
    violations: tuple[Violation, ...]
    heads: str
    """SHA-256 over all members' final ledger heads, hexadecimal."""
    begun: tuple[str, ...]
    """Kinds of the faults that began before everything was healed."""
    planned: int
    virtual_s: float
    wall_s: float
    cpu_s: float
    records: int
    steps: int
    torn_commits: int
    late_inputs: int
    """Late updates that agreed rounds have merged."""


def run_plan(
    plan: Plan, *, plant: str = "", trace: Callable[[str], None] | None = None
) -> SeedResult:
    """Run one plan to its end, judge it, and leave nothing behind. ``plant``: a bug (plants.py)."""
    with scratch_folder() as directory:
        return judged(Run(plan, directory, trace), plant=plant)


def judged(run: "Run", *, plant: str = "") -> SeedResult:
    """Run to the end and judge what is left."""
    started_s, cpu_s = time.perf_counter(), time.process_time()
    with planted(plant), rarely_collected():
        virtual_s = run.run()
    if not run.observations.violations or run.is_traced:
        check(run.evidence(), run.observations)
    return SeedResult(
        seed=run.plan.seed,
        violations=tuple(sorted(run.observations.violations)),
        heads=joined_heads(run.heads()),
        begun=run.begun(),
        planned=len(run.plan.faults),
        virtual_s=virtual_s,
        wall_s=time.perf_counter() - started_s,
        cpu_s=time.process_time() - cpu_s,
        records=run.records(),
        steps=sum(member.steps for member in run.world.members),
        torn_commits=sum(member.disk.torn_commits for member in run.world.members),
        late_inputs=run.observations.late_inputs,
    )


@contextmanager
def rarely_collected() -> Iterator[None]:
    """Let Python look for cycles less often: what a swarm leaves is no garbage, and much to look through."""
    before = gc.get_threshold()
    gc.set_threshold(*GARBAGE)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder in memory where there is such a place; gone afterwards."""
    place = RAM_DISK if RAM_DISK.is_dir() else None
    directory = Path(tempfile.mkdtemp(prefix="swarm-simulation-", dir=place))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@final
class Run:
    """A plan on its way."""

    def __init__(
        self,
        plan: Plan,
        directory: Path,
        trace: Callable[[str], None] | None = None,
        *,
        halved: Halved | None = None,
    ) -> None:
        """halved: only half of the members run in this process; the plan is calm (halves.py)."""
        self.plan = plan
        self.is_traced = trace is not None
        self.observations = Observations(frozenset(plan.honest), plan.sites)
        self._hub = MemoryHub(seed=plan.seed, conditions=plan.network)
        self._half = Half(*halved, self._hub, plan.members) if halved else None
        self._here = list(self._half.here if self._half else range(plan.members))
        """Members that run in this process: who is added comes to them."""
        self.world = Rough(
            plan, self._hub, directory, self.observations,
            payloads=directory.parent if halved else directory, trace=trace,
        )  # fmt: skip
        self.swarm = Swarm(
            charter_of(plan), sites_of(plan), directory, self._hub, plan.seed, self.world,
            sync_interval_s=plan.sync_interval_s, here=tuple(self._here),
        )  # fmt: skip
        self._directory = directory
        self._mischief = Mischief(
            plan, self.swarm, self.world, self._hub, self._here, excuse=self._excuse
        )

    def run(self) -> float:
        """Run both phases; return the virtual seconds that they took."""
        limit_s = self.plan.heal_s + self.plan.liveness_s() + 900.0
        with self.world.flushes(), worked_out_once():
            try:
                return self.swarm.run_to_end(self._conduct, virtual_s_max=limit_s)
            except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - a bug of the node's is a finding
                asked_to_stop = _request_to_stop(error)
                if asked_to_stop is not None:
                    raise asked_to_stop from None
                text = "".join(traceback.format_exception(error))
                self.world_says(text)
                self.observations.blame("no-bug", _last_line(error))
                return limit_s

    def world_says(self, text: str) -> None:
        """Show a traceback in the trace."""
        if self.world._trace is not None:  # noqa: SLF001 - one thing in two halves
            self.world._trace(text)  # noqa: SLF001

    def heads(self) -> dict[int, str]:
        """SHA-256 over the heads that a member holds, hexadecimal."""
        return {index: heads_digest(one) for index, one in self.swarm.services.items()}

    def records(self) -> int:
        """How many records the fullest member holds."""
        counts = [sum(one.journal.counts().values()) for one in self.swarm.services.values()]
        return max(counts, default=0)

    def begun(self) -> tuple[str, ...]:
        """Kinds of the faults that came to happen."""
        return tuple(type(one).__name__ for one in self._mischief.begun)

    def evidence(self) -> Evidence:
        """What is left on the disks."""
        lasting = self._lasting()
        disks = {index: self.world.members[index].disk.path for index in lasting}
        return Evidence(
            plan=self.plan, charter=self.swarm.charter, disks=disks,
            lasting=frozenset(lasting), left=frozenset(self.swarm.leaving),
            payloads=self.world.payloads, scratch=self._directory,
        )  # fmt: skip

    def _lasting(self) -> list[int]:
        """Who must make progress: not who has been removed, or leaves."""
        return [
            index
            for index in self.plan.lasting
            if index in self._here
            and index not in self.swarm.leaving
            and not self._is_removed(index)
        ]

    def _is_removed(self, index: int) -> bool:
        """Whether somebody honest has heard so."""
        rosters = [
            service.journal.roster
            for one in self.plan.honest
            if (service := self.swarm.services.get(one)) is not None
        ]
        return any(index < len(one.members) and not one.is_active(index) for one in rosters)

    # The two phases

    async def _conduct(self, swarm: Swarm) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look)
            if self._half is not None:
                nursery.start_soon(self._half.run)
            async with self._mischief.in_nursery(nursery):
                await self._until_healing()
            await self._mischief.heal()
            await self._until_done()
            nursery.cancel_scope.cancel()
        await self._stop(swarm)
        if self._half is not None:
            self._half.end()

    async def _until_healing(self) -> None:
        """Wait for the plan's moment, but leave HEALTHY_ROUNDS in which nothing fails."""
        interval_s = LOOK_S / (ROUND_LOOKS if self._mischief.waits_for_rounds() else 4)
        with trio.move_on_after(self.plan.heal_s):
            while True:
                running = [
                    self.swarm.services[i] for i in self.plan.honest if i in self.swarm.services
                ]
                furthest = max((one.machine.round for one in running), default=0)
                if furthest > self.plan.rounds - HEALTHY_ROUNDS:
                    return
                self._mischief.round_begins(furthest)
                await trio.sleep(interval_s)

    async def _until_done(self) -> None:
        """Wait until all lasting members agree; start again whoever stopped."""
        with trio.move_on_after(self.plan.liveness_s()) as patience:
            while not self._is_converged() and not self.observations.violations:
                for index in (*self._lasting(), *sorted(self.swarm.leaving)):
                    ended = self.swarm.ended[index].is_set()
                    service = self.swarm.services.get(index)
                    left = service is not None and service.machine.phase is Phase.DONE
                    if ended and not self._mischief.returns(index) and not left:
                        self._excuse(index)
                        self.swarm.start(index)
                await trio.sleep(REVIVE_S if self._is_someone_down() else LOOK_S / 2)
        if patience.cancelled_caught:
            self.observations.blame("progress", self._standing())

    def _is_someone_down(self) -> bool:
        return any(self.swarm.ended[index].is_set() for index in self._lasting())

    def _excuse(self, index: int) -> None:
        """A member that stopped by itself must have had a disk to blame."""
        error = self.swarm.errors.pop(index, None)
        if error is not None:
            self._judge_stop(index, error)

    def _judge_stop(self, index: int, error: SwarmError) -> None:
        self.world.say(f"member {index} stopped: {error}")
        said = str(error)
        if "disk is full" in said or "I/O error" in said or "No space left" in said:
            return
        if "Input/output error" in said:
            return
        if "was removed from the federation" in said and self._is_removed(index):
            return
        self.observations.blame("stays-up", f"member {index} stops: {said}")

    def _is_converged(self) -> bool:
        """Whether all lasting members have closed, hold the same honest logs, and are settled."""
        services = []
        leaving = [self.swarm.services[index] for index in sorted(self.swarm.leaving)]
        if any(one.machine.phase is not Phase.DONE for one in leaving):
            return False
        for index in self._lasting():
            service = self.swarm.services.get(index)
            if service is None or (self.plan.to_the_end and service.machine.phase != Phase.DONE):
                return False
            if service.machine.phase < Phase.LINGER or index not in service.book.closed:
                return False
            if self.swarm.ended[index].is_set() and service.machine.phase != Phase.DONE:
                return False
            services.append(service)
        honest = set(self.plan.honest)
        heads = {
            tuple(
                sorted(
                    (log, h.prev_id) for log, h in one.journal.heads().items() if log[0] in honest
                )
            )
            for one in services
        }
        is_done = len(heads) == 1 and self._is_settled(services)
        if self._half is None or not is_done:
            return is_done
        return self._half.agrees(hashlib.sha256(repr(*heads).encode()).hexdigest())

    def _is_settled(self, services: Sequence[Service]) -> bool:
        """Whether the end has one model for all; with liars, whether a healthy round was agreed.

        A liar within f may still split a round, a whole run of them it may not.
        """
        if self.plan.averaging == "gossip":
            return True  # every member has its own
        if not self.plan.liars:
            return len({one.machine.model for one in services}) == 1
        healthy = range(self.plan.rounds - HEALTHY_ROUNDS + 1, self.plan.rounds + 1)
        return all(set(one.book.agreed_rounds()).intersection(healthy) for one in services)

    def _standing(self) -> str:
        told = []
        for index in (*self._lasting(), *sorted(self.swarm.leaving)):
            service = self.swarm.services.get(index)
            if service is None:
                told.append(f"{index}: never started")
                continue
            machine = service.machine
            state = "ended" if self.swarm.ended[index].is_set() else "runs"
            agreed = [r for r in service.book.agreed_rounds() if r]
            told.append(
                f"{index}: {state}, round {machine.round} {machine.phase.name.lower()}, "
                f"agreed {agreed}, model {machine.model.hex()[:8]}"
            )
        return f"not done {self.plan.liveness_s():.0f} s after healing ({'; '.join(told)})"

    async def _stop(self, swarm: Swarm) -> None:
        """End everybody who still runs; what is on the disks then is judged."""
        for index in self._here:
            if not swarm.ended[index].is_set():
                self.world.stops(index)
                self.swarm.cut_down(index)
        for index in self._here:
            await swarm.ended[index].wait()

    async def _look(self) -> None:
        while True:
            for index in self.plan.honest:
                service = self.swarm.services.get(index)
                if service is not None and not self.swarm.ended[index].is_set():
                    self.observations.looks(index, service)
            await trio.sleep(LOOK_S)


def joined_heads(by_member: Mapping[int, str]) -> str:
    """SHA-256 over all members' heads, hexadecimal."""
    joined = "".join(by_member[index] for index in sorted(by_member))
    return hashlib.sha256(joined.encode()).hexdigest()


def _request_to_stop(error: BaseException | None) -> BaseException | None:
    """Find Ctrl-C or the end of the process, where a task, or trio itself, was what heard of it."""
    left, seen = [error], set[int]()
    while left:
        one = left.pop()
        if one is None or id(one) in seen:  # an error may be its own cause, around a few corners
            continue
        if isinstance(one, KeyboardInterrupt | SystemExit):
            return one
        seen.add(id(one))
        left += [*(one.exceptions if isinstance(one, BaseExceptionGroup) else ()), one.__cause__]
    return None


def _last_line(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    where = traceback.extract_tb(error.__traceback__)
    last = f" ({Path(where[-1].filename).name}:{where[-1].lineno})" if where else ""
    return f"{type(error).__name__}: {error}{last}"
