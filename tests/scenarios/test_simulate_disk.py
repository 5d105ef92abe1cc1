"""The simulated disk: what a crash leaves is what a real one may leave, and real SQLite recovers it."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

import pytest

from ledger.errors import StoreError
from ledger.store import Store
from node.blobs import BlobStore
from scenarios.simulation.disk import BLOBS, CrashedError, MemberDisk, seen_flushes
from tests.federation import Federation

CODEC = 1


class Machine:
    """One disk, and what happens at its n-th sync point."""

    def __init__(self, root: Path, seed: int = 1) -> None:
        self.crash_at = 0
        self.syncs = 0
        self.power = True
        self.disk = MemberDisk(root / "0", Random(seed), self.sync, archive=None)

    def sync(self) -> None:
        if self.disk.is_dead:
            raise CrashedError
        self.syncs += 1
        if self.syncs == self.crash_at:
            self.disk.crash(power=self.power)
            raise CrashedError


@contextmanager
def on(machine: Machine, root: Path) -> Iterator[tuple[Store, BlobStore]]:
    with ExitStack() as stack:
        stack.enter_context(seen_flushes(root, lambda _name: machine.disk))
        yield stack.enter_context(machine.disk.open())


def survivors(machine: Machine, root: Path) -> int:
    with on(machine, root) as (store, _):
        return sum(head.next_seq for head in store.heads().values())


@pytest.mark.parametrize("power", [False, True])
def test_what_append_returned_survives_every_crash(tmp_path: Path, *, power: bool) -> None:
    machine = Machine(tmp_path)
    records = Federation(4).open_all()
    with on(machine, tmp_path) as (store, _):
        for record in records:
            store.append([record])
        machine.disk.crash(power=power)
    assert survivors(machine, tmp_path) == len(records)


def test_a_power_cut_inside_a_commit_leaves_all_of_it_or_nothing(tmp_path: Path) -> None:
    records = Federation(4).open_all()
    left = set()
    for seed in range(12):
        root = tmp_path / str(seed)
        machine = Machine(root, seed)
        with on(machine, root) as (store, _):
            store.append(records[:2])
            machine.crash_at = machine.syncs + 2  # after SQLite wrote, before the flush has ended
            with pytest.raises(CrashedError):
                store.append(records[2:])
        left.add(survivors(machine, root))
    assert 2 in left
    assert left <= {2, 4}, "all of the torn transaction, or nothing"


def test_a_store_that_does_not_flush_loses_commits(tmp_path: Path) -> None:
    records = Federation(4).open_all()
    lost = 0
    for seed in range(8):
        root = tmp_path / str(seed)
        machine = Machine(root, seed)
        with on(machine, root) as (store, _):
            machine.disk.took_connection(synchronous=1)
            for record in records:
                store.append([record])
            machine.disk.crash(power=True)
        try:
            lost += survivors(machine, root) < len(records)
        except StoreError:  # the lock file remembers how many there were
            lost += 1
    assert lost > 4


@pytest.mark.parametrize("point", range(1, 5))
def test_a_payload_is_whole_or_absent_wherever_the_power_goes(tmp_path: Path, point: int) -> None:
    payload = b"x" * 1000
    for seed in range(6):
        root = tmp_path / str(seed)
        machine = Machine(root, seed)
        with on(machine, root) as (_, blobs):
            machine.crash_at = machine.syncs + point
            with pytest.raises(CrashedError):
                blobs.put(CODEC, payload)
        with on(machine, root) as (_, blobs):
            for digest in blobs.stored():
                assert bytes(blobs.get(digest) or b"") == payload


def test_a_file_that_was_never_flushed_may_be_torn(tmp_path: Path) -> None:
    sizes = set()
    for seed in range(12):
        root = tmp_path / str(seed)
        machine = Machine(root, seed)
        with on(machine, root):
            (machine.disk.path / BLOBS / "careless").write_bytes(b"x" * 1000)
            machine.disk.crash(power=True)
        path = machine.disk.path / BLOBS / "careless"
        sizes.add(path.stat().st_size if path.exists() else None)
    assert None in sizes
    assert any(size is not None and size < 1000 for size in sizes)


def test_after_a_kill_nothing_is_lost_that_the_kernel_had(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    with on(machine, tmp_path):
        (machine.disk.path / BLOBS / "careless").write_bytes(b"x" * 1000)
        machine.disk.crash(power=False)
    assert (machine.disk.path / BLOBS / "careless").read_bytes() == b"x" * 1000


@pytest.mark.parametrize(
    ("fault", "said"), [(errno.ENOSPC, "full|No space"), (errno.EIO, "I/O|Input/output")]
)
@pytest.mark.parametrize("write", ["record", "payload"])
def test_a_bad_disk_is_a_store_error_and_nothing_is_half_done(
    tmp_path: Path, fault: int, said: str, write: str
) -> None:
    machine = Machine(tmp_path)
    (record, *_) = Federation(4).open_all()
    with on(machine, tmp_path) as (store, blobs):
        writes: dict[str, Callable[[], object]] = {
            "record": lambda: store.append([record]), "payload": lambda: blobs.put(CODEC, b"x"),
        }  # fmt: skip
        machine.disk.fault = fault
        with pytest.raises(StoreError, match=said):
            writes[write]()
        assert not store.heads()
        assert not blobs.stored()
        machine.disk.fault = None
        writes[write]()


def test_a_dead_life_writes_nothing_more(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (record, *_) = Federation(4).open_all()
    with on(machine, tmp_path) as (store, _):
        machine.disk.crash(power=False)
        with pytest.raises(CrashedError):
            store.append([record])
    assert survivors(machine, tmp_path) == 0


def test_outside_of_a_run_flushes_are_real(tmp_path: Path) -> None:
    before = os.fsync, os.fdatasync
    machine = Machine(tmp_path)
    with on(machine, tmp_path):
        assert os.fsync is not before[0]
    assert (os.fsync, os.fdatasync) == before
