"""``swarm-audit verify``: the numbered list. Room: ledger. Spec: docs/ledger.md §10.

The steps stand in STEPS in the order of the list; a failure carries the number of its step. The
audit streams: of each record it keeps an index entry of about 55 bytes.
"""

from __future__ import annotations

import gc
import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from .audit_log import BodyMemo, LogAudit
from .audit_refs import AckAudit, AggregationAudit, acks_by_member
from .bodies import EXTENSION_MIN, Kind
from .bundle import CHARTER_NAME, Bundle, read_bundle
from .charter import Charter, CharterError, charter_net, load_charter
from .errors import ConfigError, VerificationError
from .finality import states_of
from .report import Finding, LogSummary, Report
from .roster import Roster

Log: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Step:
    """One entry of the list: where it is done, and its codes."""

    number: int
    name: str
    codes: tuple[str, ...]
    place: str = ""  # empty: reserved in this version


STEPS: Final = (
    Step(1, "charter as given out of band", ("E_NETWORK",), "_step_1_charter"),
    Step(2, "charter canonical", ("E_NONCANONICAL",), "_step_2_3_roster"),
    Step(3, "roster and keys", ("E_ROSTER_DUP", "E_WEAK_KEY", "E_KEY_REUSE"), "_step_2_3_roster"),
    Step(
        4,
        "files whole",
        ("E_BUNDLE", "E_TRUNCATED", "E_SIZE", "E_UNKNOWN_AUTHOR", "E_MISSING_AUTHOR"),
        "_step_4_files, LogAudit._read, AckAudit.settle",
    ),
    Step(
        5,
        "envelope and encoding",
        ("E_ENCODING", "E_ENVELOPE", "E_NONCANONICAL", "E_SIZE"),
        "audit_log.step_5_6_decode",
    ),
    Step(6, "schema", ("E_VERSION", "E_SCHEMA", "E_KIND", "E_ORDER"), "audit_log.step_5_6_decode"),
    Step(
        7,
        "identity",
        ("E_NETWORK", "E_AUTHOR_MISMATCH", "E_ROSTER_UNKNOWN"),
        "audit_log.step_7_identity",
    ),
    Step(8, "signature", ("E_SIGNATURE",), "audit_log.step_8_signature"),
    Step(
        9,
        "chain",
        ("E_GAP", "E_FORK", "E_PREV", "E_OPEN", "E_OPEN_KEY"),
        "audit_log.step_9_chain",
    ),
    Step(
        10,
        "monotone",
        ("E_LAMPORT", "E_TIME_BACKWARD", "E_ROUND_BACKWARD", "E_ROSTER_BACKWARD"),
        "audit_log.step_10_monotone",
    ),
    Step(
        11,
        "acks",
        (
            "E_DEP_UNKNOWN",
            "E_DEP_SELF",
            "E_OMISSION",
            "E_CAUSALITY",
            "E_TIME_CAUSAL",
            "E_ACK_BACKWARD",
        ),
        "audit_refs.AckAudit",
    ),
    Step(12, "aggregations", ("E_AGG_INPUT", "E_AGG_WEIGHT"), "audit_refs.AggregationAudit"),
    Step(13, "evaluations", ()),
    Step(14, "fork proofs and cuts", ()),
    Step(15, "finality", (), "_step_15_finality"),
    Step(16, "checkpoints and cosignatures", ()),
    Step(17, "pins and earlier bundles", ()),
    Step(18, "timestamps", ()),
    Step(19, "reputation", ()),
    Step(20, "payloads and merges", ()),
)


def verify_bundles(
    bundles: Sequence[Path | str],
    charter_bytes: bytes | None = None,
    charter_digest_hex: str | None = None,
) -> Report:
    """Check bundles together and say what was found.

    ``charter_bytes`` and ``charter_digest_hex`` are what the auditor got out of band; without
    the first the bundles' own charter is used. Every file's first failure becomes a finding.
    Raises ConfigError if something cannot be read: that is no verdict.
    """
    if not bundles:
        raise ConfigError("no bundle was given")
    supplied = _supplied(len(bundles), charter_bytes, charter_digest_hex)
    missing = _not_supplied(charter_bytes, charter_digest_hex)
    findings: list[Finding] = []
    opened: list[Bundle] = []
    for path in bundles:
        try:
            opened.append(read_bundle(path))
        except VerificationError as error:
            findings.append(Finding(4, error))
    own_bytes = charter_bytes
    if own_bytes is None and opened:
        own_bytes = _likeliest(opened, charter_digest_hex)
    charter = None
    if own_bytes is not None:
        findings += _step_1_charter(opened, own_bytes, charter_digest_hex)
        # A bundle's own file may be damaged; what the auditor holds must be right.
        if not any(finding.error.file is None for finding in findings):
            charter = _step_2_3_roster(own_bytes, findings)
    digest = charter_net(own_bytes).hex() if own_bytes is not None else ""
    if charter is None:
        return Report(
            charter_digest=digest, members=0, tolerated=0, quorum=0, counts={},
            missing=missing, supplied=supplied, findings=tuple(findings),
        )  # fmt: skip
    roster = Roster.from_charter(charter)
    audit = Audit(charter, roster, _step_4_files(opened, roster, findings))
    with _no_collector():
        audit.run()
    return audit.report(missing, supplied, findings)


def _supplied(count: int, charter: bytes | None, digest: str | None) -> tuple[str, ...]:
    named = [f"{count} bundle{'' if count == 1 else 's'}"]
    named += ["charter"] if charter is not None else []
    named += ["charter digest"] if digest is not None else []
    return tuple(named)


def _not_supplied(charter: bytes | None, digest: str | None) -> tuple[str, ...]:
    if digest is not None:
        return ()
    if charter is not None:
        return ("charter digest (--charter-digest) was not supplied",)
    return ("neither charter nor charter digest was supplied: the bundles vouch for themselves",)


def _likeliest(bundles: Sequence[Bundle], digest_hex: str | None) -> bytes:
    for bundle in bundles:
        if charter_net(bundle.charter_bytes).hex() == digest_hex:
            return bundle.charter_bytes
    return bundles[0].charter_bytes


def _step_1_charter(
    bundles: Sequence[Bundle], charter_bytes: bytes, digest_hex: str | None
) -> list[Finding]:
    """The charter is the one whose digest the auditor got, and every bundle has it. E_NETWORK."""
    findings = []
    digest = charter_net(charter_bytes).hex()
    if digest_hex is not None and digest != digest_hex:
        error = VerificationError("E_NETWORK", f"charter {digest}", expected=digest_hex)
        findings.append(Finding(1, error))
    for bundle in bundles:
        if bundle.charter_bytes != charter_bytes:
            error = VerificationError(
                "E_NETWORK", "another charter", file=str(bundle.path / CHARTER_NAME),
                expected=f"the file with digest {digest}",
            )  # fmt: skip
            findings.append(Finding(1, error))
    return findings


def _step_2_3_roster(charter_bytes: bytes, findings: list[Finding]) -> Charter | None:
    """The charter is as specified. E_NONCANONICAL, E_ROSTER_DUP, E_WEAK_KEY, E_KEY_REUSE."""
    try:
        return load_charter(charter_bytes)
    except CharterError as error:
        step = 2 if error.code == "E_NONCANONICAL" else 3
        findings.append(Finding(step, VerificationError(error.code, str(error))))
        return None


def _step_4_files(
    bundles: Sequence[Bundle], roster: Roster, findings: list[Finding]
) -> dict[Log, list[Path]]:
    """Every log is a member's. E_UNKNOWN_AUTHOR."""
    paths: dict[Log, list[Path]] = {}
    for bundle in bundles:
        for log, path in bundle.logs.items():
            try:
                roster.key(*log)
            except VerificationError as error:
                error.locate(file=str(path))
                findings.append(Finding(4, error))
                continue
            paths.setdefault(log, []).append(path)
    return paths


@contextmanager
def _no_collector() -> Iterator[None]:
    """The audit makes no cycles; looking for them would cost a tenth of its time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class Audit:
    """Steps 4 to 12 and 15 over all logs, merged by lamport number."""

    def __init__(self, charter: Charter, roster: Roster, paths: dict[Log, list[Path]]) -> None:
        self._charter = charter
        self._roster = roster
        memo = BodyMemo()
        self._logs = {
            log: LogAudit(*log, roster=roster, paths=paths[log], memo=memo) for log in sorted(paths)
        }
        self._acks = AckAudit(self._logs, roster)
        self._aggregations = AggregationAudit(self._logs, charter)

    def run(self) -> None:
        """Read every log to its end or first failure."""
        queue = [
            (log.entry.value[9], index, log)
            for index, log in enumerate(self._logs.values())
            if log.advance()
        ]
        heapq.heapify(queue)
        # Accepted at the current lamport number: visible only to records with a higher one.
        level = -1
        acks = self._acks
        same_level: list[tuple[LogAudit, bytes, list[Any]]] = []
        while queue:
            lamport, index, log = queue[0]
            if lamport != level:
                for accepted, id_, value in same_level:
                    accepted.commit(id_, value)
                same_level.clear()
                level = lamport
            if self._step_11_12(log):
                value = log.entry.value
                same_level.append((log, log.entry.id, value))
                acks.latest_ms = max(acks.latest_ms, value[10])
                if log.advance():
                    heapq.heapreplace(queue, (log.entry.value[9], index, log))
                    continue
            heapq.heappop(queue)
        for accepted, id_, value in same_level:
            accepted.commit(id_, value)
        self._acks.settle()
        self._aggregations.settle(over=True)

    def _step_11_12(self, log: LogAudit) -> bool:
        value = log.entry.value
        step = 11
        try:
            if value[11]:
                self._acks.check(log, value)
            step = 12
            if value[7] == 3:  # AGGREGATION
                self._aggregations.check(log, value)
        except VerificationError as error:
            log.refuse(Finding(step, error), value[4])
            return False
        return True

    def report(
        self, missing: tuple[str, ...], supplied: tuple[str, ...], findings: list[Finding]
    ) -> Report:
        """Step 15 and the words."""
        final = self._step_15_finality()
        counts: dict[str, dict[str, int]] = {}
        not_understood = 0
        summaries = []
        for (author, epoch), log in self._logs.items():
            ended = final[author, epoch] + 1
            for state, kinds in (
                ("final", log.kinds[:ended]),
                ("signed", log.kinds[ended : log.accepted]),
            ):
                for kind, count in Counter(kinds).items():
                    name = _kind_name(kind)
                    states = counts.setdefault(name, {"final": 0, "signed": 0})
                    states[state] += count
                    not_understood += count if kind >= EXTENSION_MIN else 0
            summaries.append(
                LogSummary(
                    author=author,
                    epoch=epoch,
                    records=log.accepted,
                    final_seq=ended - 1,
                    head_id=bytes(log.ids[log.accepted * 32 - 32 : log.accepted * 32]),
                )
            )
        found = [s.finding for log in self._logs.values() for s in log.sources if s.finding]
        with_log = {author for author, _ in self._logs}
        absent = [
            f'no record of member {member.index} "{member.name}"'
            for member in self._roster.members
            if member.index not in with_log
        ]
        order = {kind.name: int(kind) for kind in Kind}
        return Report(
            charter_digest=self._charter.digest_hex,
            members=self._roster.n,
            tolerated=self._roster.f,
            quorum=self._roster.q,
            records=sum(log.accepted for log in self._logs.values()),
            final=sum(summary.final_seq + 1 for summary in summaries),
            counts=dict(sorted(counts.items(), key=lambda one: order.get(one[0], 1 << 16))),
            not_understood=not_understood,
            logs=tuple(summaries),
            missing=(*missing, *absent),
            supplied=supplied,
            notes=tuple(self._notes()),
            findings=(*findings, *found),
        )

    def _step_15_finality(self) -> dict[Log, int]:
        """Which records are final: reported, never a failure."""
        return states_of(acks_by_member(self._logs.values()), self._roster)

    def _notes(self) -> Iterator[str]:
        if self._roster.f == 0:
            yield (
                f"with {self._roster.n} members no liar is tolerated: final means that "
                f"{self._roster.q} members hold it, not that they are honest"
            )
        for log in self._logs.values():
            for source in log.sources:
                if source.finding is None and source.count < len(log):
                    yield f"{source.file} has {source.count} of {len(log)} records"
        reserved = [str(step.number) for step in STEPS if not step.place]
        yield f"reserved in this version, so not checked: steps {', '.join(reserved)}"


def _kind_name(kind: int) -> str:
    return Kind(kind).name if kind < EXTENSION_MIN else f"EXTENSION_{kind}"
