"""Every file-system call of a node's storage fails once, or is its last: one line, and no promise broken.

Needs Debian's strace and the permission to ptrace; skips where either is missing.
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from storage_program import ARRIVING, FACTS, PAYLOAD, groups
from strace_harness import Laboratory, Run, laboratory, quick_directory

from ledger.bundle import LOGS_NAME
from ledger.chain import LogHead, check_next
from ledger.record import open_record
from ledger.store import Store
from ledger.verify import verify_bundles
from node.blobs import BlobStore
from node.highwater import HighWater
from node.training_snapshots import read_snapshot
from swarm.protocol.payload import CHUNK_BYTES
from tests.ledger.ledger_factory import Federation

CALLS_MAX = 400
"""Bound on the calls of one kind that the program makes."""
READING = ("read", "pread64", "getdents64", "newfstatat", "flock", "mmap")
WRITING = (
    "openat", "write", "pwrite64", "fsync", "fdatasync", "ftruncate", "rename", "unlink", "mkdir",
    "close",
)  # fmt: skip
FAULTS = [
    *((call, "error=EIO") for call in WRITING + READING),
    *((call, "error=ENOSPC") for call in ("openat", "write", "pwrite64", "fsync", "mkdir")),
    *((call, "error=EROFS") for call in ("rename", "unlink")),
    *((call, "signal=KILL") for call in WRITING),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    with laboratory(tmp_path_factory.mktemp("laboratory") / "scratch") as lab:
        yield lab


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    with quick_directory(tmp_path) as directory:
        yield directory


@pytest.fixture(scope="module")
def federation() -> Federation:
    federation = Federation(1)
    groups(federation)
    return federation


def assert_every_promise_is_kept(directory: Path, run: Run, federation: Federation) -> None:
    """Open everything again on a disk that works, as the restarted node does."""
    promised = int((run.promised("stored") or ["0"])[-1])
    with Store.open(directory / "ledger.db") as store:
        head: LogHead | None = None
        for signed in store.records():
            head = check_next(head, open_record(signed, roster=federation.roster))
        assert (head.next_seq if head else 0) >= promised
        assert store.heads().get((0, 0)) == head
        HighWater.checked(store, net=federation.roster.net, author=0, epoch=0)
    blobs = BlobStore(directory / "blobs")
    for digest in run.promised("kept"):
        assert blobs.get(bytes.fromhex(digest)) in (PAYLOAD, ARRIVING)
    for digest in blobs.stored():
        assert blobs.get(digest) in (PAYLOAD, ARRIVING), "a payload that has its name is whole"
    for digest in blobs.incoming():
        if partial := blobs.resume(digest):
            chunks = {index: partial.chunk(index) for index in partial.held}
            partial.close()
            assert chunks == {
                i: ARRIVING[i * CHUNK_BYTES : (i + 1) * CHUNK_BYTES] for i in partial.held
            }
    kept = [int(step) for step in run.promised("snapshot")]
    snapshot = read_snapshot(directory / "training", FACTS)
    assert (snapshot.numbers["steps"] if snapshot else 0) >= max(kept, default=0)
    bundle = directory / "bundle"
    assert bundle.exists() or "exported" not in run.said
    if bundle.exists():
        assert (bundle / LOGS_NAME).is_dir(), "whole or not at all"
        report = verify_bundles([bundle], federation.charter_bytes, federation.charter.digest_hex)
        assert report.exit_status == 0, report.to_text()


def assert_said_in_one_line(run: Run) -> None:
    kind, _, text = run.end.partition(" ")
    assert run.status == 0
    assert kind in {"done", "error"}, run.end
    if kind == "error":
        assert text.startswith(("StoreError ", "NoRoomError ")), run.end
        assert len(text.splitlines()) == 1, run.end


@pytest.mark.parametrize(("call", "fault"), FAULTS)
def test_each_call_fails_once_and_nothing_that_was_promised_is_lost(
    lab: Laboratory, federation: Federation, quick: Path, call: str, fault: str
) -> None:
    ends: Counter[str] = Counter()
    for number in range(1, CALLS_MAX):
        directory = quick / str(number)
        directory.mkdir()
        inject = f"inject={call}:{fault}:when={number}"
        run = lab.run(directory, ["-e", f"trace={call}", "-e", inject])
        if not run.was_hit:
            break
        try:
            if not fault.startswith("signal"):
                assert_said_in_one_line(run)
            assert_every_promise_is_kept(directory, run, federation)
        except BaseException as error:
            error.add_note(f"strace -e {inject}\n{run.log[-2_000:]}\nsaid {run.said}")
            raise
        ends[run.end.split(" ")[0]] += 1
        shutil.rmtree(directory)
    else:
        pytest.fail(f"{call} is called more than {CALLS_MAX} times")
    assert run.end == "done"
    assert ends.total() > 0, f"the program never calls {call}"
    print(f"{call} {fault}: {ends.total()} calls, {dict(ends)}")  # noqa: T201


@pytest.mark.parametrize("call", ["pwrite64", "fsync", "fdatasync", "openat"])
def test_a_disk_that_dies_for_good_is_said_in_one_line(
    lab: Laboratory, federation: Federation, quick: Path, call: str
) -> None:
    for number in range(1, CALLS_MAX):
        directory = quick / str(number)
        directory.mkdir()
        inject = f"inject={call}:error=EIO:when={number}+"
        run = lab.run(directory, ["-e", f"trace={call}", "-e", inject])
        if not run.was_hit:
            return
        assert_said_in_one_line(run)
        assert_every_promise_is_kept(directory, run, federation)
        shutil.rmtree(directory)
