"""Proven forks under audit: which branch stands, what is void. Room: ledger. Spec: docs/ledger.md §8, §10.

Nothing here runs unless a FORK_PROOF is in the bundles. Then the logs that are proven to fork are read
file by file (steps 4 to 10), the branch that stands is chosen, and the audit runs once more over that
one alone. Any order of bundles gives the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, TypeAlias

from .audit_log import BodyMemo, LogAudit, Signatures
from .bodies import ForkProof, Kind
from .branches import Chain, Hearsay, standing
from .canonical import unpack
from .errors import VerificationError
from .finality import raise_to, states_of_versions
from .fork import Fork, check_fork_proof
from .frames import read_frames
from .keys import opens
from .record import DOMAIN, RecordId, record_id, split_envelope
from .report import Finding, ForkFound
from .roster import Roster, quorum

Log: TypeAlias = tuple[int, int]
Paths: TypeAlias = Mapping[Log, Sequence[Path]]
_FIELDS: Final = 13


@dataclass(frozen=True, slots=True)
class Proven:
    """One FORK_PROOF that proves what it says, and where it stands."""

    fork: Fork
    body: ForkProof
    place: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class ForkedLog:
    """What is known of one forked log."""

    found: ForkFound
    limits: Mapping[Path, int]
    """File → how many of its records stand."""
    findings: tuple[Finding, ...]
    missing: tuple[str, ...]
    """What may be final of it and is in no bundle."""


@dataclass
class _File:
    """What one file shows of a forked log, after steps 4 to 10."""

    path: Path
    ids: list[RecordId] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    own_seqs: dict[int, int] = field(default_factory=dict)
    """Roster version → the last record that names it."""
    finding: Finding | None = None


def prove_forks(
    roster: Roster, paths: Paths, signatures: Signatures, proven: Sequence[Proven] | None = None
) -> dict[Log, ForkedLog]:
    """Return every log that a FORK_PROOF in the bundles proves to fork, and what stands of it.

    ``proven``: the proofs, if a whole audit has seen them all; else the files are searched.
    """
    by_log: defaultdict[Log, list[Proven]] = defaultdict(list)
    for one in proven if proven is not None else _search(roster, paths):
        by_log[one.fork.author, one.fork.epoch].append(one)
    if not by_log:
        return {}
    files = {
        log: [_read(log, path, roster, signatures) for path in paths.get(log, ())] for log in by_log
    }
    acks = _acks(roster, paths, files)
    return {log: _choose(log, by_log[log], files[log], acks[log], roster) for log in sorted(by_log)}


def limit_to(audit: LogAudit, limits: Mapping[Path, int]) -> bool:
    """Let an audit read only what stands of each file; False if that is nothing."""
    audit.sources = [source for source in audit.sources if limits[source.path]]
    for source in audit.sources:
        source.frames = islice(read_frames(source.path), limits[source.path])
    return bool(audit.sources)


def _values(path: Path) -> Iterator[tuple[bytes, list[Any]]]:
    """Yield (envelope, decoded record) of what can be decoded; whoever audits says what cannot."""
    try:
        for envelope in read_frames(path):
            try:
                value: Any = unpack(split_envelope(envelope)[0])
            except VerificationError:
                continue
            if type(value) is list and len(value) == _FIELDS:
                yield envelope, value
    except VerificationError:
        return


def _search(roster: Roster, paths: Paths) -> Iterator[Proven]:
    for log in sorted(paths):
        for path in paths[log]:
            for _, value in _values(path):
                if value[7] == Kind.FORK_PROOF:
                    try:
                        body = ForkProof.from_value(value[12])
                        fork = check_fork_proof(body, roster)
                    except (VerificationError, TypeError, ValueError):
                        continue  # the audit refuses it, and nobody is blamed on it
                    yield Proven(fork, body, (*log, value[4]))


def _read(log: Log, path: Path, roster: Roster, signatures: Signatures) -> _File:
    """Steps 4 to 10 for one file by itself."""
    found = _File(path)
    audit = LogAudit(
        *log, roster=roster, paths=[path], memo=BodyMemo(), signatures=signatures
    )  # fmt: skip
    while audit.advance():
        value = audit.entry.value
        found.own_seqs[value[6]] = len(found.ids)
        found.ids.append(audit.entry.id)
        found.kinds.append(value[7])
        audit.commit(audit.entry.id, value)  # what it refuses may name a record before
    found.finding = audit.sources[0].finding
    return found


Acks: TypeAlias = dict[int, dict[int, set[tuple[int, RecordId]]]]
"""Roster version → member → (seq, id) that it has acked."""


def _acks(roster: Roster, paths: Paths, files: Mapping[Log, Sequence[_File]]) -> dict[Log, Acks]:
    """Collect what members have acked of the forked logs, rightly signed."""
    found: dict[Log, Acks] = {log: {} for log in files}
    for log in sorted(paths):
        key = roster.key(*log)
        for path in paths[log]:
            for envelope, value in _values(path):
                if (value[2], value[3]) != log:
                    continue
                named = [ack for ack in value[11] if (ack[0], ack[1]) in found]
                named = [ack for ack in named if ack[0] != log[0]]
                if named and _is_signed(envelope, key):
                    for author, epoch, seq, id_ in named:
                        by_member = found[author, epoch].setdefault(value[6], {})
                        by_member.setdefault(log[0], set()).add((seq, id_))
    return found


def _is_signed(envelope: bytes, key: bytes) -> bool:
    record_bytes, signature = split_envelope(envelope)
    return opens(signature + DOMAIN + record_bytes, key)


def _choose(
    log: Log, proven: Sequence[Proven], files: Sequence[_File], acks: Acks, roster: Roster
) -> ForkedLog:
    chains = [Chain(one.ids, _final_seq(log, one, acks, roster)) for one in files]
    twins: defaultdict[int, set[RecordId]] = defaultdict(set)
    for one in proven:
        twins[one.fork.seq].update(one.fork.ids)
    stands = standing(chains, twins, roster.cut(*log), _heard(proven, acks))
    count = len(stands.ids)
    limits = {one.path: _common(one.ids, stands.ids) for one in files}
    void = {
        id_: one.kinds[seq]
        for one in files
        for seq, id_ in enumerate(one.ids)
        if seq >= limits[one.path]
    }
    at = stands.first_twin
    proof = _proof(at, proven, files)
    findings = [one.finding for one in files if one.finding is not None]
    if stands.conflict is not None:
        error = VerificationError(
            "E_FORK",
            f"two branches are final from record {count} on: more than {roster.f} members lie",
            file=str(files[0].path), author=log[0], epoch=log[1], seq=count,
        )  # fmt: skip
        findings.append(Finding(9, error, proof))
    return ForkedLog(
        found=ForkFound(
            author=log[0],
            epoch=log[1],
            seq=at,
            proof=proof,
            recorded_in=tuple(sorted({one.place for one in proven})),
            stands=count,
            is_final=max((c.final_seq for c in chains if c.ids[:count] == list(stands.ids)),
                         default=-1) >= at,
            is_cut=roster.cut(*log) is not None,
            void=dict(sorted(Counter(void.values()).items())),
        ),
        limits=limits,
        findings=tuple(findings),
        missing=tuple(_missing(log, chains, acks, roster)),
    )  # fmt: skip


def _heard(proven: Sequence[Proven], acks: Acks) -> Hearsay:
    prevs: dict[RecordId, RecordId] = {}
    for one in proven:
        for half in (one.body.envelope_a, one.body.envelope_b):
            record: Any = unpack(split_envelope(half)[0])
            prevs[_id(half)] = record[5]
    named: defaultdict[int, set[RecordId]] = defaultdict(set)
    for by_member in acks.values():
        for seq, id_ in chain.from_iterable(by_member.values()):
            named[seq].add(id_)
    return Hearsay(prevs, named)


def _missing(log: Log, chains: Sequence[Chain], acks: Acks, roster: Roster) -> Iterator[str]:
    """Yield what an author may have dropped behind a fork of its own: no omission can be shown then."""
    if roster.cut(*log) is not None:
        return  # the roster says what must be there
    for version, by_member in sorted(acks.items()):
        members = roster.active_at(version)
        unseen = {
            member
            for member, named in by_member.items()
            if member in members and not all(any(c.has(*one) for c in chains) for one in named)
        }
        if len(unseen) + 1 >= quorum(len(members)):  # its author signed it, too
            yield (
                f"records of the forked log {log[0]}/{log[1]} that {len(unseen)} members "
                "acknowledged, and that may be final, are in no bundle"
            )
            return


def _final_seq(log: Log, file: _File, acks: Acks, roster: Roster) -> int:
    """Return how far one branch is final: only acks that name its own records count."""
    matrices: dict[int, dict[Log, dict[int, int]]] = {}
    for version, own in file.own_seqs.items():
        raise_to(matrices.setdefault(version, {}), log, log[0], own)
        for member, named in acks.get(version, {}).items():
            for seq, id_ in named:
                if seq < len(file.ids) and file.ids[seq] == id_:
                    raise_to(matrices[version], log, member, seq)
    return states_of_versions(matrices, roster).get(log, -1)


def _common(ids: Sequence[RecordId], others: Sequence[RecordId]) -> int:
    count = 0
    for one, other in zip(ids, others, strict=False):
        if one != other:
            break
        count += 1
    return count


def _proof(seq: int, proven: Sequence[Proven], files: Sequence[_File]) -> tuple[bytes, bytes]:
    """Return two envelopes for the lowest slot that was signed twice, the smaller id first."""
    shown: set[tuple[RecordId, bytes]] = set()  # one id may come under several good signatures
    for one in proven:
        if one.fork.seq == seq:
            shown |= {(_id(half), half) for half in (one.body.envelope_a, one.body.envelope_b)}
    for file in files:
        if seq < len(file.ids):
            shown.add((file.ids[seq], _envelope(file.path, seq)))
    (first, a), *others = sorted(shown)
    return a, next(envelope for id_, envelope in others if id_ != first)


def _id(envelope: bytes) -> RecordId:
    return record_id(split_envelope(envelope)[0])


def _envelope(path: Path, seq: int) -> bytes:
    return next(one for at, one in enumerate(read_frames(path)) if at == seq)
