"""Payload files: whole or absent, called by their digest, checked when they are read."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.errors import StoreError
from node import blobs as blobs_module
from node.blobs import BlobStore
from node.payload_io import manifest_of_file
from swarm.protocol.payload import (
    CHUNK_BYTES,
    Manifest,
    check_chunk,
    manifest_of,
    payload_digest,
)

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


def test_what_is_stored_can_be_added_up_while_the_disks_thread_stores(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)

    class Meanwhile(tuple[int, int]):
        """Codec and size of a payload; when they are looked at, one more is stored and one is begun."""

        __slots__ = ()

        def __iter__(self) -> Iterator[int]:
            blobs._stored[os.urandom(32)] = (1, 5)
            blobs._incoming[os.urandom(32)] = 7
            return super().__iter__()

    for number in range(9):
        blobs._stored[bytes([number])] = Meanwhile((1, 5))
    assert blobs.bytes_stored == 45


def test_a_file_is_digested_once_however_many_are_asked_for_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    payloads = {payload_digest(1, payload): payload for payload in (b"%d" % n for n in range(300))}
    for digest, payload in payloads.items():
        (tmp_path / f"{digest.hex()}.1").write_bytes(payload)
    read: list[Path] = []

    def noted(codec: int, path: Path) -> Manifest:
        read.append(path)
        return manifest_of_file(codec, path)

    monkeypatch.setattr(blobs_module, "manifest_of_file", noted)
    blobs = BlobStore(tmp_path)
    for _ in range(3):
        assert all(blobs.manifest(digest) is not None for digest in payloads)
    assert len(read) == len(payloads)


def test_manifests_are_bounded_and_reading_a_payload_again_pushes_none_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs_module, "MANIFESTS_REMEMBERED", 4)
    blobs = BlobStore(tmp_path)
    digests = [blobs.put(1, b"%d" % number) for number in range(6)]
    for _ in range(3):
        blobs.get(digests[-1])
    assert list(blobs._manifests) == digests[-4:]
