"""Frames: how one log lies in a bundle's file. Room: ledger. Spec: docs/ledger.md §9.

A frame is a u32 length (big-endian) and an envelope. A log is closed by an end mark, a frame of
length 0, which makes a cut at a frame's border as visible as one inside a frame.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Final

from .canonical import ENVELOPE_BYTES_MAX
from .errors import ConfigError, VerificationError

END_MARK: Final = bytes(4)
CHUNK_BYTES: Final = 1 << 17  # above the largest frame; one buffer for each open log
_LENGTH: Final = Struct(">I")


def read_frames(path: Path) -> Iterator[bytes]:
    """Yield the envelopes of one log, read a chunk at a time; holds no file open in between.

    Raises E_TRUNCATED or E_SIZE at the frame that is wrong, ConfigError if the disk fails.
    """
    buffer = b""
    offset = 0  # of the first byte after the buffer
    while chunk := _chunk(path, offset):
        offset += len(chunk)
        buffer += chunk
        del chunk  # so that of many open logs each holds one buffer, not two
        at = 0
        while at + 4 <= len(buffer):
            (length,) = _LENGTH.unpack_from(buffer, at)
            end = at + 4 + length
            if 0 < length <= ENVELOPE_BYTES_MAX:
                if end > len(buffer):
                    break
                yield buffer[at + 4 : end]
                at = end
            elif length:
                raise VerificationError(
                    "E_SIZE", f"frame of {length} bytes", expected=f"at most {ENVELOPE_BYTES_MAX}"
                )
            elif end < len(buffer) or _chunk(path, offset):
                raise VerificationError("E_SIZE", "bytes after the end mark")
            else:
                return
        buffer = buffer[at:]
    raise VerificationError("E_TRUNCATED", "the file ends inside a frame or without its end mark")


def _chunk(path: Path, offset: int) -> bytes:
    try:
        return read_at(path, offset, CHUNK_BYTES)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None


def read_at(path: Path, offset: int, bytes_max: int) -> bytes:
    """Return what a regular file holds there. Raises OSError, also for a link or a pipe."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.pread(fd, bytes_max, offset)
    finally:
        os.close(fd)
