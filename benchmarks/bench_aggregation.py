"""The weighted mean against plain numpy in the same run. Run: make bench.

32 members × 1,000,000 float32 parameters. Limit: no more than RATIO_MAX times the time of
numpy's unweighted float64 mean over rows that already lie in one table.
"""

import sys
import time
from collections.abc import Callable
from typing import Final

import numpy as np

from swarm.learning.aggregation import weighted_mean

MEMBERS: Final = 32
PARAMETERS: Final = 1_000_000
REPEATS: Final = 5
RATIO_MAX: Final = 2.0


def best_s(work: Callable[[], object]) -> float:
    """Return the fastest of a few runs, the one that was disturbed least."""
    times = []
    for _ in range(REPEATS):
        start_s = time.perf_counter()
        work()
        times.append(time.perf_counter() - start_s)
    return min(times)


def main() -> int:
    """Print both times and their ratio; 1 when the limit is broken."""
    generator = np.random.default_rng(0)
    table = generator.normal(size=(MEMBERS, PARAMETERS)).astype(np.float32)
    rows = list(table)
    weights = [int(weight) for weight in generator.integers(1, 1_000_000, MEMBERS)]
    digests = [bytes([at]) * 32 for at in range(MEMBERS)]

    def plain() -> np.ndarray:
        return np.mean(table, axis=0, dtype=np.float64)

    ours_s = best_s(lambda: weighted_mean(rows, weights, digests))
    plain_s = best_s(plain)
    exact = np.average(table.astype(np.float64), axis=0, weights=weights)
    error = float(np.abs(weighted_mean(rows, weights, digests) - exact).max())
    ratio = ours_s / plain_s
    print(
        f"weighted_mean of {MEMBERS} x {PARAMETERS:,} float32: {ours_s * 1e3:.0f} ms, "
        f"numpy's float64 mean {plain_s * 1e3:.0f} ms, ratio {ratio:.2f} (limit {RATIO_MAX}), "
        f"largest difference {error:.1e}"
    )
    return int(ratio > RATIO_MAX)


if __name__ == "__main__":
    sys.exit(main())
