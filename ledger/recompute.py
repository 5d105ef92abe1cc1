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
from .bodies import Codec, Kind, Rule
from .canonical import pack
from .charter import Charter
from .errors import ConfigError, PeerError, VerificationError
from .reading import Paths, envelopes
from .recompute_sketches import SketchCheck
from .record import decode_record, record_id, split_envelope
from .report import Finding
from .rules import origin_of, result_codec

Log: TypeAlias = tuple[int, int]
Slot: TypeAlias = tuple[int, int, int]  # (author, epoch, seq)

GROUP: Final = "swarm_audit.recompute"
_NOTHING: Final = b""  # what inputs merge to that do not fit together: no digest equals it
_NO_BASE: Final = bytes(32)
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

    def merge(
        self, charter: Charter, rule: int, inputs: Sequence[MergeInput], origin: bytes | None
    ) -> bytes:
        """Return the payload of what the inputs merge to. Raises PeerError if they do not fit.

        origin: payload of the base that the merge starts from; None where it starts from none.
        """

    def sketch(
        self, charter: Charter, payload: bytes, base: bytes, seed: bytes
    ) -> tuple[int, bytes]:
        """Return exponent and values of what an update adds to its base. Raises PeerError."""


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


@dataclass(frozen=True, slots=True)
class _Offered:
    """A contribution that an aggregation may name."""

    offer: _Offer
    author: int
    round: int
    base: bytes


@dataclass(slots=True)
class _Merge:
    """One merge, and every record that states what it gives."""

    rule: int
    inputs: list[Any]
    origin: bytes | None
    stated: list[tuple[Slot, bytes]] = field(default_factory=list)


@final
@dataclass(kw_only=True)
class Recomputed:
    """What step 20 did: findings, and how much could not be done."""

    findings: list[Finding] = field(default_factory=list)
    payloads: int = 0
    absent: int = 0
    merges: int = 0
    skipped: int = 0
    bases: int = 0
    sketches: int = 0
    unsketched: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done, in words."""
        said = f"step 20: {self.payloads} payloads have the digest that the ledger names, and "
        said += f"{self.merges} merges were recomputed bit for bit"
        return (said + (f", and {self.sketches} sketches" if self.sketches else ""),)

    @property
    def missing(self) -> tuple[str, ...]:
        """What could not be done, in words."""
        said = []
        if self.absent or self.skipped:
            bases = f" and {self.bases} bases" if self.bases else ""
            said.append(
                f"payloads of {self.absent} contributions{bases}, so {self.skipped} merges were "
                "not recomputed"
            )
        if self.unsketched:
            said.append(f"payloads or bases of {self.unsketched} sketched updates")
        return tuple(said)


def recompute(audit: Audit, directory: Path, with_: Recomputation) -> Recomputed:
    """Check every payload that the accepted records name, and every merge of them.

    A merge that gives another digest refuses the log that states it, from there: E_AGG_RESULT.
    Raises ConfigError if the directory cannot be read.
    """
    work = _Work(audit, payload_files(directory), with_)
    work.check_payloads()
    work.check_merges()
    return work.done


def payload_files(directory: Path) -> dict[tuple[bytes, int], Path]:
    """Return the files that are named as payloads, by digest and codec. Raises ConfigError."""
    try:
        paths = sorted(directory.iterdir())
    except OSError as error:
        raise ConfigError(f"{directory}: {error.strerror or error}; name another folder") from None
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
        self._policy = audit.charter.aggregation
        self._offered: dict[bytes, _Offered] = {}  # by the id of the record
        self._bad: set[tuple[bytes, int]] = set()
        self._bases: dict[bytes, bytes] = {}  # results that later merges start from
        self.done = Recomputed()

    def check_payloads(self) -> None:
        """Every contribution's payload, if it is there, is what its record names. E_PAYLOAD."""
        checked: set[_Offer] = set()
        for id_, slot, round_, body in self._bodies(Kind.CONTRIBUTION):
            offer = _Offer(digest=body[0], bytes_count=body[1], codec=body[2])
            self._offered[id_] = _Offered(offer, slot[0], round_, body[3])
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
        """Every distinct merge is done once; every record that states it is compared.

        E_AGG_RESULT; and what is sketched, base by base: E_SKETCH.
        """
        sketches = SketchCheck(
            self._bodies(Kind.SKETCH),
            lambda id_: self._offered[id_].base if id_ in self._offered else None,
        )
        merges = self._merges()
        last_use = {merge.origin: at for at, merge in enumerate(merges)}
        for at, merge in enumerate(merges):
            payload = self._merge(merge)
            if merge.origin is not None and last_use[merge.origin] == at:
                self._bases.pop(merge.origin, None)
            if payload is None:
                self.done.skipped += 1
                continue
            self.done.merges += 1
            right = self._with.digest(result_codec(merge.rule), payload) if payload else _NOTHING
            self._check_sketches(sketches, right, payload)
            if last_use.get(right, -1) > at:
                self._bases[right] = payload
            for slot, stated in merge.stated:
                if right != stated:
                    error = VerificationError(
                        "E_AGG_RESULT",
                        f"result {stated.hex()}",
                        expected=right.hex() or "none: the inputs do not fit together",
                    )
                    self._audit.refuse(slot[:2], Finding(20, error), slot[2])
        for digest in sorted(sketches.bases):
            base = self._base(digest)
            if base is not None:
                self._check_sketches(sketches, digest, base)
        self.done.sketches, self.done.unsketched = sketches.checked, sketches.unchecked

    def _check_sketches(self, sketches: SketchCheck, digest: bytes, base: bytes) -> None:
        charter = self._audit.charter
        for slot, error in sketches.check(
            digest,
            base,
            self._payload_of,
            lambda payload, base, seed: self._with.sketch(charter, payload, base, seed),
        ):
            self._audit.refuse(slot[:2], Finding(20, error), slot[2])

    def _payload_of(self, id_: bytes) -> bytes | None:
        """Return the payload of a contribution, None if it is absent or refused."""
        offer = self._offered[id_].offer
        key = (offer.digest, offer.codec)
        return None if key not in self._files or key in self._bad else self._payload(offer)

    def _merges(self) -> list[_Merge]:
        """Every distinct merge, each after what it may start from."""
        found: dict[bytes, tuple[int, _Merge]] = {}
        for _, slot, round_, body in self._bodies(Kind.AGGREGATION):
            rule, parameters, inputs, _, stated = body
            origin = self._origin(slot[0], round_, rule, inputs)
            how = [] if rule == Rule.MOMENTS else parameters  # there they number a ballot
            key = pack([rule, how, inputs, origin or b""])
            _, merge = found.setdefault(key, (round_, _Merge(rule, inputs, origin)))
            merge.stated.append((slot, stated))
        return [merge for _, merge in sorted(found.values(), key=lambda one: one[0])]

    def _origin(self, author: int, round_: int, rule: int, inputs: Sequence[Any]) -> bytes | None:
        """Return the base that a merge starts from, as the nodes find it; None if it needs none."""
        if rule == Rule.MOMENTS or not self._policy.needs_base:
            return None
        offered = [self._offered[id_] for *_, id_, _ in inputs if id_ in self._offered]
        bases = [
            one.base
            for one in offered
            if one.round == round_ and (not self._policy.is_gossip or one.author == author)
        ]
        return origin_of(bases) if bases else _NO_BASE

    def _merge(self, merge: _Merge) -> bytes | None:
        """Return what a merge gives, None if a payload is absent or refused."""
        merged = []
        for *_, id_, weight_micro in merge.inputs:
            offered = self._offered.get(id_)
            if offered is None:
                return None
            payload = self._payload_of(id_)
            if payload is None:
                return None
            digest = offered.offer.digest
            merged.append(MergeInput(digest=digest, payload=payload, weight_micro=weight_micro))
        origin = self._base(merge.origin) if merge.origin is not None else None
        if merge.origin is not None and origin is None:
            self.done.bases += 1
            return None
        try:
            return self._with.merge(self._audit.charter, merge.rule, merged, origin)
        except PeerError:
            return _NOTHING

    def _base(self, digest: bytes) -> bytes | None:
        """Return a base: a result that was recomputed, else a file with its digest."""
        if digest in self._bases:
            return self._bases[digest]
        path = self._files.get((digest, Codec.FLOAT32))
        if path is None:
            return None
        payload = read_payload(path, None, self._audit.charter.rounds.payload_bytes_max)
        right = payload is not None and self._with.digest(Codec.FLOAT32, payload) == digest
        return payload if right else None

    def _payload(self, offer: _Offer) -> bytes:
        path = self._files[offer.digest, offer.codec]
        payload = read_payload(path, offer.bytes_count, offer.bytes_count)
        if payload is None:
            raise VerificationError(
                "E_PAYLOAD", "another length", expected=f"{offer.bytes_count} bytes"
            )
        if self._with.digest(offer.codec, payload) != offer.digest:
            raise VerificationError("E_PAYLOAD", "other bytes", expected=offer.digest.hex())
        return payload

    def _bodies(self, kind: Kind) -> Any:
        """Yield (id, slot, round, body) of every accepted record of one kind."""
        for log, count in self._audit.counts().items():
            for seq, envelope in enumerate(islice(envelopes(self._paths[log]), count)):
                record_bytes, _ = split_envelope(envelope)
                value = decode_record(record_bytes)
                if value[7] == kind:
                    yield record_id(record_bytes), (*log, seq), value[8], value[12]


def read_payload(path: Path, bytes_count: int | None, bytes_max: int) -> bytes | None:
    """Return the file if it is a regular one of that length, else None. Raises ConfigError.

    bytes_count: None for any up to ``bytes_max``.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > bytes_max:
                return None
            if bytes_count is not None and status.st_size != bytes_count:
                return None
            return file.read(bytes_max + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
