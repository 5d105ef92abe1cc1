"""What an admin key has signed: one update for each version, remembered beside its seed.

Room: node. Law: the note is on the disk before the signature exists. Spec: docs/ledger.md §12.
"""

import fcntl
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledger.errors import ConfigError
from ledger.store_files import sync_directory

_LINE: Final = re.compile(r"([0-9a-f]{64}) ([0-9]{1,10}) ([0-9a-f]{64})")
NOTE_BYTES_MAX: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Vote:
    """In this network, for this roster version, this update."""

    net: bytes
    version: int
    digest: bytes

    def line(self) -> str:
        """Return how the note says it."""
        return f"{self.net.hex()} {self.version} {self.digest.hex()}\n"


def note_path(seed: Path) -> Path:
    """Return the note's file: beside the seed, and named after it."""
    return seed.with_name(f"{seed.name}.signed")


def remember(seed: Path, vote: Vote) -> None:
    """Note a vote durably before it is given; the same one may be given again.

    Raises ConfigError if this key has signed another update for this version, or one for a later.
    """
    path = note_path(seed)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            known = _parse(path, file.read(NOTE_BYTES_MAX + 1))
            if vote in known:
                return
            _check(path, vote, known)
            file.write(vote.line().encode())
            file.flush()
            os.fsync(file.fileno())
        sync_directory(path.absolute().parent)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written: {error.strerror}; nothing was signed"
        ) from error


def _parse(path: Path, data: bytes) -> list[Vote]:
    votes = []
    text = data.decode("ascii", errors="replace")
    if len(data) > NOTE_BYTES_MAX or (text and not text.endswith("\n")):
        raise _damaged(path)
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            raise _damaged(path)
        votes.append(Vote(bytes.fromhex(match[1]), int(match[2]), bytes.fromhex(match[3])))
    return votes


def _damaged(path: Path) -> ConfigError:
    return ConfigError(
        f"{path}: is damaged: it says what this admin key has signed; put its newest copy back, "
        "nothing was signed"
    )


def _check(path: Path, vote: Vote, known: list[Vote]) -> None:
    later = [one for one in known if one.net == vote.net and one.version >= vote.version]
    if not later:
        return
    newest = max(later, key=lambda one: one.version)
    if newest.version == vote.version:
        raise ConfigError(
            f"this admin key has signed another update for roster {vote.version} "
            f"({newest.digest.hex()[:16]}…, noted in {path}): a key signs once for each version; if "
            "that vote is split, agree on one update and propose it as the next version (--version)"
        )
    raise ConfigError(
        f"this admin key has signed an update for roster {newest.version} already (noted in {path}): "
        f"roster {vote.version} was given up"
    )
