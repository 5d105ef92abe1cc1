"""Appending with group commit against signing and one fdatasync a group. Run: make bench.

Ours: compose, sign and append to the store. Bare: compose and sign the same records and write their
bytes to a file, one fdatasync a group. In turns, in the same run, on the same disk, each in its best
turn. Beside it, for whoever wants to know what Python costs: the same with bare PyNaCl signatures of
bytes that are there already. Exit status 1 if the ratio is above the limit.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "ledger"))

from ledger_factory import Federation

from ledger.chain import LogHead, compose, head_after
from ledger.record import DOMAIN, Kind, Record, Verified, sign_record
from ledger.store import Store

RATIO_MAX: Final = 1.5

Groups = Iterator[list[Verified[Record]]]


def signed_groups(federation: Federation, groups: int, size: int) -> Groups:
    """Compose and sign one log, a group at a time."""
    opening, body = federation.open_body(0), federation.contribution_body(0, 1)
    head: LogHead | None = None
    for _ in range(groups):
        group = []
        for _ in range(size):
            first = head is None
            record = compose(
                head, roster=federation.roster, author=0, epoch=0,
                kind=Kind.OPEN if first else Kind.CONTRIBUTION, round=0 if first else 1,
                time_ms=1, acks=(), body=opening if first else body,
            )  # fmt: skip
            group.append(sign_record(record, federation.signers[0]))
            head = head_after(record, group[-1].id)
        yield group


def append_all(groups: Groups, path: Path) -> None:
    """Ours: each group is one durable transaction."""
    with Store.open(path) as store:
        for group in groups:
            store.append(group)


def write_all(groups: Iterator[list[bytes]], path: Path) -> None:
    """Bare: each group is one write and one fdatasync."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        for group in groups:
            os.write(fd, b"".join(group))
            os.fdatasync(fd)
    finally:
        os.close(fd)


def seconds(work: Callable[[Path], None], path: Path) -> float:
    """Return how long ``work`` takes on a new file."""
    start_s = time.perf_counter()
    work(path)
    return time.perf_counter() - start_s


def main() -> int:
    """Measure, print one line, return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=40)
    parser.add_argument("--size", type=int, default=250, help="records in a group")
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    federation = Federation(1)
    count = options.groups * options.size
    messages = [
        [DOMAIN + one.signed.record_bytes for one in group]
        for group in signed_groups(federation, options.groups, options.size)
    ]
    sign = federation.signers[0].sign

    def ours(path: Path) -> None:
        append_all(signed_groups(federation, options.groups, options.size), path)

    def bare(path: Path) -> None:
        made = signed_groups(federation, options.groups, options.size)
        write_all(([one.signed.envelope() for one in group] for group in made), path)

    def signatures(path: Path) -> None:
        write_all(([one + sign(one) for one in group] for group in messages), path)

    def flushes(path: Path) -> None:
        write_all(iter([[bytes(64)]] * options.groups), path)

    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        best = dict.fromkeys((ours, bare, signatures, flushes), float("inf"))
        for turn in range(options.turns):  # in turns, so that a busy moment disturbs all
            for work in best:
                path = Path(name) / f"{turn}-{work.__name__}"
                best[work] = min(best[work], seconds(work, path))
    ours_s, bare_s, signatures_s, flush_s = best.values()
    ratio = ours_s / bare_s
    print(
        f"append {count:,} records in groups of {options.size}: {count / ours_s:,.0f} records/s; "
        f"signing + one fdatasync a group {count / bare_s:,.0f} records/s, "
        f"ratio {ratio:.2f} (limit {RATIO_MAX}); bare PyNaCl + fdatasync "
        f"{count / signatures_s:,.0f}/s, ratio {ours_s / signatures_s:.2f}; "
        f"one fdatasync {flush_s / options.groups * 1e3:.2f} ms"
    )
    return int(ratio > RATIO_MAX)


if __name__ == "__main__":
    sys.exit(main())
