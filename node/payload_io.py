"""Reading and writing payload files: checked against their digests, and never wholly in memory. Room: node.

What the system says becomes one line; a disk without room has an error of its own, since a payload
that is not ours can be done without.
"""

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import Final, TypeAlias, cast

from blake3 import blake3

from ledger.errors import StoreError
from swarm.protocol.payload import CHUNK_BYTES, Manifest

Buffer: TypeAlias = bytes | memoryview
"""A payload to read from: bytes, or the file itself, mapped."""

MAPPED_BYTES_MIN: Final = CHUNK_BYTES
"""Payloads up to this size are read; longer ones are mapped, so that pages come and go."""
_NO_ROOM: Final = frozenset({ENOSPC, EDQUOT})


class NoRoomError(StoreError):
    """The disk, or the share of it that payloads may take, is full."""


@contextmanager
def faults(path: Path, what: str) -> Iterator[None]:
    """Turn what the system says into one line of ours."""
    try:
        yield
    except OSError as error:
        kind = NoRoomError if error.errno in _NO_ROOM else StoreError
        raise kind(f"{path}: cannot {what}: {error.strerror or error}") from error


def manifest_of_file(codec: int, path: Path) -> Manifest:
    """Cut a file into chunks and digest each; one chunk is in memory at a time."""
    chunks, bytes_count = [], 0
    with path.open("rb", buffering=0) as file:
        while chunk := read_fully(file.fileno(), CHUNK_BYTES, bytes_count):
            chunks.append(blake3(chunk).digest())
            bytes_count += len(chunk)
    return Manifest(codec=codec, bytes_count=bytes_count, chunks=tuple(chunks))


def view_of_file(path: Path) -> bytes:
    """Return a file's bytes, read-only; a long file is mapped and stays readable without its name.

    What is mapped is a memoryview. It is called bytes here, since all that is ever done with a payload
    is to read it as a buffer: nobody who computes has to know where it lies.
    """
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size <= MAPPED_BYTES_MIN:
            return file.read()
        return cast("bytes", memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))


def read_fully(fd: int, count: int, at: int) -> bytes:
    """Read ``count`` bytes from ``at``; fewer only where the file ends."""
    parts: list[bytes] = []
    while count and (part := os.pread(fd, count, at)):
        parts.append(part)
        at, count = at + len(part), count - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_at_hand(fd: int, count: int, at: int) -> bytearray | None:
    """Return ``count`` bytes from ``at``, unless the disk would have to be asked for some of them."""
    room = bytearray(count)
    try:
        found = os.preadv(fd, [room], at, os.RWF_NOWAIT)
    except (OSError, AttributeError):  # EAGAIN; or a system that cannot tell
        return None
    return room if found == count else None


def begin_writeback(fd: int, count: int, at: int) -> None:
    """Let the system write these bytes to the disk from now on: a flush at the end waits for little.

    Linux does so when it is told that what has just been written is not needed soon; it stays in
    memory until it is on the disk, and then mostly longer.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, at, count, os.POSIX_FADV_DONTNEED)


def write_fully(fd: int, data: Buffer, at: int) -> None:
    """Write all of ``data`` at ``at``."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, at)
        at, view = at + written, view[written:]
