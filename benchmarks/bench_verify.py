"""How long an audit takes against the bare PyNaCl loop over the same signatures: all its levels.

20 members, rounds of CONTRIBUTION (with acks of every other member), AGGREGATION and METRICS.
The loop runs in slices of a quarter of the signatures, before and after every level, and a level is
divided by the two slices beside it: what slows the machine down for a while slows down both. A turn
gives one ratio a level; the median of all turns counts, the least is printed beside it.
Judged is processor time, of two processes the busier one's: wall-clock time where both have a core.
Wall-clock time is printed too; where other work shares the cores it says more about that work.
Exit status 1 if a level is above its limit.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from nacl.signing import VerifyKey

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "ledger"))

from ledger_factory import Federation

from ledger.record import DOMAIN
from ledger.report import Report
from ledger.verify import verify_bundles

LIMITS: Final = {"full": 1.3, "--jobs 2": 0.7, "--quick": 0.5}
AUTHORS: Final = 20
SLICES: Final = 4  # of every fourth record: each slice has all kinds and authors


class Seconds(NamedTuple):
    """Processor time of the busiest process, and wall-clock time."""

    busy: float
    wall: float


def children_s() -> float:
    """Processor time of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(work: Callable[[], object]) -> Seconds:
    """Return how long ``work`` takes."""
    wall_s, own_s, others_s = time.perf_counter(), time.process_time(), children_s()
    work()
    busy_s = max(time.process_time() - own_s, children_s() - others_s)
    return Seconds(busy_s, time.perf_counter() - wall_s)


def played(records: int) -> Federation:
    """Return a federation that has written about so many records."""
    federation = Federation(AUTHORS)
    federation.play(max(1, -(-(records - AUTHORS) // (3 * AUTHORS))))
    return federation


def bare_slices(federation: Federation) -> list[Callable[[], None]]:
    """Return the loop over all signatures, cut into slices."""
    keys = [VerifyKey(signer.public_key) for signer in federation.signers]
    signatures = [
        (keys[one.value.author].verify, DOMAIN + one.signed.record_bytes, one.signed.signature)
        for one in federation.records()
    ]

    def loop(first: int) -> None:
        for verify, message, signature in mine[first]:
            verify(message, signature)

    mine = [signatures[first::SLICES] for first in range(SLICES)]
    return [lambda first=first: loop(first) for first in range(SLICES)]  # type: ignore[misc]


def main() -> int:
    """Measure, print one line a level, return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    federation = played(options.records)
    slices = bare_slices(federation)
    count = len(federation.records())
    bare: list[Seconds] = []
    levels: dict[str, list[tuple[Seconds, Seconds]]] = {name: [] for name in LIMITS}
    with tempfile.TemporaryDirectory() as directory:
        bundle = federation.bundle(Path(directory) / "bundle")

        def verify(name: str) -> None:
            report: Report = verify_bundles(
                [bundle], federation.charter_bytes, federation.charter.digest_hex,
                jobs=2 if name == "--jobs 2" else 1, quick=name == "--quick",
            )  # fmt: skip
            assert report.verdict == "VERIFIED", report.to_text()
            assert report.records == count
            assert report.exit_status == (3 if name == "--quick" else 0)

        for _ in range(options.turns):
            before = timed(slices[0])
            for position, (name, measured) in enumerate(levels.items(), start=1):
                used = timed(lambda name=name: verify(name))  # type: ignore[misc]
                after = timed(slices[position])
                beside = [SLICES / 2 * (one + two) for one, two in zip(before, after, strict=True)]
                measured.append((used, Seconds(*beside)))
                bare.append(Seconds(*beside))
                before = after
    print(
        f"verify: {count} records of {AUTHORS} authors, bare PyNaCl "
        f"{median(one.busy for one in bare):.2f} s; medians of {options.turns} turns"
    )
    missed = False
    for name, measured in levels.items():
        busy = [used.busy / beside.busy for used, beside in measured]
        wall = [used.wall / beside.wall for used, beside in measured]
        missed |= median(busy) > LIMITS[name]
        print(
            f"  {name}: {median(used.busy for used, _ in measured):.2f} s, ratio {median(busy):.3f} "
            f"(least {min(busy):.3f}, limit {LIMITS[name]}: "
            f"{'PASS' if median(busy) <= LIMITS[name] else 'FAIL'}); "
            f"wall clock ratio {median(wall):.3f} (least {min(wall):.3f})"
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
