"""Whole swarms of growing size in one process, averaging with neighbours. Run: make bench.

Every member runs the service of a hospital on the simulator's network, with a model of seven parameters:
what is measured is the protocol's own cost. A process each, calm plans of seed 0, the auditor's verdict on
the bundles included. Limits: SECONDS_MAX and GIB_MAX (resident memory and the members' files, which lie in
memory too) for the largest; what a node costs in a round is printed, so that it shows what grows with n.
"""

import multiprocessing
import os
import resource
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from scenarios.simulation.plan import Size, draw_plan
from scenarios.simulation.run import RAM_DISK, SeedResult, run_plan

SIZES: Final = (10, 30, 60, 100)
ROUNDS: Final = 20
SECONDS_MAX: Final = 120.0
GIB_MAX: Final = 3.0
LOOK_S: Final = 0.5
KIB_A_GIB: Final = 1 << 20
GIB: Final = 1 << 30


@dataclass(frozen=True)
class Measured:
    """One swarm's figures."""

    members: int
    result: SeedResult
    resident_gib: float
    files_gib: float

    @property
    def cost_ms(self) -> float:
        """What one node costs in one round."""
        return 1000 * self.result.cpu_s / self.members / ROUNDS

    def line(self) -> str:
        """One row of the table."""
        one = self.result
        return (
            f"{self.members:8d} {one.wall_s:8.1f} {one.cpu_s:8.1f} {self.cost_ms:18.1f} "
            f"{self.resident_gib:13.2f} {self.files_gib:10.2f} {one.virtual_s:10.1f} {one.records:8d}"
        )


def swarm(members: int, answer: Connection) -> None:
    """Run one swarm and tell what it came to. In a process of its own."""
    size = Size(members=members, rounds=ROUNDS, averaging="gossip", calm=True)
    result = run_plan(draw_plan(0, size))
    resident_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB_A_GIB
    answer.send((result, resident_gib))


def measure(members: int) -> Measured:
    """Run one swarm, and watch its files grow."""
    before = folders()
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=swarm, args=(members, theirs))
    process.start()
    files_bytes = 0
    while process.is_alive() and not ours.poll():
        time.sleep(LOOK_S)
        files_bytes = max(files_bytes, sum(map(size_of, folders() - before)))
    result, resident_gib = ours.recv()
    process.join()
    return Measured(members, result, resident_gib, files_bytes / GIB)


def folders() -> set[Path]:
    """Folders of simulated members that are there now."""
    return set(RAM_DISK.glob("swarm-simulation-*"))


def size_of(folder: Path) -> int:
    """Bytes that a folder's files take; what is linked twice counts once."""
    inodes: dict[int, int] = {}
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                status = Path(place, name).stat()
                inodes[status.st_ino] = status.st_blocks * 512
    return sum(inodes.values())


def main() -> None:
    """Print the curve; exit status 1 beyond a limit."""
    sizes = tuple(map(int, sys.argv[1:])) or SIZES
    print(f"{ROUNDS} rounds, averaging with neighbours")
    print(
        "members  seconds    cpu_s  ms_a_node_a_round  resident_gib  files_gib  virtual_s  records"
    )
    for members in sizes:
        one = measure(members)
        print(one.line(), flush=True)
        for violation in one.result.violations:
            sys.exit(f"FAILED: {violation}")
    memory_gib = one.resident_gib + one.files_gib
    is_slow, is_large = one.result.wall_s > SECONDS_MAX, memory_gib > GIB_MAX
    print(
        f"limit for {one.members}: {SECONDS_MAX:.0f} s ({'FAILED' if is_slow else 'ok'}), "
        f"{GIB_MAX:g} GiB of memory and files ({'FAILED' if is_large else 'ok'}: {memory_gib:.2f})"
    )
    if is_slow or is_large:
        sys.exit(1)


if __name__ == "__main__":
    main()
