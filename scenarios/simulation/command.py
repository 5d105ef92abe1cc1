"""`swarm-scenario simulate`: many seeds, or one again with everything shown. Room: scenarios."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from ledger.errors import ConfigError
from scenarios.simulation.plan import Plan, draw_plan
from scenarios.simulation.plan_file import plan_to_json
from scenarios.simulation.plants import PLANTS
from scenarios.simulation.run import SeedResult, run_plan
from scenarios.simulation.shrink import shrink
from scenarios.simulation.soak import Settings, SoakLog, Told, program, run_seeds

Write = Callable[[str], None]

SHRINK_TRIES: Final = 60
"""Runs that making one plan small may cost."""
FAULTS: Final = ("begun", "planned")
AVERAGINGS: Final = (None, "full", "gossip")


def list_plants(write: Write) -> None:
    """Name the bugs that can be planted."""
    for name, plant in PLANTS.items():
        write(f"{name:<24}{plant.about}")


def simulate_seeds(
    *, start: int, count: int, settings: Settings, jobs: int, json_file: Path | None,
    log_file: Path | None, write: Write,
) -> bool:  # fmt: skip
    """Run seeds, print each that fails with its plan made small; return whether all invariants held."""
    started_s = time.perf_counter()
    wanted = range(start, start + count)
    log = SoakLog(log_file, settings) if log_file is not None else None
    told = {seed: one for seed, one in log.done.items() if seed in wanted} if log else {}
    shrunk: set[str] = set()
    if told:
        write(f"{len(told)} seeds are in the log already")
    try:
        for result in run_seeds(wanted, settings, jobs=jobs, log=log):
            told[result.seed] = Told.of(result)
            if result.violations:
                _tell_failure(result, settings, write, shrunk)
    except KeyboardInterrupt:
        kept = f"; {log_file} goes on from here" if log_file is not None else ""
        so_far = f"{len(told)} of {count} seeds, {len(_failed(told))} failed"
        raise KeyboardInterrupt(f"interrupted after {so_far}{kept}") from None
    finally:
        if log is not None:
            log.close()
    wall_s = time.perf_counter() - started_s
    bad = _failed(told)
    if json_file is not None:
        _write_json(json_file, settings, told, wall_s)
    begun, planned = (sum(getattr(one, name) for one in told.values()) for name in FAULTS)
    write(
        f"{count} seeds from {start}: {len(bad)} failed"
        + (f" ({', '.join(str(one.seed) for one in bad[:20])})" if bad else "")
        + f"; {begun} of {planned} planned faults began"
        + f"; {sum(one.virtual_s for one in told.values()):.0f} virtual seconds, {wall_s:.0f} s"
    )
    return not bad


def replay(plan: Plan, settings: Settings, *, is_traced: bool, write: Write) -> bool:
    """Run one plan, and show it and (if asked) everything that its members log."""
    for line in plan.lines():
        write(line)
    result = run_plan(plan, plant=settings.plant, trace=write if is_traced else None)
    for violation in result.violations:
        write(f"FAILED {violation}")
    write(
        f"heads {result.heads}; {result.records} records, {result.steps} steps, "
        f"{len(result.begun)} of {result.planned} faults began, "
        f"{result.virtual_s:.1f} virtual seconds in {result.wall_s:.2f} s: "
        + (f"{len(result.violations)} invariants broken" if result.violations else "all holds")
    )
    return not result.violations


def check_settings(settings: Settings) -> None:
    """Raise ConfigError for a bug or a way of averaging that does not exist."""
    if settings.plant and settings.plant not in PLANTS:
        raise ConfigError(f"--plant {settings.plant}: unknown; `--plant list` names them")
    if settings.size.averaging not in AVERAGINGS:
        raise ConfigError(f"--averaging {settings.size.averaging}: full or gossip")


def _tell_failure(result: SeedResult, settings: Settings, write: Write, shrunk: set[str]) -> None:
    """Print what broke and how to see it; the first plan for each invariant is made small before."""
    for violation in result.violations:
        write(f"seed {result.seed} FAILED {violation}")
    write(f"  replay: {settings.replay(result.seed)}")
    plan = draw_plan(result.seed, settings.size)
    wanted = result.violations[0].invariant
    if wanted not in shrunk:
        shrunk.add(wanted)
        small = minimal(plan, wanted, settings)
        spared = len(plan.faults) - len(small.faults)
        write(f"  the least that breaks it ({spared} faults of the plan are not needed):")
        plan = small
    for line in plan.lines():
        write(f"  {line}")


def minimal(plan: Plan, wanted: str, settings: Settings) -> Plan:
    """Return a smaller plan in which the invariant ``wanted`` still breaks."""
    tries = iter(range(SHRINK_TRIES))

    def fails(one: Plan) -> bool:
        if next(tries, None) is None:
            return False
        broken = run_plan(one, plant=settings.plant).violations
        return wanted in {violation.invariant for violation in broken}

    return shrink(plan, fails)


def _failed(told: Mapping[int, Told]) -> list[Told]:
    return [one for _, one in sorted(told.items()) if one.violations]


def _write_json(path: Path, settings: Settings, told: Mapping[int, Told], wall_s: float) -> None:
    """Write what became of all seeds, those of the log too; wall_s is this run's."""
    value = {
        "seeds": len(told),
        "program": program(),
        "failed": [
            {
                "seed": one.seed, "invariant": one.violations[0].partition(": ")[0],
                "violations": list(one.violations),
                "replay": settings.replay(one.seed),
                "plan": plan_to_json(draw_plan(one.seed, settings.size)),
            }
            for one in _failed(told)
        ],
        "faults": {name: sum(getattr(one, name) for one in told.values()) for name in FAULTS},
        "heads": {str(seed): one.heads for seed, one in sorted(told.items())},
        "virtual_s": round(sum(one.virtual_s for one in told.values()), 3),
        "wall_s": round(wall_s, 3),
    }  # fmt: skip
    try:
        path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--json {path}: {error.strerror}") from None
