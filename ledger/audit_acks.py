"""What the audited records acknowledge, for finality. Room: ledger. Spec: docs/ledger.md §8.

Only acks of records that stand count: where a log was refused, what it has acked is read again up to
there, since some records are refused at the very end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, TypeAlias

from .audit_log import LogAudit
from .canonical import unpack
from .finality import raise_to
from .frames import read_frames
from .record import split_envelope

Log: TypeAlias = tuple[int, int]


def acks_by_version(logs: Mapping[Log, LogAudit]) -> dict[int, dict[Log, dict[int, int]]]:
    """Return the ack matrices of :mod:`ledger.finality` from what the audit kept."""
    matrices: dict[int, dict[Log, dict[int, int]]] = {}
    for key, log in logs.items():
        for version, own in log.own_seqs().items():
            raise_to(matrices.setdefault(version, {}), key, log.author, own)
        acks = _kept(log) if log.refused_at is None else _again(log, logs)
        for version, target, seq in acks:
            raise_to(matrices.setdefault(version, {}), target, log.author, seq)
    return matrices


def _kept(log: LogAudit) -> Iterator[tuple[int, Log, int]]:
    for target, link in log.links.items():
        for version, seq in link.by_roster().items():
            yield version, target, seq


def _again(log: LogAudit, logs: Mapping[Log, LogAudit]) -> Iterator[tuple[int, Log, int]]:
    """Yield the same for the records that stand of a log that was refused somewhere."""
    best = max(log.sources, key=lambda one: one.finding_at if one.finding else one.count)
    for envelope in islice(read_frames(best.path), log.accepted):
        value: Any = unpack(split_envelope(envelope)[0])
        for author, epoch, seq, id_ in value[11]:
            target = logs.get((author, epoch))
            if target is not None and target.ids.startswith(id_, seq << 5):
                yield value[6], (author, epoch), seq
