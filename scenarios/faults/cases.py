"""The faults, one function each: start the hospitals, hurt one, say when it was over.

Room: scenarios. A case only acts; verdict.py judges. Members are called by place; the last ones get hurt, so
that the largest hospital (place 0) is among those who must not notice.
"""

import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from ledger.errors import ConfigError
from node.blobs import DISK_SPARE_BYTES
from scenarios.commands import ScenarioError, edit_site
from scenarios.faults.attacks import (
    ATTACK_S,
    MEMBERS,
    STRANGERS,
    Order,
    attack_failures,
    attack_from,
    listening,
)
from scenarios.faults.disk import fill, small_disk
from scenarios.faults.evidence import gather
from scenarios.faults.federation import PORT, Federation, make_federation
from scenarios.faults.logs import Line, closed_between, now_s
from scenarios.faults.namespaces import Namespaces, address_of, why_not
from scenarios.faults.swarm import LiveSwarm
from scenarios.faults.switch import Cable
from scenarios.faults.verdict import CaseResult, Story, judge

START_S: Final = 120.0
ROUND_S: Final = 90.0
END_S: Final = 600.0
DISK_BYTES: Final = DISK_SPARE_BYTES + (64 << 20)
"""A node takes somebody's payload only while so much stays free for its ledger."""
PAUSE_S: Final = 30.0
CUT_S: Final = 30.0
SHORTEST_ROUND_S: Final = 0.35
"""Less than half of what seven hospitals need for a round where nothing else runs: a faster machine, too, has
to have rounds left when a fault that lasts so many seconds is over."""
BACK_S: Final = 12.0
"""Until the hurt member is merged again, a start of its process included."""
WIDE_AREA: Final = Cable(delay_s=0.1, loss=0.05, bytes_per_s=250_000)
"""200 ms there and back, 5 % loss, 2 Mbit/s."""

Moment = Callable[[Line], bool]
MOMENTS: Final[Mapping[str, Moment]] = MappingProxyType(
    {
        "train": lambda line: line.phase == "train",
        "commit": lambda line: line.event == "trained",
        "collect": lambda line: line.phase == "collect",
        "agree": lambda line: line.phase == "agree",
        "aggregate": lambda line: line.phase == "settle",
        "evaluate": lambda line: line.phase == "evaluate",
    }
)
"""Each phase of a round, by the line that a node writes when it is there."""
NOT_IN_GOSSIP: Final = frozenset({"aggregate"})
"""Where nobody votes, the own result stands at once, and no line is written in between."""
AVERAGINGS: Final = ("full", "gossip")
GOSSIP_ROUNDS: Final = 4
"""How many times as many rounds a case needs where nobody waits for whoever is hurt."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How large a case is."""

    members: int = 7
    rounds: int = 0
    """0: as many as the case needs to see the member merged again."""
    seed: int = 1
    partition_s: float = 300.0
    averaging: str = "full"
    """As the charter says it: one model for all, or each averages with its neighbours (gossip)."""

    def __post_init__(self) -> None:
        if self.averaging not in AVERAGINGS:
            raise ConfigError(f'averaging: "{self.averaging}" is none of {", ".join(AVERAGINGS)}')


@dataclass(frozen=True, kw_only=True)
class Case:
    """One fault: what it says of itself, whether it needs namespaces, and what it does."""

    about: str
    act: Callable[[LiveSwarm, Story, Options], None]
    prepare: Callable[[Federation], None] = lambda _federation: None
    """What is different about the hospitals before they start."""
    rounds: int = 40
    needs_namespaces: bool = False
    needs_root: bool = False
    machines: int = 0
    """Machines on the switch beside the hospitals."""


def rounds_for(lasts_s: float) -> int:
    """Rounds of a case whose fault lasts ``lasts_s``, however fast the machine."""
    return math.ceil((lasts_s + BACK_S) / SHORTEST_ROUND_S)


def run_case(name: str, directory: Path, options: Options) -> CaseResult:
    """Run one case from made-up hospitals to the verdict. Raises ConfigError, ScenarioError."""
    case = CASES[name]
    missing = why_not()
    if (case.needs_namespaces or case.needs_root) and missing is not None:
        raise ConfigError(f"{name}: {missing}")
    in_namespaces = missing is None
    rounds = case.rounds * (GOSSIP_ROUNDS if options.averaging == "gossip" else 1)
    federation = make_federation(
        directory, members=options.members, rounds=options.rounds or rounds, seed=options.seed,
        namespaces=in_namespaces, charter={"aggregation.averaging": options.averaging},
    )  # fmt: skip
    case.prepare(federation)
    story = Story()
    count = options.members + case.machines
    machines: AbstractContextManager[Namespaces | None] = (
        Namespaces(count, seed=options.seed) if in_namespaces else nullcontext()
    )
    with machines as namespaces, LiveSwarm(federation, namespaces) as swarm:
        swarm.start_all()
        wait_for_round(swarm, range(len(swarm)), 1, wall_s=START_S)
        case.act(swarm, story, options)
        swarm.start_all()
        swarm.wait_for_the_end(range(len(swarm)), wall_s=END_S)
        logs = [swarm.lines(member) for member in range(len(swarm))]
    return judge(name, gather(federation, logs), story)


def wait_for_round(
    swarm: LiveSwarm, members: Sequence[int], round_: int, *, wall_s: float
) -> float:
    """Wait until all these members are in ``round_`` or later."""
    return swarm.wait_for(
        f"round {round_}",
        lambda: all(swarm.round(member) >= round_ for member in members),
        wall_s=wall_s,
    )


def merged_again(swarm: LiveSwarm, member: int, observer: int, *, wall_s: float) -> float:
    """Wait until a later round closes at ``observer`` with everybody's update; return the seconds.

    Where members average with neighbours, no round has everybody's: until ``member`` itself closes one with
    somebody else's.
    """
    is_gossip = swarm.federation.charter.aggregation.is_gossip
    looked_at, fewest = (member, 2) if is_gossip else (observer, len(swarm))
    now = 0 if is_gossip else swarm.round(observer)

    def is_whole(line: Line) -> bool:
        if line.event != "round_closed" or (line.round or 0) <= now:
            return False
        merged = line.field("merged")
        return isinstance(merged, int) and merged >= fewest

    start_s = time.monotonic()
    swarm.wait_for_line(looked_at, f"member {member} merged again", is_whole, wall_s=wall_s)
    return time.monotonic() - start_s


# The cases


def kill_in_each_phase(swarm: LiveSwarm, story: Story, _: Options) -> None:
    """Kill another member in each phase of a round, one after the other, and start it again."""
    is_gossip = swarm.federation.charter.aggregation.is_gossip
    phases = [phase for phase in MOMENTS if not (is_gossip and phase in NOT_IN_GOSSIP)]
    for at, phase in enumerate(phases):
        victim = len(swarm) - 1 - at % (len(swarm) - 1)
        swarm.wait_for_line(victim, f"phase {phase}", MOMENTS[phase], wall_s=ROUND_S)
        from_s = now_s()
        swarm.kill(victim)
        swarm.start(victim)
        story.was_away(victim, from_s, now_s())
        took_s = merged_again(swarm, victim, 0, wall_s=END_S)
        story.recovered_s.append(took_s)
        story.figures[f"killed_in_{phase}_s"] = round(took_s, 2)


def pause(swarm: LiveSwarm, story: Story, _: Options) -> None:
    """SIGSTOP for half a minute: it looks connected and says nothing."""
    victim, from_s = len(swarm) - 1, now_s()
    swarm.send(victim, signal.SIGSTOP)
    time.sleep(PAUSE_S)
    swarm.send(victim, signal.SIGCONT)
    story.was_away(victim, from_s, now_s())
    story.recovered_s.append(merged_again(swarm, victim, 0, wall_s=END_S))


def cut_cable(swarm: LiveSwarm, story: Story, _: Options) -> None:
    """Pull one hospital's cable for half a minute: its connections hang, none is closed."""
    victim, from_s = len(swarm) - 1, now_s()
    _namespaces(swarm).isolate(victim)
    time.sleep(CUT_S)
    _namespaces(swarm).heal()
    story.was_away(victim, from_s, now_s())
    story.recovered_s.append(merged_again(swarm, victim, 0, wall_s=END_S))


def one_way(swarm: LiveSwarm, story: Story, _: Options) -> None:
    """One hospital hears nobody for half a minute, and everybody hears it."""
    victim, from_s = len(swarm) - 1, now_s()
    others = [member for member in range(len(swarm)) if member != victim]
    _namespaces(swarm).plug([(member, victim) for member in others], Cable(is_cut=True))
    time.sleep(CUT_S)
    _namespaces(swarm).heal()
    story.was_away(victim, from_s, now_s())
    story.recovered_s.append(merged_again(swarm, victim, 0, wall_s=END_S))


def wide_area(swarm: LiveSwarm, story: Story, _: Options) -> None:
    """One hospital behind 200 ms, 5 % loss and 2 Mbit/s, to the end."""
    victim = len(swarm) - 1
    _namespaces(swarm).slow(victim, WIDE_AREA)
    story.hurt[victim] = now_s()
    story.recovered_s.append(merged_again(swarm, victim, 0, wall_s=END_S))


def partition(swarm: LiveSwarm, story: Story, options: Options) -> None:
    """Cut the swarm in two, the smaller side first named, and heal it."""
    count = len(swarm)
    smaller = list(range(count - count // 2, count))
    larger = [member for member in range(count) if member not in smaller]
    from_s = now_s()
    _namespaces(swarm).split([larger, smaller])
    time.sleep(options.partition_s)
    before = {member: swarm.round(member) for member in range(count)}
    _namespaces(swarm).heal()
    story.hurt.update(dict.fromkeys(smaller, now_s()))
    if len(smaller) < swarm.federation.charter.rounds.members_min:
        for member in smaller:  # too few for a round: it waits until somebody comes
            story.was_away(member, from_s, now_s())
    story.figures["round_of_each_at_healing"] = list(before.values())
    story.recovered_s.append(merged_again(swarm, smaller[0], 0, wall_s=END_S))


def rolling_restart(swarm: LiveSwarm, story: Story, _: Options) -> None:
    """Every hospital in turn leaves as on Ctrl-C and comes back, as an upgrade does."""
    for member in range(len(swarm)):
        from_s = now_s()
        status = swarm.leave(member)
        if status != 0:
            raise ScenarioError(f"member {member} left with exit status {status}")
        swarm.start(member)
        story.was_away(member, from_s, now_s())
        story.recovered_s.append(
            merged_again(swarm, member, (member + 1) % len(swarm), wall_s=END_S)
        )


def full_disk(swarm: LiveSwarm, story: Story, _: Options) -> None:
    """One hospital's disk fills up; its node stops with one line, and comes back when there is room."""
    victim = len(swarm) - 1
    directory = swarm.federation.sites[victim].directory
    swarm.leave(victim)
    with small_disk(directory, bytes_max=DISK_BYTES):
        swarm.start(victim)
        merged_again(swarm, victim, 0, wall_s=END_S)
        ballast, from_s = directory / "ballast", now_s()
        fill(ballast)
        story.figures["exit_status"] = swarm.wait_for_exit(victim, wall_s=ROUND_S)
        story.figures["last_line"] = swarm.last_line(victim)
        wait_for_round(swarm, [0], swarm.round(0) + 2, wall_s=ROUND_S)
        ballast.unlink()
        swarm.start(victim)
        story.was_away(victim, from_s, now_s())  # its log was on that disk
        story.recovered_s.append(merged_again(swarm, victim, 0, wall_s=END_S))
        swarm.wait_for_the_end(range(len(swarm)), wall_s=END_S)


def strangers(swarm: LiveSwarm, story: Story, _: Options) -> None:
    """Somebody without a key does his worst at the largest hospital's port."""
    _attack(swarm, story, STRANGERS, at=len(swarm))
    merged_again(swarm, 0, 1, wall_s=END_S)


def bad_member(swarm: LiveSwarm, story: Story, _: Options) -> None:
    """The last hospital's key in bad hands: flow control, pace and frames as the attacker likes."""
    victim, from_s = len(swarm) - 1, now_s()
    swarm.leave(victim)
    # Who has left is waited for first: a stall after that is the attack's.
    patience = swarm.federation.charter.rounds.inactive_after_rounds + 2
    wait_for_round(swarm, [0], swarm.round(0) + patience, wall_s=END_S)
    _attack(swarm, story, MEMBERS, at=victim, directory=swarm.federation.sites[victim].directory)
    swarm.start(victim)
    story.was_away(victim, from_s, now_s())
    story.recovered_s.append(merged_again(swarm, victim, 0, wall_s=END_S))


def _attack(
    swarm: LiveSwarm, story: Story, names: Sequence[str], *, at: int, directory: Path | None = None
) -> None:
    """Attack the largest hospital from machine ``at``, one attack after the other."""
    pid = swarm.pid(0)
    order = Order(
        host=address_of(0), port=PORT, net=swarm.federation.digest, directory=str(directory or ""),
        network_key=swarm.federation.charter.members[0].network_key.hex(),
    )  # fmt: skip
    for name in names:
        outcome = attack_from(_namespaces(swarm).prefix(at), name, order, victim=pid)
        from_s, to_s = outcome.pop("began_s"), outcome.pop("ended_s")
        # An attack may be over sooner than a round.
        to_s = max(to_s, from_s + ATTACK_S)
        time.sleep(max(to_s - now_s(), 0.0))
        rounds = closed_between(swarm.lines(0), from_s, to_s)
        story.figures[name] = {**outcome, "rounds_meanwhile": rounds}
        story.failures.extend(
            attack_failures(name, growth_mb=outcome["memory_growth_mb"], rounds=rounds)
        )


def prepare_outbound(federation: Federation) -> None:
    """Nobody can connect to the last hospital."""
    edit_site(federation.sites[-1].config, {"network.inbound": False})


def outbound_only(swarm: LiveSwarm, story: Story, _: Options) -> None:
    """The last hospital only dials out, and takes part in every round."""
    victim = len(swarm) - 1
    story.always.add(victim)
    story.figures["listening_sockets"] = listening(swarm.pid(victim))
    story.recovered_s.append(merged_again(swarm, victim, 0, wall_s=END_S))


def _namespaces(swarm: LiveSwarm) -> Namespaces:
    if swarm.namespaces is None:
        raise ScenarioError("this case needs network namespaces")
    return swarm.namespaces


CASES: Final[Mapping[str, Case]] = MappingProxyType(
    {
        "kill": Case(about="kill -9 in each phase of a round", act=kill_in_each_phase, rounds=70),
        "pause": Case(about="SIGSTOP for 30 s", act=pause, rounds=rounds_for(PAUSE_S)),
        "disk": Case(about="one node's disk full", act=full_disk, needs_root=True, rounds=200),
        "restart": Case(about="rolling restart of all", act=rolling_restart, rounds=70),
        "cut": Case(
            about="cable out for 30 s",
            act=cut_cable,
            needs_namespaces=True,
            rounds=rounds_for(CUT_S),
        ),
        "one-way": Case(
            about="hears nobody for 30 s",
            act=one_way,
            needs_namespaces=True,
            rounds=rounds_for(CUT_S),
        ),
        "slow": Case(about="200 ms, 5 % loss, 2 Mbit/s", act=wide_area, needs_namespaces=True),
        "strangers": Case(
            about="six attacks without a key",
            act=strangers,
            needs_namespaces=True,
            machines=1,
            rounds=rounds_for(len(STRANGERS) * ATTACK_S),
        ),
        "member": Case(
            about="six attacks with a member's key",
            act=bad_member,
            needs_namespaces=True,
            rounds=rounds_for(len(MEMBERS) * ATTACK_S),
        ),
        "outbound": Case(
            about="one hospital that nobody can connect to",
            act=outbound_only,
            prepare=prepare_outbound,
            needs_namespaces=True,
        ),
        "partition": Case(
            about="two halves, then healed", act=partition, needs_namespaces=True, rounds=80
        ),
    }
)
