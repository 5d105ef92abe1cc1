"""Run as a process of its own: append groups of records to a store until killed or the disk is full.

Prints, after each commit, how many records the log has: what has been printed must survive.
"""

import resource
import sys
from pathlib import Path

from ledger_factory import Federation

from ledger.chain import check_next, compose
from ledger.errors import StoreError
from ledger.record import Kind, sign_record
from ledger.store import Store

GROUP = 3


def main() -> None:
    path, file_bytes_max = Path(sys.argv[1]), int(sys.argv[2])
    federation = Federation(1)
    if file_bytes_max:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, resource.RLIM_INFINITY))
    with Store.open(path) as store:
        while True:
            head = store.heads().get((0, 0))
            group = []
            for _ in range(GROUP):
                first = head is None
                body = federation.open_body(0) if first else federation.contribution_body(0, 1)
                record = compose(
                    head, roster=federation.roster, author=0, epoch=0,
                    kind=Kind.OPEN if first else Kind.CONTRIBUTION, round=0 if first else 1,
                    time_ms=1, acks=(), body=body,
                )  # fmt: skip
                group.append(sign_record(record, federation.signers[0]))
                head = check_next(head, group[-1])
            try:
                store.append(group, state={"phase": str(head.next_seq).encode()})
            except StoreError as error:
                resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
                count = store.heads()[0, 0].next_seq
                print(f"full {count} {error}", flush=True)  # noqa: T201
                store.append(group)
                print(f"again {store.heads()[0, 0].next_seq}", flush=True)  # noqa: T201
                return
            print(head.next_seq, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
