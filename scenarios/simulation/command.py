"""`swarm-scenario simulate`: many seeds, or one again with everything shown. Room: scenarios."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ledger.errors import ConfigError
from scenarios.simulation.observations import Violation
from scenarios.simulation.plan import Plan, draw_plan
from scenarios.simulation.plants import PLANTS
from scenarios.simulation.run import SeedResult, run_plan
from scenarios.simulation.shrink import shrink
from scenarios.simulation.soak import Settings, SoakLog, run_seeds

Write = Callable[[str], None]

SHRINK_TRIES: Final = 60
"""Runs that making one plan small may cost."""


@dataclass
class Tally:
    """What many seeds came to."""

    heads: dict[int, str] = field(default_factory=dict)
    failed: list[SeedResult] = field(default_factory=list)
    virtual_s: float = 0.0

    def add(self, result: SeedResult) -> None:
        """Count one seed."""
        self.heads[result.seed] = result.heads
        self.virtual_s += result.virtual_s
        if result.violations:
            self.failed.append(result)


def list_plants(write: Write) -> None:
    """Name the bugs that can be planted."""
    for name, plant in PLANTS.items():
        write(f"{name:<24}{plant.about}")


def simulate_seeds(
    *, start: int, count: int, settings: Settings, jobs: int, json_file: Path | None,
    log_file: Path | None, write: Write,
) -> bool:  # fmt: skip
    """Run seeds, print each that fails with its plan made small; return whether all invariants held."""
    check_settings(settings)
    started_s = time.perf_counter()
    tally = Tally()
    log = SoakLog(log_file, settings) if log_file is not None else None
    known = len(log.done) if log is not None else 0
    shrunk: set[str] = set()
    if known:
        write(f"{known} seeds are in the log already")
    try:
        for result in run_seeds(range(start, start + count), settings, jobs=jobs, log=log):
            tally.add(result)
            if result.violations:
                _tell_failure(result, settings, write, shrunk)
    except KeyboardInterrupt:
        kept = f"; {log_file} goes on from here" if log_file is not None else ""
        told = f"{len(tally.heads)} of {count} seeds, {len(tally.failed)} failed"
        raise KeyboardInterrupt(f"interrupted after {told}{kept}") from None
    finally:
        if log is not None:
            log.close()
    wall_s = time.perf_counter() - started_s
    earlier = [s for s, ok in log.done.items() if not ok] if log is not None else []
    bad = sorted({*earlier, *(one.seed for one in tally.failed)})
    if json_file is not None:
        _write_json(json_file, count, settings, tally, wall_s)
    write(
        f"{count} seeds from {start}: {len(bad)} failed"
        + (f" ({', '.join(map(str, bad[:20]))})" if bad else "")
        + f"; {tally.virtual_s:.0f} virtual seconds in {wall_s:.0f} s"
    )
    return not bad


def replay(seed: int, settings: Settings, *, is_traced: bool, write: Write) -> bool:
    """Run one seed again, with its plan and (if asked) everything that its members log."""
    check_settings(settings)
    plan = draw_plan(seed, settings.size)
    for line in plan.lines():
        write(line)
    result = run_plan(plan, plant=settings.plant, trace=write if is_traced else None)
    for violation in result.violations:
        write(f"FAILED {violation}")
    write(
        f"heads {result.heads}; {result.records} records, {result.steps} steps, "
        f"{result.virtual_s:.1f} virtual seconds in {result.wall_s:.2f} s: "
        + (f"{len(result.violations)} invariants broken" if result.violations else "all holds")
    )
    return not result.violations


def check_settings(settings: Settings) -> None:
    """Raise ConfigError for a bug that does not exist."""
    if settings.plant and settings.plant not in PLANTS:
        raise ConfigError(f"--plant {settings.plant}: unknown; `--plant list` names them")


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


def _write_json(path: Path, count: int, settings: Settings, tally: Tally, wall_s: float) -> None:
    failed: list[dict[str, Any]] = [
        {"seed": one.seed, "invariant": str(first), "replay": settings.replay(one.seed)}
        for one in tally.failed
        for first in (_first(one.violations),)
    ]
    value = {
        "seeds": count, "failed": failed,
        "heads": {str(seed): heads for seed, heads in sorted(tally.heads.items())},
        "virtual_s": round(tally.virtual_s, 3), "wall_s": round(wall_s, 3),
    }  # fmt: skip
    try:
        path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--json {path}: {error.strerror}") from None


def _first(violations: tuple[Violation, ...]) -> Violation:
    return violations[0]
