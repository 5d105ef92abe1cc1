"""How much memory an audit of a big ledger takes: generated on the fly, audited by the command.

20 members write rounds of CONTRIBUTION (with acks of every other member), AGGREGATION and METRICS
straight into a bundle's files; nothing but the heads is kept. Then `swarm-audit verify` runs as a
process of its own, on each level, and the most that it (or one of its processes) ever held is
compared with the limit. Generating a million records takes minutes: not part of the tests.
Exit status 1 if a level is above the limit.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import BinaryIO

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "ledger"))

from ledger_factory import Federation

from ledger.bundle import log_name
from ledger.frames import END_MARK
from ledger.record import Record, Verified

LIMIT_MB = 300
AUTHORS = 20
LEVELS = (("full", ()), ("--jobs 2", ("--jobs", "2")), ("--quick", ("--quick",)))


class Streaming(Federation):
    """A federation whose logs go to files; only heads and the round's contributions are kept."""

    def __init__(self, members: int, logs: Path) -> None:
        super().__init__(members)
        self.count = 0
        self.files: list[BinaryIO] = [
            (logs / log_name((author, 0))).open("wb") for author in range(members)
        ]

    def add_signed(self, signed: Verified[Record]) -> Verified[Record]:
        """Write it out; remember the head alone."""
        super().add_signed(signed)
        author = signed.value.author
        self.logs[author].clear()
        envelope = signed.signed.envelope()
        self.files[author].write(len(envelope).to_bytes(4, "big") + envelope)
        self.count += 1
        return signed

    def close(self) -> None:
        """End every log."""
        for file in self.files:
            file.write(END_MARK)
            file.close()


def generate(bundle: Path, records: int) -> Streaming:
    """Write a bundle of about so many records."""
    (bundle / "logs").mkdir(parents=True)
    federation = Streaming(AUTHORS, bundle / "logs")
    (bundle / "charter.toml").write_bytes(federation.charter_bytes)
    federation.play(max(1, -(-(records - AUTHORS) // (3 * AUTHORS))))
    federation.close()
    return federation


def measured(command: list[str]) -> tuple[int, float, float, str]:
    """Run a command; return exit status, peak memory of it and its processes in MB, seconds, line.

    The most that any one process held at any time: wait4 gives the command's own, which includes
    the largest of the processes that it waited for.
    """
    start_s = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - ours
        assert process.stdout is not None
        out = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, used.ru_maxrss / 1024, time.perf_counter() - start_s, out


def main() -> int:
    """Generate, measure, print one line a level, return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="make or use the bundle here, and leave it")
    options = parser.parse_args()
    missed = False
    with tempfile.TemporaryDirectory() as directory:
        bundle = options.keep or Path(directory) / "bundle"
        if not bundle.exists():
            generate(bundle, options.records)
        charter = str(bundle / "charter.toml")
        size_mb = sum(path.stat().st_size for path in bundle.rglob("*.log")) / 2**20
        print(f"audit memory: a bundle of {size_mb:.0f} MB of {AUTHORS} authors")
        for name, arguments in LEVELS:
            command = [sys.executable, "-m", "ledger.cli", "verify", str(bundle)]
            status, peak_mb, wall_s, out = measured([*command, "--charter", charter, *arguments])
            line = out.partition(" (")[0]
            assert status == 3, out
            missed |= peak_mb > LIMIT_MB
            print(f"  {name}: {line}; {peak_mb:.0f} MB (limit {LIMIT_MB}), {wall_s:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
