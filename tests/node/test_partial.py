"""What came in of a payload survives every crash, and counts only as far as it is right."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from ledger.errors import PeerError, StoreError
from node.blobs import DISK_SPARE_BYTES, BlobStore
from node.partial import Partial
from node.payload_io import NoRoomError
from swarm.protocol.payload import CHUNK_BYTES, PAYLOAD_BYTES_MAX, Manifest, manifest_of

PAYLOAD = random.Random(1).randbytes(5 * CHUNK_BYTES // 2)
MANIFEST = manifest_of(1, PAYLOAD)
CHUNKS = [PAYLOAD[at : at + CHUNK_BYTES] for at in range(0, len(PAYLOAD), CHUNK_BYTES)]


def test_chunks_come_in_any_order_and_become_a_payload(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    partial = blobs.begin(MANIFEST)
    for index in (2, 0, 1):
        assert not partial.is_complete
        partial.add(index, CHUNKS[index])
        assert partial.chunk(index) == CHUNKS[index]
    assert partial.view() == PAYLOAD
    assert blobs.stored() == {}, "not before it is accepted"
    blobs.accept(partial)
    for store in (blobs, BlobStore(tmp_path)):
        assert store.get(MANIFEST.digest) == PAYLOAD
        assert store.incoming() == frozenset()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_wrong_chunk_leaves_no_trace(tmp_path: Path) -> None:
    partial = BlobStore(tmp_path).begin(MANIFEST)
    for index, chunk in ((0, CHUNKS[1]), (2, CHUNKS[2] + b"x"), (1, b"")):
        with pytest.raises(PeerError):
            partial.add(index, chunk)
    assert partial.held == set()
    with pytest.raises(ValueError, match="complete"):
        partial.view()
    partial.close()


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        (lambda data: data, {0, 2}),
        (lambda data: data[: CHUNK_BYTES + 5], {0}),
        (lambda data: b"\0" * 7 + data[7:], {2}),
        (lambda data: data[:-1] + b"\0" if data[-1] else data[:-1] + b"\1", {0}),
        (lambda data: data + b"more", {0, 2}),
        (lambda _data: b"", set()),
    ],
)
def test_after_a_restart_a_chunk_counts_if_it_still_has_its_digest(
    tmp_path: Path, damage: object, left: set[int]
) -> None:
    partial = BlobStore(tmp_path).begin(MANIFEST)
    for index in (0, 2):
        partial.add(index, CHUNKS[index])
    partial.close()
    (file,) = tmp_path.glob("*.incoming")
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    blobs = BlobStore(tmp_path)
    resumed = blobs.resume(MANIFEST.digest)
    assert resumed is not None
    assert resumed.held == left
    for index in {0, 1, 2} - left:
        resumed.add(index, CHUNKS[index])
    blobs.accept(resumed)
    assert blobs.get(MANIFEST.digest) == PAYLOAD


def test_a_payload_beyond_the_manifests_that_are_always_looked_at_is_resumed(
    tmp_path: Path,
) -> None:
    first = manifest_of(1, CHUNKS[0]).chunks
    others = first * (PAYLOAD_BYTES_MAX // CHUNK_BYTES)
    large = Manifest(codec=1, bytes_count=PAYLOAD_BYTES_MAX + CHUNK_BYTES, chunks=first + others)
    partial = Partial.begin(tmp_path, large)
    partial.add(0, CHUNKS[0])
    partial.close()
    resumed = Partial.resume(tmp_path, large.digest)
    assert resumed is not None
    assert resumed.held == {0}
    resumed.close()


@pytest.mark.parametrize("what", ["manifest cut", "manifest gone", "data gone", "other manifest"])
def test_what_is_of_no_use_is_removed(tmp_path: Path, what: str) -> None:
    partial = BlobStore(tmp_path).begin(MANIFEST)
    partial.add(0, CHUNKS[0])
    partial.close()
    (note,) = tmp_path.glob("*.manifest")
    match what:
        case "manifest cut":
            note.write_bytes(note.read_bytes()[:-1])
        case "manifest gone":
            note.unlink()
        case "other manifest":
            note.write_bytes(manifest_of(2, PAYLOAD).to_bytes())
        case "data gone":
            note.with_suffix(".incoming").unlink()
    blobs = BlobStore(tmp_path)
    assert blobs.resume(MANIFEST.digest) is None
    assert list(tmp_path.iterdir()) == []
    assert blobs.bytes_stored == 0


def test_killed_at_any_instant_it_goes_on_with_all_that_was_written(tmp_path: Path) -> None:
    """A real process, SIGKILL between two chunks."""
    program = (
        "import os, sys, signal\n"
        "from pathlib import Path\n"
        "from tests.node.test_partial import CHUNKS, MANIFEST\n"
        "from node.blobs import BlobStore\n"
        "partial = BlobStore(Path(sys.argv[1])).begin(MANIFEST)\n"
        "for index in (1, 2): partial.add(index, CHUNKS[index])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path],
        check=False,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == -9
    resumed = BlobStore(tmp_path).resume(MANIFEST.digest)
    assert resumed is not None
    assert resumed.held == {1, 2}
    resumed.close()


def test_room_is_set_aside_in_full_and_refused_beyond_the_quota(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path, bytes_max=len(PAYLOAD) + 10)
    partial = blobs.begin(MANIFEST)
    assert blobs.bytes_stored == len(PAYLOAD)
    with pytest.raises(NoRoomError, match=r"storage\.payload_bytes_max"):
        blobs.put(1, bytes(11))
    digest = blobs.put(1, bytes(10))
    for index, chunk in enumerate(CHUNKS):
        partial.add(index, chunk)
    blobs.accept(partial)
    assert blobs.bytes_stored == blobs.bytes_max
    assert BlobStore(tmp_path).bytes_stored == blobs.bytes_max
    with pytest.raises(NoRoomError):
        blobs.begin(manifest_of(1, b"one more"))
    assert blobs.remove([digest]) == 10
    blobs.begin(manifest_of(1, b"one more")).close()


def test_a_payload_that_would_leave_the_ledger_no_disk_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = BlobStore(tmp_path)
    usage = type("Usage", (), {"free": len(PAYLOAD) + DISK_SPARE_BYTES - 1})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(NoRoomError, match="67 MiB"):
        blobs.begin(MANIFEST)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_is_an_error_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = BlobStore(tmp_path).begin(MANIFEST)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(NoRoomError, match="No space left"):
        partial.add(0, CHUNKS[0])
    assert partial.held == set()
    monkeypatch.setattr(os, "pwrite", lambda *_: full_error())
    with pytest.raises(StoreError, match="Input/output"):
        partial.add(0, CHUNKS[0])
    partial.close()


def full_error() -> int:
    raise OSError(5, "Input/output error")


def test_long_payloads_are_mapped_and_stay_readable_without_their_name(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    digest = blobs.put(1, PAYLOAD)
    view = blobs.get(digest)
    assert isinstance(view, memoryview)
    assert view.readonly
    blobs.remove([digest])
    assert view == PAYLOAD
    assert Partial.resume(tmp_path, digest) is None
