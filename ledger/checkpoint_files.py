"""Where checkpoints are kept: the store's keys, and the names in a bundle. Room: ledger.

Spec: docs/ledger.md §9, docs/checkpoints.md §4 and §11.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from .checkpoint import Checkpoint, parse_text
from .note import text_of

Log: TypeAlias = tuple[int, int]  # (author, epoch)

CHECKPOINTS_NAME: Final = "checkpoints"
OWN_KEY: Final = "checkpoint/own"  # the newest that this node has signed, cosigned or not
_NAME: Final = re.compile(r"([0-9]{4,5})-([0-9]{4,10})\.txt")


def witness_key(log: Log) -> str:
    """Return the key of the witness's state for one log."""
    return f"witness/{log[0]}/{log[1]}"


def finished_key(log: Log) -> str:
    """Return the key of the newest checkpoint of one log that a quorum has cosigned."""
    return f"checkpoint/{log[0]}/{log[1]}"


def checkpoint_name(log: Log) -> str:
    """Return the file name of one log's checkpoint: AAAA-EEEE.txt."""
    return f"{log[0]:04d}-{log[1]:04d}.txt"


def log_of_name(name: str) -> Log | None:
    """Return whose checkpoint has this file name; None if it is no such name."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    log = (int(match[1]), int(match[2]))
    return log if checkpoint_name(log) == name else None


def read_unchecked(data: bytes) -> Checkpoint:
    """Return what a checkpoint file says; its signature lines are not looked at. Raises E_CHECKPOINT."""
    return parse_text(text_of(data))
