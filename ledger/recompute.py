"""Step 20: payload bytes, and every merge recomputed bit for bit. Room: ledger. docs/ledger.md §14.

What a payload's digest and a merge are is the learning's: it comes as an entry point of the group
``swarm_audit.recompute``, so that the auditor's base install needs none of it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias, final

from .audit import Audit
from .bodies import Kind
from .canonical import pack
from .errors import ConfigError, PeerError, VerificationError
from .reading import Paths, envelopes
from .record import decode_record, record_id, split_envelope
from .report import Finding

Log: TypeAlias = tuple[int, int]
Slot: TypeAlias = tuple[int, int, int]  # (author, epoch, seq)

GROUP: Final = "swarm_audit.recompute"
_NOTHING: Final = b""  # what inputs merge to that do not fit together: no digest equals it
_NAME: Final = re.compile(r"([0-9a-f]{64})\.([0-9]{1,5})")


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeInput:
    """One contribution to a merge: its payload under the digest that the ledger names."""

    digest: bytes
    payload: bytes
    weight_micro: int


class Recomputation(Protocol):
    """What the learning extra supplies."""

    def digest(self, codec: int, payload: bytes) -> bytes:
        """Return the digest by which the ledger names a payload."""

    def merge(self, rule: int, inputs: Sequence[MergeInput]) -> bytes:
        """Return the digest of what the inputs merge to. Raises PeerError if they do not fit."""


def load_recomputation() -> Recomputation:
    """Return what is installed. Raises ConfigError: one line that says what to install."""
    for entry in sorted(entry_points(group=GROUP), key=lambda one: one.name):
        try:
            made: Recomputation = entry.load()()
        except ImportError as error:
            raise ConfigError(
                f"--recompute needs the learning extra: pip install 'swarm-node[node]' ({error})"
            ) from None
        return made
    raise ConfigError("--recompute needs the learning extra: pip install 'swarm-node[node]'")


@dataclass(frozen=True, slots=True)
class _Offer:
    digest: bytes
    codec: int
    bytes_count: int


@final
@dataclass(kw_only=True)
class Recomputed:
    """What step 20 did: findings, and how much could not be done."""

    findings: list[Finding] = field(default_factory=list)
    payloads: int = 0
    absent: int = 0
    merges: int = 0
    skipped: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done, in words."""
        said = f"step 20: {self.payloads} payloads have the digest that the ledger names, and "
        return (said + f"{self.merges} merges were recomputed bit for bit",)

    @property
    def missing(self) -> tuple[str, ...]:
        """What could not be done, in words."""
        if not self.absent and not self.skipped:
            return ()
        return (
            f"payloads of {self.absent} contributions, so {self.skipped} merges were not recomputed",
        )


def recompute(audit: Audit, directory: Path, with_: Recomputation) -> Recomputed:
    """Check every payload that the accepted records name, and every merge of them.

    A merge that gives another digest refuses the log that states it, from there: E_AGG_RESULT.
    Raises ConfigError if the directory cannot be read.
    """
    work = _Work(audit, _files(directory), with_)
    work.check_payloads()
    work.check_merges()
    return work.done


def _files(directory: Path) -> dict[tuple[bytes, int], Path]:
    try:
        paths = sorted(directory.iterdir())
    except OSError as error:
        raise ConfigError(f"{directory}: {error.strerror or error}") from None
    found = {}
    for path in paths:
        match = _NAME.fullmatch(path.name)
        if match is not None:
            found[bytes.fromhex(match[1]), int(match[2])] = path
    return found


@final
class _Work:
    def __init__(
        self, audit: Audit, files: Mapping[tuple[bytes, int], Path], with_: Recomputation
    ) -> None:
        self._audit = audit
        self._paths: Paths = audit.readable()
        self._files = files
        self._with = with_
        self._offers: dict[bytes, _Offer] = {}  # by the id of the record
        self._bad: set[tuple[bytes, int]] = set()
        self.done = Recomputed()

    def check_payloads(self) -> None:
        """Every contribution's payload, if it is there, is what its record names. E_PAYLOAD."""
        checked: set[_Offer] = set()
        for id_, slot, body in self._bodies(Kind.CONTRIBUTION):
            offer = _Offer(digest=body[0], bytes_count=body[1], codec=body[2])
            self._offers[id_] = offer
            if offer in checked:
                continue
            checked.add(offer)
            path = self._files.get((offer.digest, offer.codec))
            if path is None:
                self.done.absent += 1
                continue
            try:
                self._payload(offer)
            except VerificationError as error:
                self._bad.add((offer.digest, offer.codec))
                error.locate(file=str(path), author=slot[0], epoch=slot[1], seq=slot[2])
                self.done.findings.append(Finding(20, error))
            else:
                self.done.payloads += 1

    def check_merges(self) -> None:
        """Every distinct merge is done once; every record that states it is compared. E_AGG_RESULT."""
        known: dict[bytes, bytes | None] = {}
        for _, slot, body in self._bodies(Kind.AGGREGATION):
            rule, parameters, inputs, _, stated = body
            key = pack([rule, parameters, inputs])
            if key not in known:
                known[key] = self._merge(rule, inputs)
                self.done.merges += known[key] is not None
                self.done.skipped += known[key] is None
            right = known[key]
            if right is not None and right != stated:
                error = VerificationError(
                    "E_AGG_RESULT",
                    f"result {stated.hex()}",
                    expected=right.hex() or "none: the inputs do not fit together",
                )
                self._audit.refuse(slot[:2], Finding(20, error), slot[2])

    def _merge(self, rule: int, inputs: Sequence[Any]) -> bytes | None:
        """Return the digest of the merge, None if a payload is absent or refused."""
        merged = []
        for *_, id_, weight_micro in inputs:
            offer = self._offers.get(id_)
            if offer is None or (offer.digest, offer.codec) not in self._files:
                return None
            if (offer.digest, offer.codec) in self._bad:
                return None
            payload = self._payload(offer)
            merged.append(
                MergeInput(digest=offer.digest, payload=payload, weight_micro=weight_micro)
            )
        try:
            return self._with.merge(rule, merged)
        except PeerError:
            return _NOTHING

    def _payload(self, offer: _Offer) -> bytes:
        payload = _read(self._files[offer.digest, offer.codec], offer.bytes_count)
        if payload is None:
            raise VerificationError(
                "E_PAYLOAD", "another length", expected=f"{offer.bytes_count} bytes"
            )
        if self._with.digest(offer.codec, payload) != offer.digest:
            raise VerificationError("E_PAYLOAD", "other bytes", expected=offer.digest.hex())
        return payload

    def _bodies(self, kind: Kind) -> Any:
        """Yield (id, slot, body) of every accepted record of one kind."""
        for log, count in self._audit.counts().items():
            for seq, envelope in enumerate(islice(envelopes(self._paths[log]), count)):
                record_bytes, _ = split_envelope(envelope)
                value = decode_record(record_bytes)
                if value[7] == kind:
                    yield record_id(record_bytes), (*log, seq), value[12]


def _read(path: Path, bytes_count: int) -> bytes | None:
    """Return the file if it is a regular one of that length, else None. Raises ConfigError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size != bytes_count:
                return None
            return file.read(bytes_count + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
