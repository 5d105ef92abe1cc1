"""What happens in one seed, drawn before it runs: the swarm, its policy, its liars and its faults.

Room: scenarios. Pure: a seed goes in, a plan comes out; its text is what a failure prints. Each seed
draws first which kinds of fault it has at all, so that kinds also meet alone and in pairs (swarm
testing: Groce et al. 2012, https://doi.org/10.1145/2338965.2336763).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from typing import Any, Final, final

from ledger.roster import tolerated
from node.network_memory import Conditions
from scenarios.simulation.faults import (
    Addition,
    BadDisk,
    ClockJump,
    CrashAtStep,
    Cut,
    Fault,
    Kill,
    Leaving,
    Liar,
    Removal,
    Rotation,
    SlowLink,
    Stall,
    Weather,
)
from scenarios.simulation.liars import ATTACKS

LEARNING: Final = (
    "",
    "",
    'rule = "median"',
    'rule = "trimmed_mean"\nneighbour_mixing = true\ncodec = "top_k_int8"\nkeep_share = 0.5',
    'strategy = "fedadam"\ncodec = "int8"',
)
"""Charters whose merges start from the round's base, beside the plain one."""
LEARNING_NEAR: Final = ("", 'rule = "median"')
"""The same for averaging with neighbours."""
SAFETY_S: Final = (15.0, 45.0)
"""Virtual seconds after which everything is healed, however far the rounds have come."""
HEALTHY_ROUNDS: Final = 3
"""Rounds at the end in which nothing fails but liars: members that are rounds apart meet again in them."""
LAGGARD_SHARE: Final = 0.3
"""In so many of those that can do without one member, one trains much longer than the others."""
FAULTS_MAX: Final = 9
REPUTATION: Final = ("off", "off", "off", "score", "weigh")
"""Charters in which members judge each other, where all average with all."""
GOSSIP_SHARE: Final = 0.12
"""Of the plans, so many average with neighbours."""
ROTATED_SHARE: Final = 0.12
"""In so many a member or two get new keys while rounds are under way."""
REMOVED_SHARE: Final = 0.25
"""In so many of those that have a liar, and it is not rotated, it is removed."""
JUDGED_SHARE: Final = 0.7
"""Of the seeds with a liar that forks: those in which it is rotated or removed."""
ADDED_SHARE: Final = 0.12
"""In so many a hospital or two are added while rounds are under way."""
LEAVER_SHARE: Final = 0.08
"""In so many of those that can do without one, an honest member is removed, in as many one leaves."""
HOUR_MS: Final = 3_600_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """What the command line may fix; None is drawn."""

    members: int | None = None
    rounds: int | None = None
    averaging: str | None = None
    calm: bool = False
    """No fault and no liar: for measuring."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One seed's history to be."""

    seed: int
    members: int
    """Of the charter; who is added later has the numbers behind them."""
    rounds: int
    averaging: str
    learning: str
    """What the charter's [aggregation] says beside: rule, codec, strategy."""
    reputation: str
    """The charter's reputation.mode."""
    has_moments: bool
    members_min: int
    deadline_min_s: float
    deadline_max_s: float
    grace_s: float
    start_wait_s: float
    inactive_after_rounds: int
    compute_s: tuple[float, ...]
    """Per site: virtual seconds for one round's training; the rest takes shares of it."""
    skew_ms: tuple[int, ...]
    """Per site: how wrong its wall clock is from the start."""
    sync_interval_s: float
    network: Conditions
    """What the network is like when nothing happens to it."""
    liars: tuple[Liar, ...]
    faults: tuple[Fault, ...]
    stays_dead: tuple[int, ...]
    """Honest members that are down when the rest heals and never come back; with the liars at most f."""
    heal_s: float
    to_the_end: bool
    """Whether the run lasts until every node has left, not only until all agree."""

    @cached_property
    def sites(self) -> int:
        """How many hospitals there may be in the end: the charter's members, and who is added."""
        return self.members + len({one.member for one in self.faults if isinstance(one, Addition)})

    @property
    def tolerated(self) -> int:
        """F."""
        return tolerated(self.members)

    @property
    def is_calm(self) -> bool:
        """Whether nobody fails or lies."""
        return not (self.faults or self.liars or self.stays_dead)

    @cached_property
    def honest(self) -> tuple[int, ...]:
        """Sites that do not lie."""
        liars = {liar.member for liar in self.liars}
        return tuple(index for index in range(self.sites) if index not in liars)

    @cached_property
    def lasting(self) -> tuple[int, ...]:
        """Honest sites that must make progress after healing, if they are members by then."""
        return tuple(index for index in self.honest if index not in self.stays_dead)

    def liveness_s(self) -> float:
        """Virtual seconds after healing within which everybody must be done."""
        round_s = self.deadline_max_s * 2 + 12 * self.grace_s + 8 * max(self.compute_s)
        return self.start_wait_s + (self.rounds + 2) * round_s + 120.0

    def lines(self) -> list[str]:
        """Say it in words, one fact a line."""
        swarm = (
            f"seed {self.seed}: {self.members} members, {self.rounds} rounds"
            f"{' after round zero' if self.has_moments else ''}"
            f"{'' if self.averaging == 'full' else ', averaging with neighbours'}, at least {self.members_min} a round, "
            f"deadline {self.deadline_min_s:g} to {self.deadline_max_s:g} s, grace {self.grace_s:g} s"
            + "".join(f", {one}" for one in self.learning.splitlines())
            + (f", reputation: {self.reputation}" if self.reputation != "off" else "")
        )
        machines = (
            f"training takes {_numbers(self.compute_s)} s, clocks are off by "
            f"{', '.join(map(str, self.skew_ms))} ms, heads compared every {self.sync_interval_s:g} s"
        )
        dead = ", ".join(map(str, self.stays_dead))
        healing = (
            f"healed after {self.heal_s:.1f} s, or before the last {HEALTHY_ROUNDS} rounds"
            + (f"; stays dead: {dead}" if dead else "")
        )
        said = [swarm, machines, healing]
        return said + [f"  {one}" for one in (*self.liars, *self.faults)]


def draw_plan(seed: int, size: Size | None = None) -> Plan:
    """Return the plan of a seed: the same for the same seed and size, on every machine."""
    size = size or Size()
    draw = Random(f"swarm/simulation/plan/{seed}")  # noqa: S311 - not a secret
    members = size.members or draw.choice((4, 4, 4, 4, 4, 4, 5, 5, 6, 7))
    rounds = size.rounds or draw.choice((6, 6, 6, 7, 8))
    heal_s = draw.uniform(*SAFETY_S)
    f = tolerated(members)
    liars = () if size.calm else _draw_liars(draw, members, draw.choice((0, 0, 1, 1, f)), f)
    lying = {liar.member for liar in liars}
    upright = [index for index in range(members) if index not in lying]
    spare = 0 if size.calm else f - len(liars)
    stays_dead = tuple(draw.sample(upright, spare)) if spare and draw.random() < 0.15 else ()
    lasting = [one for one in upright if one not in stays_dead]
    base_s = draw.choice((0.05, 0.3, 1.0))
    compute_s = [round(base_s * draw.uniform(0.5, 1.5), 3) for _ in range(members)]
    network = Conditions(
        delay_s=draw.choice((0.0, 0.01, 0.05)), jitter_s=draw.choice((0.0, 0.02, 0.1))
    )
    times = _Times(draw, rounds, _round_s(max(compute_s), network))
    if spare and not stays_dead and draw.random() < LAGGARD_SHARE:
        compute_s[draw.choice(upright)] *= round(draw.uniform(4.0, 15.0), 1)
    skewed = draw.random() < 0.3
    averaging = size.averaging or ("gossip" if draw.random() < GOSSIP_SHARE else "full")
    learning = draw.choice(LEARNING if averaging == "full" else LEARNING_NEAR)
    plan = Plan(
        seed=seed,
        members=members,
        rounds=rounds,
        averaging=averaging,
        learning=learning,
        reputation=draw.choice(REPUTATION) if averaging == "full" else "off",
        has_moments=draw.random() < 0.25,
        members_min=draw.randint(2, max(2, (members + 1) // 2)),
        deadline_min_s=draw.choice((2.0, 5.0)),
        deadline_max_s=draw.choice((6.0, 10.0, 20.0)),
        grace_s=draw.choice((1.0, 2.0)),
        start_wait_s=draw.choice((5.0, 15.0)),
        inactive_after_rounds=draw.randint(1, 3),
        compute_s=tuple(compute_s),
        skew_ms=tuple(
            draw.randint(-HOUR_MS, HOUR_MS) if skewed and draw.random() < 0.5 else 0
            for _ in range(members)
        ),
        sync_interval_s=draw.choice((2.0, 5.0, 8.0)),
        network=network,
        liars=liars,
        faults=()
        if size.calm
        else _draw_faults(_Dice(draw, members, upright, times))
        + _draw_rotations(draw, lasting, times)
        + _draw_voted_out(draw, liars, times),
        stays_dead=stays_dead,
        heal_s=0.0 if size.calm else round(heal_s, 1),
        to_the_end=draw.random() < 0.1,
    )
    return plan if size.calm else _grown(_shrunk(_judged(plan)))


def _judged(plan: Plan) -> Plan:
    """Return the plan with a liar that forks rotated or removed, or as it is: drawn apart from the rest.

    Members hold different branches, and whoever gathers the signatures keeps the own one.
    """
    draw = Random(f"swarm/simulation/judged/{plan.seed}")  # noqa: S311 - not a secret
    forking = [liar.member for liar in plan.liars if "equivocate" in liar.attacks]
    changed = {one.member for one in plan.faults if isinstance(one, Rotation | Removal)}
    times, kind = (
        _Times(draw, plan.rounds, _round_s(max(plan.compute_s), plan.network)),
        draw.random(),
    )
    if not forking or changed.intersection(forking) or kind >= JUDGED_SHARE:
        return plan
    member, begin = forking[0], times.begin()
    goes: Fault = Rotation(member=member, down_s=0.0, **begin)
    if kind < JUDGED_SHARE / 2 and not any(isinstance(one, Removal) for one in plan.faults):
        goes = Removal(member=member, **begin)
    return replace(plan, faults=(*plan.faults, goes))


def _shrunk(plan: Plan) -> Plan:
    """Return the plan with an honest member that is removed or leaves, or as it is: drawn apart from the rest."""
    draw = Random(f"swarm/simulation/leavers/{plan.seed}")  # noqa: S311 - not a secret
    lost, kind = len(plan.liars) + len(plan.stays_dead), draw.random()
    times = _Times(draw, plan.rounds, _round_s(max(plan.compute_s), plan.network))
    member = draw.choice(plan.lasting)
    if any(isinstance(fault, Removal) for fault in plan.faults):
        return plan
    goes: Fault
    if kind < LEAVER_SHARE and lost <= tolerated(plan.members - 1):
        goes = Removal(member=member, **times.begin())
    elif LEAVER_SHARE <= kind < 2 * LEAVER_SHARE and lost < plan.tolerated:
        goes = Leaving(member=member, down_s=round(draw.uniform(0.0, 5.0), 2), **times.begin())
    else:
        return plan
    return replace(plan, faults=(*plan.faults, goes))


def _grown(plan: Plan) -> Plan:
    """Return the plan with hospitals added on the way, or as it is: drawn apart from the rest of it."""
    draw = Random(f"swarm/simulation/additions/{plan.seed}")  # noqa: S311 - not a secret
    if draw.random() >= ADDED_SHARE:
        return plan
    added = range(plan.members, plan.members + draw.choice((1, 1, 1, 2)))
    times = _Times(draw, plan.rounds, _round_s(max(plan.compute_s), plan.network))
    dice = _Dice(draw, added.stop, added, times)
    mishaps = (dice.kill, dice.crash, dice.cut, dice.disk, dice.stall)
    joins = [Addition(member=member, **times.begin()) for member in added]
    meets = [draw.choice(mishaps)() for _ in range(draw.choice((0, 0, 1, 2)))]
    compute_s = [round(draw.uniform(0.5, 1.5) * min(plan.compute_s), 3) for _ in added]
    return replace(
        plan,
        faults=(*plan.faults, *joins, *meets),
        compute_s=(*plan.compute_s, *compute_s),
        skew_ms=(*plan.skew_ms, *(0 for _ in added)),
    )


def _round_s(compute_s: float, network: Conditions) -> float:
    """About how long a round lasts in which nothing fails (seen: 0.2 to 2.5 s)."""
    return 0.1 + 1.4 * compute_s + 4 * (network.delay_s + network.jitter_s / 2)


@final
class _Times:
    """Draws when something begins: in any round that faults may come in, at any moment of it."""

    def __init__(self, draw: Random, rounds: int, round_s: float) -> None:
        self._draw = draw
        self._last = max(0, rounds - HEALTHY_ROUNDS)
        self._round_s = round_s

    def begin(self) -> dict[str, Any]:
        """Return what a Timed fault has."""
        return {
            "from_round": self._draw.randint(0, self._last),
            "at_s": round(self._draw.uniform(0.0, self._round_s), 3),
        }


def _draw_rotations(draw: Random, members: Sequence[int], times: _Times) -> tuple[Fault, ...]:
    if draw.random() >= ROTATED_SHARE:
        return ()
    return tuple(
        Rotation(member=member, down_s=round(draw.uniform(0.5, 10.0), 2), **times.begin())
        for member in draw.sample(members, draw.randint(1, min(2, len(members))))
    )


def _draw_voted_out(draw: Random, liars: Sequence[Liar], times: _Times) -> tuple[Fault, ...]:
    """Rotate a liar, or remove it; one that forks: _judged."""
    plain = [liar.member for liar in liars if "equivocate" not in liar.attacks]
    if plain and draw.random() < ROTATED_SHARE:
        return (Rotation(member=plain[0], down_s=0.0, **times.begin()),)
    if plain and draw.random() < REMOVED_SHARE:
        return (Removal(member=plain[0], **times.begin()),)
    return ()


def _draw_liars(draw: Random, members: int, count: int, tolerated: int) -> tuple[Liar, ...]:
    liars = []
    for member in draw.sample(range(members), min(count, tolerated)):
        attacks = draw.sample(ATTACKS, draw.choice((1, 1, 2, 3)))
        liars.append(Liar(member=member, attacks=tuple(sorted(attacks))))
    return tuple(liars)


def _draw_faults(dice: "_Dice") -> tuple[Fault, ...]:
    kinds: tuple[Callable[[], Fault], ...] = (
        dice.kill, dice.crash, dice.disk, dice.cut, dice.slow, dice.weather, dice.clock, dice.stall,
    )  # fmt: skip
    chosen = dice.draw.sample(kinds, dice.draw.randint(1, 4))
    drawn = [dice.draw.choice(chosen)() for _ in range(dice.draw.randint(0, FAULTS_MAX))]
    return tuple(sorted(drawn, key=_when))


@final
class _Dice:
    """Draws one fault of each kind."""

    def __init__(self, draw: Random, members: int, upright: Sequence[int], times: _Times) -> None:
        self.draw = draw
        self._everyone = range(members)
        self._upright = upright
        self._begin = times.begin

    def _for_s(self) -> float:
        return round(self.draw.choice((0.5, 3.0, 8.0, 20.0)) * self.draw.uniform(0.5, 1.5), 2)

    def kill(self) -> Fault:
        return Kill(
            member=self.draw.choice(self._upright), down_s=self._for_s(),
            power=self.draw.random() < 0.6, **self._begin(),
        )  # fmt: skip

    def crash(self) -> Fault:
        step = int(2 ** self.draw.uniform(2.0, 10.5))  # the early ones are the denser ones
        return CrashAtStep(
            step=step, member=self.draw.choice(self._upright), down_s=self._for_s(),
            power=self.draw.random() < 0.7,
        )  # fmt: skip

    def disk(self) -> Fault:
        return BadDisk(
            member=self.draw.choice(self._upright), for_s=self._for_s(),
            broken=self.draw.random() < 0.4, **self._begin(),
        )  # fmt: skip

    def cut(self) -> Fault:
        group = self.draw.sample(self._everyone, self.draw.randint(1, len(self._everyone) - 1))
        others = [index for index in self._everyone if index not in group]
        return Cut(
            for_s=self._for_s(), sources=tuple(sorted(group)), targets=tuple(others),
            symmetric=self.draw.random() < 0.6, **self._begin(),
        )  # fmt: skip

    def slow(self) -> Fault:
        source, target = self.draw.sample(self._everyone, 2)
        return SlowLink(
            for_s=self._for_s(), source=source, target=target,
            delay_s=round(self.draw.uniform(0.5, 8.0), 1),
            bandwidth_bytes_s=self.draw.choice((200.0, 2000.0)), **self._begin(),
        )  # fmt: skip

    def weather(self) -> Fault:
        choice = self.draw.choice
        conditions = Conditions(
            loss=choice((0.0, 0.1, 0.3)), delay_s=choice((0.0, 0.1, 1.0)),
            jitter_s=choice((0.0, 0.5, 2.0)), duplicate=choice((0.0, 0.2)),
            detect_s=choice((0.0, 2.0)), reconnect_s=choice((0.0, 1.0)),
        )  # fmt: skip
        return Weather(for_s=self._for_s(), conditions=conditions, **self._begin())

    def clock(self) -> Fault:
        by_ms = self.draw.choice((-1, 1)) * self.draw.choice((1_000, HOUR_MS, 720 * HOUR_MS))
        return ClockJump(member=self.draw.choice(self._everyone), by_ms=by_ms, **self._begin())

    def stall(self) -> Fault:
        return Stall(
            for_s=self._for_s(), member=self.draw.choice(self._everyone),
            cost_s=self.draw.choice((2.0, 5.0, 15.0)), **self._begin(),
        )  # fmt: skip


def _when(fault: Fault) -> tuple[bool, float, float]:
    if isinstance(fault, CrashAtStep):
        return True, fault.step, 0.0
    return False, fault.from_round or 0, fault.at_s


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
