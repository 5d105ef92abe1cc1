"""Merging rules against plain numpy in the same run, and what they need of memory. Run: make bench.

32 members × 1,000,000 float32 parameters: the weighted mean takes at most 2 times the time of numpy's
unweighted float64 mean over rows that already lie in one table; the trimmed mean and nearest-neighbour
mixing with centered clipping at most 6 times. 20 members × 25,000,000: no rule that streams needs more
than half of the updates' own memory beside them.
"""

import resource
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import numpy as np

from swarm.learning.aggregation import weighted_mean
from swarm.learning.robust import ROBUST_RULES, rule_of
from swarm.learning.rows import Vector

MEMBERS: Final = 32
LIARS: Final = 6
PARAMETERS: Final = 1_000_000
REPEATS: Final = 5
LARGE: Final = (20, 25_000_000)
MEMORY_RATIO_MAX: Final = 1.5
LIMITS: Final = {"weighted_mean": 2.0, "trimmed_mean": 6.0, "nnm + centered_clipping": 6.0}

Rule = Callable[[Sequence[Vector]], Vector]


def rules(parameters: int, liars: int) -> dict[str, Rule]:
    """Every rule under its name, as a function of the rows alone."""
    origin = np.zeros(parameters, dtype=np.float32)

    def mean(rows: Sequence[Vector]) -> Vector:
        return weighted_mean(rows, *arguments(len(rows)))

    def robust(name: str, *, mixes: bool) -> Rule:
        rule = rule_of(name, mixes=mixes)
        return lambda rows: rule(rows, *arguments(len(rows)), origin=origin, liars=liars)

    found: dict[str, Rule] = {"weighted_mean": mean}
    for name in ROBUST_RULES:
        found[name] = robust(name, mixes=False)
        found[f"nnm + {name}"] = robust(name, mixes=True)
    return found


def arguments(count: int) -> tuple[list[int], list[bytes]]:
    """Weights and digests of ``count`` rows."""
    weights = np.random.default_rng(0).integers(1, 1_000_000, count)
    return [int(weight) for weight in weights], [bytes([at]) * 32 for at in range(count)]


def main() -> int:
    """Print times and ratios; 1 when a limit is broken."""
    return int(_time_is_too_much() | _memory_is_too_much())


def _time_is_too_much() -> bool:
    table = np.random.default_rng(0).normal(size=(MEMBERS, PARAMETERS)).astype(np.float32)
    table[:LIARS] *= -10
    rows = list(table)
    every = rules(PARAMETERS, LIARS)
    times: dict[str, list[float]] = {name: [] for name in ("numpy", *every)}
    for turn in range(REPEATS):  # one after the other, so that a busy moment hits them all
        times["numpy"].append(_seconds(lambda: np.mean(table, axis=0, dtype=np.float64)))
        for name, rule in every.items():
            if name in LIMITS or turn == 0:
                times[name].append(_seconds(partial(rule, rows)))
    plain_s = min(times["numpy"])
    broken = False
    print(f"{MEMBERS} x {PARAMETERS:,} float32; numpy's float64 mean {plain_s * 1e3:.0f} ms")
    for name in every:
        ratio, limit = min(times[name]) / plain_s, LIMITS.get(name)
        verdict = "" if limit is None else f" (limit {limit:.0f}) {_word(kept=ratio <= limit)}"
        broken |= limit is not None and ratio > limit
        print(f"  {name:28} {min(times[name]) * 1e3:6.0f} ms  {ratio:5.2f} x{verdict}")
    exact = np.average(table.astype(np.float64), axis=0, weights=arguments(MEMBERS)[0])
    print(
        f"  weighted_mean's largest error: {np.abs(every['weighted_mean'](rows) - exact).max():.1e}"
    )
    return broken


def _memory_is_too_much() -> bool:
    members, parameters = LARGE
    table = np.empty((members, parameters), dtype=np.float32)
    for row in table:
        row[:] = np.random.default_rng(1).standard_normal(parameters, dtype=np.float32)
    own = table.nbytes
    before = _peak_bytes()
    for name in ("weighted_mean", "trimmed_mean", "nnm + centered_clipping"):
        rules(parameters, 4)[name](list(table))
    ratio = 1 + max(_peak_bytes() - before, 0) / own
    print(
        f"{members} x {parameters:,}: {own / 1e9:.1f} GB of updates, peak {ratio:.2f} x "
        f"(limit {MEMORY_RATIO_MAX}) {_word(kept=ratio <= MEMORY_RATIO_MAX)}"
    )
    return ratio > MEMORY_RATIO_MAX


def _seconds(work: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    work()
    return time.perf_counter() - start_s


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _word(*, kept: bool) -> str:
    return "PASS" if kept else "FAIL"


if __name__ == "__main__":
    sys.exit(main())
