"""Payload files: whole or absent, called by their digest, checked when they are read."""

import os
from pathlib import Path

import pytest

from ledger.errors import StoreError
from node.blobs import BlobStore
from swarm.protocol.payload import CHUNK_BYTES, check_chunk, manifest_of, payload_digest

BIG = bytes(range(256)) * (3 * CHUNK_BYTES // 512)


def test_a_payload_comes_back_under_its_digest_also_after_a_restart(tmp_path: Path) -> None:
    digest = BlobStore(tmp_path).put(1, BIG)
    assert digest == payload_digest(1, BIG)
    again = BlobStore(tmp_path)
    assert again.get(digest) == BIG
    assert again.manifest(digest) == manifest_of(1, BIG)
    assert again.stored() == {digest: (1, len(BIG))}


def test_chunks_are_served_one_by_one_and_none_beyond_the_end(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    digest = blobs.put(1, BIG)
    manifest = manifest_of(1, BIG)
    for index in range(2):
        chunk = blobs.chunk(digest, index)
        assert chunk is not None
        check_chunk(manifest, index, chunk)
    assert blobs.chunk(digest, 2) is None
    assert blobs.chunk(bytes(32), 0) is None
    assert blobs.manifest(bytes(32)) is None


def test_the_same_bytes_under_two_codecs_are_two_payloads(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    first, second = blobs.put(1, b"same"), blobs.put(2, b"same")
    assert first != second
    assert blobs.stored() == {first: (1, 4), second: (2, 4)}


@pytest.mark.parametrize("damage", [b"", b"x", BIG[:-1], b"\1" + BIG[1:]])
def test_a_damaged_file_is_never_handed_out(tmp_path: Path, damage: bytes) -> None:
    blobs = BlobStore(tmp_path)
    digest = blobs.put(1, BIG)
    (file,) = tmp_path.glob("*.1")
    file.write_bytes(damage)
    assert blobs.get(digest) is None
    assert blobs.stored() == {}, "it is away, and will be fetched again"
    assert blobs.put(1, BIG) == digest
    assert blobs.get(digest) == BIG


def test_what_a_crash_left_half_written_is_gone_at_the_next_start(tmp_path: Path) -> None:
    (tmp_path / "tmpabc.part").write_bytes(b"half")
    assert BlobStore(tmp_path).stored() == {}
    assert not list(tmp_path.glob("*.part"))


def test_files_of_other_names_stop_nobody(tmp_path: Path) -> None:
    for name in (".DS_Store", "notes.txt", "ab.1", "z" * 64 + ".1"):
        (tmp_path / name).write_bytes(b"?")
    blobs = BlobStore(tmp_path)
    digest = blobs.put(1, b"real")
    assert set(blobs.stored()) == {digest}


def test_a_full_disk_is_a_store_error_and_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = BlobStore(tmp_path)

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        blobs.put(1, BIG)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot keep payloads"):
        BlobStore(tmp_path / "file")
