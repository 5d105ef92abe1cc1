"""Many seeds, on several processes, with a log from which an interrupted run goes on. Room: scenarios."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Self, final

from ledger.errors import ConfigError
from node.software import PACKAGES, software_digest
from scenarios.simulation.halves import run_in_halves
from scenarios.simulation.observations import Violation
from scenarios.simulation.plan import Size, draw_plan
from scenarios.simulation.run import SeedResult, run_plan
from scenarios.workers import Say, each

LARGE_MEMBERS_MIN: Final = 20
"""Calm swarms of so many members and more run on two processes (halves.py)."""


def is_large(members: int | None) -> bool:
    """Whether a swarm is run to measure what it costs, unless somebody asks for faults."""
    return (members or 0) >= LARGE_MEMBERS_MIN


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What is the same for every seed of a run."""

    size: Size = Size()  # noqa: RUF009 - frozen
    plant: str = ""

    @property
    def is_halved(self) -> bool:
        """Whether each seed takes two processes: a large swarm in which nothing fails."""
        size = self.size
        return size.calm and not self.plant and is_large(size.members)

    def options(self) -> str:
        """The options of the command that runs a seed like this."""
        said = [
            ("--members", self.size.members),
            ("--rounds", self.size.rounds),
            ("--averaging", self.size.averaging),
            ("--plant", self.plant or None),
        ]
        calm = " --calm" if self.size.calm else ""
        faults = " --faults" if is_large(self.size.members) and not calm else ""
        return (
            calm + faults + "".join(f" {name} {value}" for name, value in said if value is not None)
        )

    def replay(self, seed: int) -> str:
        """The one command that shows a seed again; one that runs on two processes shows no trace."""
        if self.is_halved:
            return f"swarm-scenario simulate --start {seed} --seeds 1{self.options()}"
        return f"swarm-scenario simulate --replay {seed}{self.options()} --trace"


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What is kept of a seed that has ended."""

    seed: int
    heads: str
    violations: tuple[str, ...]
    begun: int
    """Faults of its plan that began."""
    planned: int
    virtual_s: float
    wall_s: float

    @classmethod
    def of(cls, result: SeedResult) -> Self:
        """Return a result's."""
        return cls(
            seed=result.seed, heads=result.heads, violations=tuple(map(str, result.violations)),
            begun=len(result.begun), planned=result.planned,
            virtual_s=round(result.virtual_s, 3), wall_s=round(result.wall_s, 3),
        )  # fmt: skip


def run_seed(settings: Settings, seed: int, _say: Say | None = None) -> SeedResult:
    """Draw and run one seed."""
    if settings.is_halved:
        whole = run_in_halves(draw_plan(seed, settings.size))
        parted = Violation("no-record-lost", "the halves do not hold the same")
        found = whole.result.violations
        return replace(whole.result, violations=found if whole.are_alike else (*found, parted))
    return run_plan(draw_plan(seed, settings.size), plant=settings.plant)


def run_seeds(
    seeds: Iterable[int], settings: Settings, *, jobs: int, log: "SoakLog | None" = None
) -> Iterator[SeedResult]:
    """Yield the result of each seed, in order; those that ``log`` has already are not run again."""
    todo = [seed for seed in seeds if log is None or seed not in log.done]
    one = partial(run_seed, settings)
    in_turn = jobs == 1 or settings.is_halved
    yield from _logged(map(one, todo) if in_turn else each(one, todo, workers=jobs), log)


def _logged(results: Iterable[SeedResult], log: "SoakLog | None") -> Iterator[SeedResult]:
    for result in results:
        if log is not None:
            log.add(result)
        yield result


def program() -> str:
    """Name the program that runs, node and simulation, by its files: hexadecimal."""
    return software_digest((*PACKAGES, "scenarios")).hex()


@final
class SoakLog:
    """One line of JSON for each seed that has ended; a run that was cut off goes on after them."""

    def __init__(self, path: Path, settings: Settings) -> None:
        """Raises ConfigError if the file is another run's, or cannot be read or written."""
        self._path = path
        self.done: dict[int, Told] = {}
        head = {"program": program(), "size": asdict(settings.size), "plant": settings.plant}
        try:
            data = path.read_bytes() if path.exists() else b""
            whole = _whole_lines(data, head)
            first, *rest = [json.loads(line) for line in whole.splitlines()] or [head]
            if first != head:
                what = "settings" if first.get("program") == head["program"] else "program files"
                raise ConfigError(f"--log {path}: is the log of other {what}: name another file")
            for one in rest:
                told = Told(**one | {"violations": tuple(one["violations"])})
                self.done[told.seed] = told
            self._file = path.open("a", encoding="utf-8")
            self._file.truncate(len(whole))  # a line that was cut off goes, and its seed runs again
        except OSError as error:
            raise ConfigError(f"--log {path}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(f"--log {path}: not a log of this command") from None
        if not whole:
            self._write(head)

    def add(self, result: SeedResult) -> None:
        """Write one result down."""
        told = self.done[result.seed] = Told.of(result)
        self._write(asdict(told))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, value: object) -> None:
        self._file.write(_line(value))
        self._file.flush()


def _line(value: object) -> str:
    return json.dumps(value, separators=(",", ":")) + "\n"


def _whole_lines(data: bytes, head: object) -> bytes:
    """Return what was written whole; raise ValueError for what is no log, not even one cut off at once."""
    whole = data[: data.rfind(b"\n") + 1]
    if not whole and not _line(head).encode().startswith(data):
        raise ValueError("what was cut off is no log's first line")
    return whole
