"""One calm swarm on two cores: two processes run half of the members each, under one virtual time.

Room: scenarios. Each half judges what its own members left; that all hold the same is asked of both
together. docs/simulator.md §8.
"""

import multiprocessing
import resource
from collections.abc import Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from scenarios.simulation.mischief import HEALED
from scenarios.simulation.plan import Plan
from scenarios.simulation.run import (
    Run,
    SeedResult,
    joined_heads,
    judged,
    scratch_folder,
)
from scenarios.simulation.window import HALVES

KIB: Final = 1 << 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Whole:
    """What both halves came to. resident_bytes: the most that each held, added up."""

    result: SeedResult
    are_alike: bool
    """Whether all members hold the same records."""
    resident_bytes: int


@dataclass(frozen=True, slots=True)
class _Part:
    """What one half came to."""

    result: SeedResult
    heads: Mapping[int, str]
    resident_bytes: int


def run_in_halves(plan: Plan) -> Whole:
    """Run a calm plan on two processes. Raises ValueError for another, RuntimeError if one of them dies."""
    if not plan.is_calm:
        raise ValueError("only a calm plan is run in halves")
    plan = replace(plan, network=HEALED, to_the_end=False)
    spawn = multiprocessing.get_context("spawn")
    lines = spawn.Pipe()
    with scratch_folder() as directory:
        answers, processes = [], []
        for number in range(HALVES):
            ours, theirs = spawn.Pipe(duplex=False)
            process = spawn.Process(
                target=_run_half, args=(plan, number, directory, lines[number], theirs)
            )
            process.start()
            lines[number].close()
            theirs.close()
            answers.append(ours)
            processes.append(process)
        try:
            parts: list[_Part] = [answer.recv() for answer in answers]
        except EOFError:
            raise RuntimeError("one half of the swarm has died; its error is above") from None
        finally:
            for process in processes:
                process.join()
    return _joined(parts)


def _run_half(
    plan: Plan, number: int, directory: Path, line: Connection, answer: Connection
) -> None:
    """One half, in a process of its own."""
    own = directory / f"half-{number}"
    own.mkdir()
    run = Run(plan, own, halved=(number, line))
    result = judged(run)
    resident_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB
    answer.send(_Part(result, run.heads(), resident_bytes))


def _joined(parts: list[_Part]) -> Whole:
    results = [one.result for one in parts]
    heads = {index: heads for one in parts for index, heads in one.heads.items()}
    result = replace(
        results[0],
        violations=tuple(sorted(v for one in results for v in one.violations)),
        heads=joined_heads(heads),
        virtual_s=max(one.virtual_s for one in results),
        wall_s=max(one.wall_s for one in results),
        cpu_s=sum(one.cpu_s for one in results),
        records=max(one.records for one in results),
        steps=sum(one.steps for one in results),
    )  # fmt: skip
    resident_bytes = sum(one.resident_bytes for one in parts)
    return Whole(
        result=result, are_alike=len(set(heads.values())) == 1, resident_bytes=resident_bytes
    )
