"""Reading logs for people, record by record. Room: ledger. Spec: docs/ledger.md §13.

What is read here has been audited before, or is opened record by record (steps 5 to 8) on the way.
Streams: at no time more than one record of each log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .errors import ConfigError, VerificationError
from .frames import read_frames
from .record import (
    Record,
    RecordId,
    Verified,
    open_record,
    parse_envelope,
    record_id,
    split_envelope,
)
from .roster import Roster

if TYPE_CHECKING:
    from .verify import Opened

Log: TypeAlias = tuple[int, int]
Paths: TypeAlias = Mapping[Log, Sequence[Path]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands."""

    author: int
    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.author}/{self.epoch}/{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Place | None:
        """Read AUTHOR/EPOCH/SEQ; None if it is something else."""
        parts = text.split("/")
        if len(parts) != 3 or not all(one.isascii() and one.isdigit() for one in parts):
            return None
        return cls(*(int(one[:20]) for one in parts))


def envelopes(paths: Sequence[Path]) -> Iterator[bytes]:
    """Yield one log's envelopes in order, each from the first file that still has one.

    A file that breaks off is left there: the audit says what is wrong with it.
    """
    for side_by_side in zip_longest(*map(_whole_frames, paths)):
        yield next(filter(None, side_by_side))


def _whole_frames(path: Path) -> Iterator[bytes]:
    with suppress(VerificationError):
        yield from read_frames(path)


def read_log(
    paths: Sequence[Path], roster: Roster, *, count: int | None = None
) -> Iterator[Verified[Record]]:
    """Yield one log's records, each opened: steps 5 to 8. ``count``: how many at most.

    Raises VerificationError with the place of the first that does not open.
    """
    for seq, envelope in enumerate(envelopes(paths)):
        if count is not None and seq >= count:
            return
        try:
            yield open_record(parse_envelope(envelope), roster=roster)
        except VerificationError as error:
            raise error.locate(file=str(paths[0]), seq=seq) from None


def read_all(
    paths: Paths, roster: Roster, counts: Mapping[Log, int] | None = None
) -> Iterator[Verified[Record]]:
    """Yield every log's records, log by log; ``counts``: how many of each the audit accepted."""
    for log in sorted(paths):
        yield from read_log(paths[log], roster, count=None if counts is None else counts[log])


def opened_ledger(opened: Opened) -> Roster:
    """Return the roster, or raise the first reason why there is none."""
    if opened.roster is None:
        if opened.findings:
            raise opened.findings[0].error
        raise ConfigError("the bundles hold nothing that can be read")
    return opened.roster


def find(paths: Paths, wanted: str) -> Place:
    """Return the place of the one record that ``wanted`` names: AUTHOR/EPOCH/SEQ or an id's start.

    Raises ConfigError if there is none, or more than one.
    """
    place = Place.parse(wanted)
    if place is not None:
        if (place.author, place.epoch) not in paths:
            raise ConfigError(f"record {wanted}: no bundle has a log {place.author}/{place.epoch}")
        return place
    prefix = wanted.lower()
    if not 4 <= len(prefix) <= 64 or set(prefix) - set("0123456789abcdef"):
        raise ConfigError(
            f"record {wanted!a}: give 4 to 64 hex digits of its id, or AUTHOR/EPOCH/SEQ"
        )
    found = [
        Place(*log, seq)
        for log in sorted(paths)
        for seq, envelope in enumerate(envelopes(paths[log]))
        if record_id(split_envelope(envelope)[0]).hex().startswith(prefix)
    ]
    if not found:
        raise ConfigError(f"record {wanted}: no bundle has it")
    if len(found) > 1:
        named = ", ".join(map(str, found[:4]))
        raise ConfigError(f"record {wanted}: {len(found)} records begin so ({named} …); give more")
    return found[0]


def record_at(paths: Paths, place: Place, roster: Roster) -> Verified[Record]:
    """Return one record, opened. Raises ConfigError if its log ends before it."""
    log = (place.author, place.epoch)
    for seq, envelope in enumerate(envelopes(paths[log])):
        if seq == place.seq:
            return open_record(parse_envelope(envelope), roster=roster)
    raise ConfigError(f"record {place}: the log ends before it")


def first_covers(
    paths: Paths, place: Place, roster: Roster, counts: Mapping[Log, int]
) -> dict[int, Verified[Record]]:
    """Return for each member its first record that acks ``place`` or a later one of its branch.

    ``counts``: how many records of each log stand; what is behind them acks nothing.
    """
    found: dict[int, Verified[Record]] = {}
    ids = _ids_from(paths, place, counts)
    for log in sorted(paths):
        if log[0] == place.author or log[0] in found:
            continue
        for envelope in islice(envelopes(paths[log]), counts[log]):
            if _covers(envelope, place, ids):
                found[log[0]] = open_record(parse_envelope(envelope), roster=roster)
                break
    return found


def _ids_from(paths: Paths, place: Place, counts: Mapping[Log, int]) -> dict[int, RecordId]:
    """Return slot → id of the record at ``place`` and those behind it that stand with it."""
    log = (place.author, place.epoch)
    for path in paths[log]:  # one file: those of a forked log differ behind what stands
        count = counts[log] if place.seq < counts[log] else None
        ids = {
            seq: record_id(split_envelope(envelope)[0])
            for seq, envelope in enumerate(islice(_whole_frames(path), count))
            if seq >= place.seq
        }
        if ids:
            return ids
    return {}


def _covers(envelope: bytes, place: Place, ids: Mapping[int, RecordId]) -> bool:
    from .record import decode_record

    value: list[Any] = decode_record(split_envelope(envelope)[0])
    return any(
        author == place.author and epoch == place.epoch and ids.get(seq) == id_
        for author, epoch, seq, id_ in value[11]
    )
