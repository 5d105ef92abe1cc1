"""Run as a process of its own, on a disk that is full, read-only or forbidden: say what the store says.

``full DIR FILLER_BYTES``, ``read-only DIR`` and ``forbidden FILE``. Prints lines of ``word text``.
"""

import subprocess
import sys
from pathlib import Path

from ledger_factory import Federation
from store_killed import group_after

from ledger.chain import LogHead
from ledger.errors import StoreError
from ledger.record import open_record
from ledger.store import Store

GROUP = 5


def say(word: str, text: object) -> None:
    print(word, text, flush=True)  # noqa: T201


def append(store: Store, federation: Federation, head: LogHead | None) -> LogHead:
    group, head = group_after(head, federation, GROUP)
    store.append(group)
    return head


def full(directory: Path, filler_bytes: int) -> None:
    """Append until the disk is full; make room; go on."""
    federation = Federation(1)
    filler = directory / "filler"
    filler.write_bytes(bytes(filler_bytes))
    path = directory / "ledger.db"
    head = None
    try:
        with Store.open(path) as store:
            while True:
                head = append(store, federation, head)
    except StoreError as error:
        say("acknowledged", head.next_seq if head else 0)
        say("said", error)
    try:
        with Store.open(path) as store:
            say("still-full", sum(head.next_seq for head in store.heads().values()))
    except StoreError as error:
        say("refused", error)
    filler.unlink()
    with Store.open(path) as store:
        head = store.heads().get((0, 0))
        say("found", head.next_seq if head else 0)
        say("then", append(store, federation, head).next_seq)


def read_only(directory: Path) -> None:
    """Write, then have the disk remounted: a writer is refused, a reader reads."""
    federation = Federation(1)
    path = directory / "ledger.db"
    with Store.open(path) as store:
        append(store, federation, None)
    for file in (path, path.with_name("ledger.db.lock")):
        file.with_name(f"crashed-{file.name}").write_bytes(file.read_bytes())
    with Store.open(directory / "crashed-ledger.db") as store:
        append(store, federation, store.heads()[0, 0])
        wal = directory / "crashed-ledger.db-wal"
        left_behind = wal.read_bytes()
    wal.write_bytes(left_behind)
    subprocess.run(["mount", "-o", "remount,ro", directory], check=True)
    for name in ("ledger.db", "crashed-ledger.db"):
        forbidden(directory / name)


def forbidden(path: Path) -> None:
    """Open for writing, then for reading."""
    roster = Federation(1).roster
    try:
        with Store.open(path) as store:
            say("written", append(store, Federation(1), store.heads().get((0, 0))).next_seq)
    except StoreError as error:
        say("writer", error)
    try:
        with Store.open(path, read_only=True) as store:
            say("read", len([open_record(one, roster=roster) for one in store.records()]))
    except StoreError as error:
        say("reader", error)


def main() -> None:
    action, place, *rest = sys.argv[1:]
    if action == "full":
        full(Path(place), int(rest[0]))
    elif action == "read-only":
        read_only(Path(place))
    else:
        forbidden(Path(place))


if __name__ == "__main__":
    main()
