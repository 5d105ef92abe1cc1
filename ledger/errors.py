"""Every error says whose fault it is. Room: ledger. Law 7.

::

    SwarmError
    ├── ConfigError          the operator's: one line that says what to change
    ├── UnavailableError     nobody's: retry with back-off
    ├── StoreError           our own disk's: the node stops and is restarted from its store
    └── PeerError            they broke the protocol: refuse, record, never retry
        └── VerificationError    a record, file or bundle is not what the ledger demands

Anything else that escapes is our own bug.
"""

from __future__ import annotations


class SwarmError(Exception):
    """Base of every error that this project raises on purpose; its text is one line."""


class ConfigError(SwarmError):
    """The operator's: the text names the key or file and what to change."""


class UnavailableError(SwarmError):
    """Nobody's fault: a peer is away or slow. Retry with back-off."""


class StoreError(SwarmError):
    """Our own disk's: full, locked, foreign or corrupt. The node stops."""


class PeerError(SwarmError):
    """They broke the protocol: refuse, record, never retry."""


class VerificationError(PeerError):
    """Evidence was refused. ``code``: docs/ledger.md §9, or docs/wire.md for what only nodes refuse."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        file: str | None = None,
        author: int | None = None,
        epoch: int | None = None,
        seq: int | None = None,
        expected: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.file = file
        self.author = author
        self.epoch = epoch
        self.seq = seq
        self.expected = expected

    def locate(
        self,
        *,
        file: str | None = None,
        author: int | None = None,
        epoch: int | None = None,
        seq: int | None = None,
    ) -> VerificationError:
        """Fill in what is not known yet about where the failure lies; return self."""
        self.file = file if self.file is None else self.file
        self.author = author if self.author is None else self.author
        self.epoch = epoch if self.epoch is None else self.epoch
        self.seq = seq if self.seq is None else self.seq
        return self

    def __str__(self) -> str:
        places = [("file", self.file), ("author", self.author), ("epoch", self.epoch)]
        where = ", ".join(f"{n} {v}" for n, v in [*places, ("seq", self.seq)] if v is not None)
        expected = None if self.expected is None else f"expected {self.expected}"
        inside = "; ".join(part for part in (where, expected) if part)
        return f"{self.code}: {self.message}" + (f" ({inside})" if inside else "")
