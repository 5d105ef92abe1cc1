"""A power cut after a send: whatever was sent is on the disk, whichever of the rest is.

A node's journal runs under strace; its file-system calls are replayed up to each of them, what was not
flushed is lost (or half of it is), and the node starts again from what is left.
"""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from storage_program import FACTS, SIGNED, SMALL
from strace_harness import Laboratory, laboratory, quick_directory
from trace_replay import ARGUMENTS, Call, Disk, calls

from ledger.errors import StoreError
from ledger.record import Codec
from ledger.store import Store
from node.blobs import BlobStore
from node.highwater import HighWater, LostHistoryError
from node.training_snapshots import read_snapshot
from swarm.protocol.payload import payload_digest
from tests.ledger.ledger_factory import Federation

SEED = 5
DRAWS = 2
"""Random power cuts after each call, beside the one that loses all that was not flushed."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    with laboratory(tmp_path_factory.mktemp("laboratory") / "scratch") as lab:
        yield lab


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    with quick_directory(tmp_path) as directory:
        yield directory


def cuts(lab: Laboratory, quick: Path, level: str) -> Iterator[tuple[Path, dict[int, bytes], str]]:
    """Yield what each power cut leaves, and which records had been sent by then."""
    print(f"seed {SEED}")  # noqa: T201
    live, left = quick / "live", quick / "left"
    live.mkdir()
    run = lab.run(live, ARGUMENTS, what=level)
    assert run.end == "done", run.end
    disk, sent = Disk(live), dict[int, bytes]()
    for number, call in enumerate(calls(run.log)):
        disk.see(call)
        sent |= sent_by(call)
        if call.name in {"openat", "close", "mkdir"}:
            continue
        for cut in range(DRAWS + 1):
            draw = random.Random(f"{SEED}/{number}/{cut}") if cut else None
            left.mkdir()
            disk.cut_power(left, draw)
            yield left, sent, f"power cut {cut} after call {number}: {call.name} {call.path}"
            shutil.rmtree(left)
    assert len(sent) == SIGNED


def sent_by(call: Call) -> dict[int, bytes]:
    if call.name != "sendto" or not call.strings[0].startswith(b"sent "):
        return {}
    _, seq, id_ = call.strings[0].decode().split()
    return {int(seq): bytes.fromhex(id_)}


def lost(directory: Path, sent: dict[int, bytes]) -> set[int]:
    """Start from what is left; return the sent records that are not there."""
    with Store.open(directory / "ledger.db") as store:
        return {seq for seq, id_ in sent.items() if store.get(id_) is None}


def test_payloads_and_snapshots_that_were_kept_survive_a_power_cut_after_any_call(
    lab: Laboratory, quick: Path
) -> None:
    live, left = quick / "live", quick / "left"
    live.mkdir()
    run = lab.run(live, ARGUMENTS, what="receive")
    assert run.end == "done", run.end
    disk, count = Disk(live), 0
    kept: dict[str, int] = {"kept": 0, "snapshot": 0}
    for number, call in enumerate(calls(run.log)):
        disk.see(call)
        word = call.strings[0].decode().split()[0] if call.name == "sendto" else ""
        if word in kept:
            kept[word] += 1
        for cut in range(DRAWS + 1):
            draw = random.Random(f"{SEED}/{number}/{cut}") if cut else None
            left.mkdir()
            disk.cut_power(left, draw)
            assert_kept(left, kept, f"power cut {cut} after call {number}: {call.name} {call.path}")
            shutil.rmtree(left)
            count += 1
    assert kept == {"kept": 3, "snapshot": 3}
    print(f"{count} power cuts")  # noqa: T201


def assert_kept(directory: Path, kept: dict[str, int], where: str) -> None:
    """All payloads said to be kept are whole, nothing else passes for one, and no snapshot is torn."""
    blobs = BlobStore(directory / "blobs")
    payloads = [SMALL + bytes([step]) for step in range(1, 4)]
    for payload in payloads[: kept["kept"]]:
        assert blobs.get(payload_digest(Codec.FLOAT32, payload)) == payload, where
    for digest in blobs.stored():
        assert blobs.get(digest) in payloads, where
    for digest in blobs.incoming():
        if partial := blobs.resume(digest):
            assert not partial.held or partial.view() in payloads, where
            partial.close()
    snapshot = read_snapshot(directory / "training", FACTS)
    assert (snapshot.numbers["steps"] if snapshot else 0) >= kept["snapshot"], where


def start(directory: Path) -> None:
    """Do what a journal does first."""
    net = Federation(1).roster.net
    with Store.open(directory / "ledger.db") as store:
        HighWater.checked(store, net=net, author=0, epoch=0)


def test_what_was_sent_survives_a_power_cut_after_any_call(lab: Laboratory, quick: Path) -> None:
    count = 0
    for directory, sent, where in cuts(lab, quick, "FULL"):
        mark = HighWater(directory / "ledger.mark", bytes(32)).read()
        assert (mark.next_seq if mark else 0) >= len(sent), f"{where}: sent before it was marked"
        assert lost(directory, sent) == set(), where
        try:
            start(directory)
        except (StoreError, LostHistoryError) as error:
            pytest.fail(f"{where}: a false alarm: {error}")
        count += 1
    print(f"{count} power cuts")  # noqa: T201


def test_with_less_than_full_synchronisation_records_are_lost_and_the_mark_says_so(
    lab: Laboratory, quick: Path
) -> None:
    """Why the store insists on FULL; and that nobody signs again even if the disk itself cheats."""
    losses = 0
    for directory, sent, where in cuts(lab, quick, "NORMAL"):
        try:
            missing = lost(directory, sent)
        except StoreError:
            continue
        if missing:
            losses += 1
            with pytest.raises((LostHistoryError, StoreError)):
                start(directory)
                pytest.fail(
                    f"{where}: record {min(missing)} is lost, and the node would sign it again"
                )
    assert losses > 0, "the replay finds no loss where there must be one"
