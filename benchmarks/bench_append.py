"""Appending with group commit against signing and one fdatasync a group. Run: make bench.

Ours: compose, sign and append to the store. Bare: compose and sign the same records and write their
bytes to a file, one fdatasync a group. They take turns group by group on the same disk, so that what
slows the machine down for a while slows down both; a turn writes all groups (what the database does
now and then included) and gives one ratio of the sums. The median of all turns counts. Beside it,
for whoever wants to know: the same in processor time, which leaves out waiting for disk and
processor, and against bare PyNaCl signatures of bytes that are there already.
Exit status 1 if the wall clock's median ratio is above the limit.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

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


def write_file(groups: Iterator[list[bytes]], path: Path) -> Iterator[None]:
    """Bare: each group is one write and one fdatasync."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        for group in groups:
            os.write(fd, b"".join(group))
            os.fdatasync(fd)
            yield
    finally:
        os.close(fd)


def append_all(groups: Groups, path: Path) -> Iterator[None]:
    """Ours: each group is one durable transaction."""
    with Store.open(path) as store:
        for group in groups:
            store.append(group)
            yield


class Used(NamedTuple):
    """Seconds of the wall clock and of the processor."""

    wall: float
    busy: float


def in_turns(works: Mapping[str, Iterator[None]], groups: int) -> dict[str, Used]:
    """Let each do one group after the other; return how long each took for all, closing included."""
    used = dict.fromkeys(works, Used(0.0, 0.0))
    for _ in range(groups + 1):  # in the last turn each closes what it has open
        for name, work in works.items():
            wall_s, busy_s = time.perf_counter(), time.process_time()
            next(work, None)
            wall_s, busy_s = time.perf_counter() - wall_s, time.process_time() - busy_s
            used[name] = Used(used[name].wall + wall_s, used[name].busy + busy_s)
    return used


def main() -> int:
    """Measure, print one line, return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=40)
    parser.add_argument("--size", type=int, default=250, help="records in a group")
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    federation = Federation(1)
    count = options.groups * options.size

    def made() -> Groups:
        return signed_groups(federation, options.groups, options.size)

    messages = [[DOMAIN + one.signed.record_bytes for one in group] for group in made()]
    sign = federation.signers[0].sign
    turns: list[dict[str, Used]] = []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        for turn in range(options.turns):
            path = Path(name) / str(turn)
            path.mkdir()
            works = {
                "ours": append_all(made(), path / "store"),
                "bare": write_file(
                    ([one.signed.envelope() for one in group] for group in made()), path / "bare"
                ),
                "signatures": write_file(
                    ([one + sign(one) for one in group] for group in messages), path / "signatures"
                ),
                "flushes": write_file(iter([[bytes(64)]] * options.groups), path / "flushes"),
            }
            turns.append(in_turns(works, options.groups))
    ratios = [turn["ours"].wall / turn["bare"].wall for turn in turns]
    busy = median(turn["ours"].busy / turn["bare"].busy for turn in turns)
    signatures = median(turn["ours"].wall / turn["signatures"].wall for turn in turns)
    wall_s = {name: median(turn[name].wall for turn in turns) for name in turns[0]}
    print(
        f"append {count:,} records in groups of {options.size}: {count / wall_s['ours']:,.0f} "
        f"records/s; signing + one fdatasync a group {count / wall_s['bare']:,.0f} records/s, "
        f"ratio {median(ratios):.2f} (least {min(ratios):.2f}, limit {RATIO_MAX}: "
        f"{'PASS' if median(ratios) <= RATIO_MAX else 'FAIL'}), in processor time {busy:.2f}; "
        f"bare PyNaCl + fdatasync {count / wall_s['signatures']:,.0f}/s, ratio {signatures:.2f}; "
        f"one fdatasync {wall_s['flushes'] / options.groups * 1e3:.2f} ms"
    )
    return int(median(ratios) > RATIO_MAX)


if __name__ == "__main__":
    sys.exit(main())
