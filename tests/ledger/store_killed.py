"""Run as a process of its own: for each line of stdin, fork a writer that appends until it is killed.

A line is ``PATH CHECKPOINT_PAGES SEED``. Says ``pid N``, then of each commit how many records the log
has (what has been said must survive), then ``dead``.
"""

import os
import random
import sys
from pathlib import Path

from ledger_factory import Federation

from ledger.chain import LogHead, check_next, compose
from ledger.record import Kind, Record, Verified, sign_record
from ledger.store import Store

GROUP_MAX = 8
GROUPS_MAX = 20
"""Commits before the store is closed and opened again, so that kills fall there too."""


def group_after(
    head: LogHead | None, federation: Federation, count: int
) -> tuple[list[Verified[Record]], LogHead]:
    group = []
    for _ in range(count):
        first = head is None
        body = federation.open_body(0) if first else federation.contribution_body(0, 1)
        record = compose(
            head, roster=federation.roster, author=0, epoch=0,
            kind=Kind.OPEN if first else Kind.CONTRIBUTION, round=0 if first else 1,
            time_ms=1, acks=(), body=body,
        )  # fmt: skip
        group.append(sign_record(record, federation.signers[0]))
        head = check_next(head, group[-1])
    assert head is not None
    return group, head


def write_for_ever(path: Path, checkpoint_pages: int, seed: int, federation: Federation) -> None:
    draw = random.Random(seed)
    while True:
        with Store.open(path) as store:
            store._connection.execute(f"PRAGMA wal_autocheckpoint = {checkpoint_pages}")
            head = store.heads().get((0, 0))
            for _ in range(draw.randint(1, GROUPS_MAX)):
                group, head = group_after(head, federation, draw.randint(1, GROUP_MAX))
                store.append(group, state={"phase": str(head.next_seq).encode()})
                os.write(1, b"%d\n" % head.next_seq)


def main() -> None:
    federation = Federation(1)
    for line in sys.stdin:
        path, pages, seed = line.rstrip("\n").rsplit(" ", 2)
        pid = os.fork()
        if pid == 0:
            write_for_ever(Path(path), int(pages), int(seed), federation)
        os.write(1, b"pid %d\n" % pid)
        os.waitpid(pid, 0)
        os.write(1, b"dead\n")


if __name__ == "__main__":
    main()
