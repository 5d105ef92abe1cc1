"""Whole swarms of growing size on two cores, averaging with neighbours. Run: make bench.

Every member runs the service of a hospital on the simulator's network, with a model of seven parameters:
what is measured is the protocol's own cost. Calm plans of seed 0, half of the members in each of two
processes under one virtual time, the auditor's verdict on the bundles included. Limits: SECONDS_MAX and
GB_MAX (resident memory of both, and the members' files, which lie in memory too) for the largest; what a
node costs in a round is printed, so that it shows what grows with n.
"""

import shutil
import sys
import threading
import time
from dataclasses import dataclass
from typing import Final

from scenarios.simulation.halves import Whole, run_in_halves
from scenarios.simulation.plan import Size, draw_plan
from scenarios.simulation.run import RAM_DISK

SIZES: Final = (10, 30, 60, 100)
ROUNDS: Final = 20
SECONDS_MAX: Final = 120.0
GB_MAX: Final = 3.0
LOOK_S: Final = 0.5
GB: Final = 1e9


@dataclass(frozen=True)
class Measured:
    """One swarm's figures."""

    members: int
    whole: Whole
    wall_s: float
    files_gb: float

    @property
    def cost_ms(self) -> float:
        """What one node costs in one round, of one core."""
        return 1000 * self.whole.result.cpu_s / self.members / ROUNDS

    @property
    def resident_gb(self) -> float:
        """The most that both processes held."""
        return self.whole.resident_bytes / GB

    def line(self) -> str:
        """One row of the table."""
        one = self.whole.result
        return (
            f"{self.members:8d} {self.wall_s:8.1f} {one.cpu_s:8.1f} {self.cost_ms:18.1f} "
            f"{self.resident_gb:12.2f} {self.files_gb:9.2f} {one.virtual_s:10.1f} {one.records:8d}"
        )


def measure(members: int) -> Measured:
    """Run one swarm, and watch the memory disk fill; what others put there meanwhile counts too."""
    size = Size(members=members, rounds=ROUNDS, averaging="gossip", calm=True)
    before, most, over = used_bytes(), [0], threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_S):
            most[0] = max(most[0], used_bytes() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started_s = time.perf_counter()
    try:
        whole = run_in_halves(draw_plan(0, size))
    finally:
        over.set()
        watcher.join()
    return Measured(members, whole, time.perf_counter() - started_s, most[0] / GB)


def used_bytes() -> int:
    """Bytes that the memory disk holds."""
    return shutil.disk_usage(RAM_DISK).used


def main() -> None:
    """Print the curve; exit status 1 beyond a limit."""
    sizes = tuple(map(int, sys.argv[1:])) or SIZES
    print(f"{ROUNDS} rounds, averaging with neighbours, two processes")
    print("members  seconds    cpu_s  ms_a_node_a_round  resident_gb  files_gb  virtual_s  records")
    for members in sizes:
        one = measure(members)
        print(one.line(), flush=True)
        for violation in one.whole.result.violations:
            sys.exit(f"FAILED: {violation}")
        if not one.whole.are_alike:
            sys.exit("FAILED: members hold different records")
    memory_gb = one.resident_gb + one.files_gb
    is_slow, is_large = one.wall_s > SECONDS_MAX, memory_gb > GB_MAX
    print(
        f"limit for {one.members}: {SECONDS_MAX:.0f} s ({'FAILED' if is_slow else 'ok'}), "
        f"{GB_MAX:g} GB of memory and files ({'FAILED' if is_large else 'ok'}: {memory_gb:.2f})"
    )
    if is_slow or is_large:
        sys.exit(1)


if __name__ == "__main__":
    main()
