"""A payload on its way in: a file that grows chunk by chunk and outlives the process. Room: node.

Beside the chunks lies the manifest. Which chunks are there is written nowhere: at the next start each
counts if it still has its digest, so no journal can be torn, and no crash can make a hole look full.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Self, final

from ledger.errors import PeerError
from ledger.store_files import sync_directory
from node.payload_io import Buffer, begin_writeback, faults, read_fully, view_of_file, write_fully
from swarm.protocol.payload import (
    CHUNK_BYTES,
    Manifest,
    check_chunk,
    manifest_bytes_max,
    open_manifest,
)

DATA: Final = ".incoming"
MANIFEST: Final = ".manifest"
FLUSH_CHUNKS: Final = 128
"""Chunks after which the file is flushed; a power cut costs the last seconds before, if not less."""
BYTES_MAX: Final = 1 << 40
"""The largest payload that any charter allows: this one's limit was looked at before the file was begun,
and whoever resumes it looks again."""
_WRITE: Final = "keep a payload that comes in"


@final
class Partial:
    """One payload that is not complete, or not yet accepted."""

    def __init__(self, directory: Path, manifest: Manifest, held: set[int]) -> None:
        self.manifest = manifest
        self.held = held
        """Chunks that are in the file and were checked."""
        self._directory = directory
        self._data, self._note = _paths(directory, manifest.digest)
        self._unflushed = 0
        with faults(self._data, _WRITE):
            self._fd = os.open(self._data, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @classmethod
    def begin(cls, directory: Path, manifest: Manifest) -> Self:
        """Start an empty file, once its manifest is on the disk. Raises StoreError."""
        _, note = _paths(directory, manifest.digest)
        temporary = note.with_suffix(".part")
        with faults(note, _WRITE):
            with temporary.open("wb") as file:
                file.write(manifest.to_bytes())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(note)
        partial = cls(directory, manifest, set())
        with faults(directory, _WRITE):
            sync_directory(directory)
        return partial

    @classmethod
    def resume(cls, directory: Path, digest: bytes) -> Self | None:
        """Open what an earlier process left of a payload; None if that is nothing of use."""
        data, note = _paths(directory, digest)
        with faults(note, "read a payload that comes in"):
            manifest = _read_manifest(note, digest)
            if manifest is None or not data.exists():
                remove_partial(directory, digest)
                return None
            partial = cls(directory, manifest, set())
            partial.held.update(partial._intact())
        return partial

    @property
    def is_complete(self) -> bool:
        """Whether every chunk is here."""
        return len(self.held) == len(self.manifest.chunks)

    def add(self, index: int, chunk: Buffer) -> None:
        """Check a chunk and write it. Raises PeerError for a wrong one, StoreError."""
        check_chunk(self.manifest, index, chunk)
        with faults(self._data, _WRITE):
            write_fully(self._fd, chunk, index * CHUNK_BYTES)
            begin_writeback(self._fd, len(chunk), index * CHUNK_BYTES)
            self._unflushed += 1
            if self._unflushed >= FLUSH_CHUNKS:
                os.fdatasync(self._fd)
                self._unflushed = 0
        self.held.add(index)

    def chunk(self, index: int) -> bytes | None:
        """Return a chunk that is here, for others who fetch the same payload."""
        if index not in self.held:
            return None
        with faults(self._data, "read a payload that comes in"):
            return read_fully(self._fd, CHUNK_BYTES, index * CHUNK_BYTES)

    def view(self) -> bytes:
        """Return the whole payload, read-only. Only when it is complete."""
        if not self.is_complete:
            raise ValueError("a payload is read before it is complete")
        with faults(self._data, "read a payload that comes in"):
            return view_of_file(self._data)

    def become(self, path: Path) -> None:
        """Flush everything and take the name of a payload that is held; then it is one."""
        with faults(path, "store a payload"):
            os.fsync(self._fd)
            self._data.replace(path)
            try:
                sync_directory(self._directory)
            except BaseException:
                # Not even the final name may stay: it would be taken for durable the next time.
                with suppress(OSError):
                    path.unlink(missing_ok=True)
                raise
            self._note.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the file; it stays for the next time."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with faults(self._data, _WRITE):
                os.close(fd)

    def _intact(self) -> Iterator[int]:
        if os.fstat(self._fd).st_size > self.manifest.bytes_count:
            os.ftruncate(self._fd, self.manifest.bytes_count)
        for index in range(len(self.manifest.chunks)):
            try:
                chunk = read_fully(self._fd, CHUNK_BYTES, index * CHUNK_BYTES)
                check_chunk(self.manifest, index, chunk)
            except PeerError:
                continue
            yield index


def remove_partial(directory: Path, digest: bytes) -> None:
    """Forget a payload that is not complete."""
    for path in _paths(directory, digest):
        with faults(path, "remove a payload that came in part"):
            path.unlink(missing_ok=True)


def _paths(directory: Path, digest: bytes) -> tuple[Path, Path]:
    stem = digest.hex()
    return directory / f"{stem}{DATA}", directory / f"{stem}{MANIFEST}"


def _read_manifest(path: Path, digest: bytes) -> Manifest | None:
    try:
        with path.open("rb") as file:
            data = file.read(manifest_bytes_max(BYTES_MAX) + 1)
        return open_manifest(data, digest=digest, payload_bytes_max=BYTES_MAX)
    except (FileNotFoundError, PeerError):
        return None
