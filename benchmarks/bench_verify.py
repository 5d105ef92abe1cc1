"""How long an audit takes against the bare PyNaCl loop over the same signatures: all its levels.

20 members, rounds of CONTRIBUTION (with acks of every other member), AGGREGATION and METRICS.
All are timed in turns in the same run, each in processor time of its best turn; of two processes
the one that worked longer counts, which is the wall clock's time where both have a core (the wall
clock is printed too: on a machine that does other things it says little).
Exit status 1 if a ratio is above its limit.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from nacl.signing import VerifyKey

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "ledger"))

from ledger_factory import Federation

from ledger.record import DOMAIN
from ledger.report import Report
from ledger.verify import verify_bundles

LIMITS = {"full": 1.3, "--jobs 2": 0.7, "--quick": 0.5}
AUTHORS = 20


def children_s() -> float:
    """Processor time of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(work: Callable[[], object]) -> tuple[float, float, object]:
    """Return processor time of the busiest process, wall time, and the result."""
    wall_s, own_s, others_s = time.perf_counter(), time.process_time(), children_s()
    result = work()
    busy_s = max(time.process_time() - own_s, children_s() - others_s)
    return busy_s, time.perf_counter() - wall_s, result


def main() -> int:
    """Measure, print one line a level, return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    federation = Federation(AUTHORS)
    federation.play(max(1, -(-(options.records - AUTHORS) // (3 * AUTHORS))))
    records = federation.records()
    keys = [VerifyKey(signer.public_key) for signer in federation.signers]
    signatures = [
        (keys[one.value.author].verify, DOMAIN + one.signed.record_bytes, one.signed.signature)
        for one in records
    ]

    def bare() -> None:
        for verify, message, signature in signatures:
            verify(message, signature)

    with tempfile.TemporaryDirectory() as directory:
        bundle = federation.bundle(Path(directory) / "bundle")
        trusted = federation.charter_bytes, federation.charter.digest_hex
        works: dict[str, Callable[[], object]] = {
            "bare": bare,
            "full": lambda: verify_bundles([bundle], *trusted),
            "--jobs 2": lambda: verify_bundles([bundle], *trusted, jobs=2),
            "--quick": lambda: verify_bundles([bundle], *trusted, quick=True),
        }
        best_s = dict.fromkeys(works, (float("inf"), float("inf")))
        for _ in range(options.turns):
            for name, work in works.items():
                busy_s, wall_s, report = timed(work)
                best_s[name] = (min(best_s[name][0], busy_s), min(best_s[name][1], wall_s))
                if isinstance(report, Report):
                    assert report.verdict == "VERIFIED", report.to_text()
                    assert report.records == len(records)
                    assert report.exit_status == (3 if name == "--quick" else 0)
    bare_s, bare_wall_s = best_s.pop("bare")
    print(f"verify: {len(records)} records of {AUTHORS} authors, bare PyNaCl {bare_s:.2f} s")
    missed = False
    for name, (busy_s, wall_s) in best_s.items():
        ratio = busy_s / bare_s
        missed |= ratio > LIMITS[name]
        print(
            f"  {name}: {busy_s:.2f} s, ratio {ratio:.2f} (limit {LIMITS[name]}); "
            f"wall clock {wall_s:.2f} s, ratio {wall_s / bare_wall_s:.2f}"
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
