"""All logs under audit at once, merged by lamport number. Room: ledger. Spec: docs/ledger.md §10.

The audit streams: of each record it keeps an index entry of about 55 bytes.
"""

from __future__ import annotations

import gc
import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from .audit_acks import acks_by_version
from .audit_checkpoints import NO_LOG, Anchors, AuditedLog
from .audit_evaluations import EvaluationSteps
from .audit_forks import ForkedLog, Proven, limit_to, prove_forks
from .audit_jobs import LogFiles, confirms, signature_jobs
from .audit_log import BodyMemo, LogAudit, Signatures, Source
from .audit_refs import AckAudit, AggregationAudit
from .audit_roster import CutAudit, check_cut_of
from .audit_tails import Tails, leave_tail
from .bodies import EXTENSION_MIN, Kind
from .charter import Charter
from .errors import VerificationError
from .finality import states_of_versions
from .record import Record
from .report import Finding, LogSummary, Report
from .roster import Roster
from .weighing import Weighing
from .words import kind_name

Log: TypeAlias = tuple[int, int]
_STEP_OF_KIND: Final = {3: 12, 4: 13, 5: 13, 8: 14}  # AGGREGATION, COMMIT, REVEAL, FORK_PROOF


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


def run_audit(
    charter: Charter,
    roster: Roster,
    paths: Mapping[Log, Sequence[Path]],
    *,
    before_cut: AbstractSet[Path] = frozenset(),
    jobs: int = 1,
    quick: bool = False,
) -> Audit:
    """Read every log to its end or first failure; the answer is the same for any ``jobs``.

    before_cut: files of logs that were cut by an update which their own bundle does not hold.
    Where a FORK_PROOF is among the records, a second pass reads what stands of the forked logs.
    """
    signatures = Signatures.NEWEST if quick else Signatures.EACH
    with _no_collector():
        if jobs > 1 and not quick:
            files = [
                LogFiles(key=roster.key(*log), paths=tuple(paths[log])) for log in sorted(paths)
            ]
            with signature_jobs(files, jobs) as finish:
                audit = Audit(charter, roster, paths, Signatures.ELSEWHERE, before_cut=before_cut)
                audit.run()
                if not (audit.findings() or audit.proven) and confirms(finish(), audit.ids()):
                    return audit
        audit = Audit(charter, roster, paths, signatures, before_cut=before_cut)
        audit.run()
        if audit.findings() or audit.proven:
            seen = None if audit.findings() else audit.proven
            forks = prove_forks(roster, paths, signatures, seen)
            if forks:
                audit = Audit(charter, roster, paths, signatures, forks, before_cut)
                audit.run()
    return audit


class Audit:
    """Steps 4 to 15 over all logs, merged by lamport number."""

    def __init__(
        self,
        charter: Charter,
        roster: Roster,
        paths: Mapping[Log, Sequence[Path]],
        signatures: Signatures = Signatures.EACH,
        forks: Mapping[Log, ForkedLog] = MappingProxyType({}),
        before_cut: AbstractSet[Path] = frozenset(),
    ) -> None:
        """forks: logs that are proven to fork; only what stands of them is read here."""
        self._charter = charter
        self._roster = roster
        self._signatures = signatures
        self._forks = forks
        memo = BodyMemo()
        self._logs = {
            log: LogAudit(
                *log, roster=roster, paths=paths[log], memo=memo, signatures=signatures
            )
            for log in sorted(paths)
        }  # fmt: skip
        for key, fork in forks.items():
            if key in self._logs and not limit_to(self._logs[key], fork.limits):
                del self._logs[key]  # nothing of it stands
        whole = {log: paths[log] for log in paths if log not in forks}
        self._tails = Tails(roster, whole, before_cut, signatures)
        for key in whole:
            if not leave_tail(self._logs[key], before_cut):
                del self._logs[key]
        self._acks = AckAudit(self._logs, roster, forks)
        self._weighing = Weighing(charter.reputation, roster)
        self._aggregations = AggregationAudit(
            self._logs, charter, roster, forks, weighing=self._weighing
        )
        self._evaluations = EvaluationSteps(self._logs, roster, is_forked=bool(forks))
        self._cuts = CutAudit(self._logs, roster)
        self._missing: list[Finding] = []

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
                    self._commit(accepted, id_, value)
                same_level.clear()
                level = lamport
            if self._step_11_to_14(log):
                value = log.entry.value
                same_level.append((log, log.entry.id, value))
                acks.latest_ms = max(acks.latest_ms, value[10])
                if log.advance():
                    heapq.heapreplace(queue, (log.entry.value[9], index, log))
                    continue
            heapq.heappop(queue)
        for accepted, id_, value in same_level:
            self._commit(accepted, id_, value)
        self._acks.settle()
        self._aggregations.settle(over=True)
        self._evaluations.settle()
        self._missing = self._cuts.settle()

    def _commit(self, log: LogAudit, id_: bytes, value: list[Any]) -> None:
        log.commit(id_, value)
        if self._weighing.is_on:
            self._weighing.learn(Record.from_value(value), id_)

    @property
    def charter(self) -> Charter:
        """What the federation has agreed on."""
        return self._charter

    @property
    def proven(self) -> list[Proven]:
        """Forks that accepted records prove."""
        return [Proven(*one) for one in (*self._evaluations.proven, *self._tails.proven)]

    def findings(self) -> list[Finding]:
        """Return what was refused, file by file."""
        found = [s.finding for log in self._logs.values() for s in log.sources if s.finding]
        of_forks = [finding for fork in self._forks.values() for finding in fork.findings]
        refused = {str(finding.error.file) for finding in found}
        return [*found, *of_forks, *self._tails.findings(refused), *self._missing]

    def ids(self) -> list[bytes]:
        """Return for each log, in order, the ids of its records one after the other."""
        return [bytes(log.ids[: log.accepted * 32]) for log in self._logs.values()]

    def audited(self) -> dict[Log, AuditedLog]:
        """Return what steps 16 to 18 hold checkpoints against."""
        empty = {
            (cut.author, cut.epoch): replace(NO_LOG, is_cut=True) for cut in self._roster.cuts()
        }
        empty |= {
            key: replace(NO_LOG, forked_at=fork.found.seq) for key, fork in self._forks.items()
        }
        return empty | {
            key: AuditedLog(
                ids=memoryview(log.ids)[: log.accepted * 32],
                counts={
                    source.file: source.count if source.finding is None else source.finding_at
                    for source in log.sources
                },
                is_refused=any(source.finding for source in log.sources),
                is_cut=log.cut is not None,
                forked_at=self._forks[key].found.seq if key in self._forks else None,
            )
            for key, log in self._logs.items()
        }

    def readable(self) -> dict[Log, tuple[Path, ...]]:
        """Return each log's files for whoever reads on, the one that is right for longest first."""
        return {
            key: tuple(
                source.path
                for source in sorted(
                    (one for one in log.sources if self._shows_all(key, log, one)),
                    key=lambda one: (one.finding is not None, -one.finding_at),
                )
            )
            for key, log in self._logs.items()
        }

    def _shows_all(self, key: Log, log: LogAudit, source: Source) -> bool:
        """Whether a file can be read on from: of a forked log, one that has all that stands."""
        return key not in self._forks or source.count >= log.accepted

    def counts(self) -> dict[Log, int]:
        """Return how many records of each log stand."""
        return {key: log.accepted for key, log in self._logs.items()}

    def refuse(self, log: Log, finding: Finding, seq: int) -> None:
        """Refuse a log from ``seq`` on, for what a later step has found."""
        self._logs[log].refuse(finding, seq)

    def time_ms_of(self, author: int, epoch: int, seq: int) -> int | None:
        """Return the clock of a record, None if there is no such record."""
        log = self._logs.get((author, epoch))
        return log.times[seq] if log is not None and seq < len(log) else None

    def _step_11_to_14(self, log: LogAudit) -> bool:
        value = log.entry.value
        step = 11
        try:
            if value[11]:
                self._acks.check(log, value)
            step = _STEP_OF_KIND.get(value[7], 14)
            if step == 12:
                self._aggregations.check(log, value)
            elif step == 13:
                self._evaluations.step_13(log, value)
            elif value[7] == 8:  # FORK_PROOF
                self._evaluations.step_14(value)
            if log.cut is not None:
                step = 14
                check_cut_of(log, value, log.entry.id)
        except VerificationError as error:
            log.refuse(Finding(step, error), value[4])
            return False
        return True

    def report(
        self,
        missing: tuple[str, ...],
        supplied: tuple[str, ...],
        findings: Sequence[Finding],
        anchors: Anchors | None = None,
        notes: tuple[str, ...] = (),
    ) -> Report:
        """Step 15 and the words; ``anchors``: what steps 16 to 18 found; ``notes``: step 20's."""
        anchors = anchors or Anchors()
        final = self._step_15_finality()
        counts: dict[str, dict[str, int]] = {}
        not_understood = 0
        summaries = []
        for (author, epoch), log in self._logs.items():
            ended = final.get((author, epoch), -1) + 1
            for state, kinds in (
                ("final", log.kinds[:ended]),
                ("signed", log.kinds[ended : log.accepted]),
            ):
                for kind, count in Counter(kinds).items():
                    name = kind_name(kind)
                    states = counts.setdefault(name, {"final": 0, "signed": 0})
                    states[state] += count
                    not_understood += count if kind >= EXTENSION_MIN else 0
            summaries.append(
                LogSummary(
                    author=author,
                    epoch=epoch,
                    records=log.accepted,
                    final_seq=ended - 1,
                    anchored=anchors.anchored.get((author, epoch), 0),
                    timestamped=anchors.timestamped.get((author, epoch), 0),
                    head_id=bytes(log.ids[log.accepted * 32 - 32 : log.accepted * 32]),
                    has_void=(author, epoch) in self._forks
                    or (author, epoch) in self._tails.counts,
                )
            )
        with_log = {author for author, _ in (*self._logs, *self._forks)}
        absent = [
            f'no record of member {member.index} "{member.name}"'
            for member in self._roster.active
            if member.index not in with_log
        ]
        of_forks = [text for fork in self._forks.values() for text in fork.missing]
        order = {kind.name: int(kind) for kind in Kind}
        return Report(
            charter_digest=self._charter.digest_hex,
            members=self._roster.n,
            tolerated=self._roster.f,
            quorum=self._roster.q,
            records=sum(log.accepted for log in self._logs.values()),
            final=sum(summary.final_seq + 1 for summary in summaries),
            anchored=sum(anchors.anchored.values()),
            timestamped=sum(anchors.timestamped.values()),
            counts=dict(sorted(counts.items(), key=lambda one: order.get(one[0], 1 << 16))),
            not_understood=not_understood,
            logs=tuple(summaries),
            missing=(*missing, *self._unchecked(), *absent, *of_forks, *anchors.missing),
            supplied=supplied,
            notes=(*self._notes(), *anchors.notes, *notes),
            findings=(*findings, *self.findings(), *anchors.findings),
            forks=tuple(fork.found for fork in self._forks.values()),
            cut_away=sum(self._tails.counts.values()),
            contested=self._acks.contested + self._aggregations.contested,
            quick=self._signatures is Signatures.NEWEST,
        )

    def _unchecked(self) -> Iterator[str]:
        if self._signatures is Signatures.NEWEST:
            skipped = sum(max(log.accepted - 1, 0) for log in self._logs.values())
            yield f"{skipped} signatures were skipped (--quick)"

    def _step_15_finality(self) -> dict[Log, int]:
        """Which records are final: reported, never a failure."""
        return states_of_versions(acks_by_version(self._logs), self._roster)

    def _notes(self) -> Iterator[str]:
        if self._roster.f == 0:
            yield (
                f"with {self._roster.n} members no liar is tolerated: final means that "
                f"{self._roster.q} members hold it, not that they are honest"
            )
        for key, log in self._logs.items():
            for source in log.sources if key not in self._forks else ():
                if source.finding is None and source.count < len(log):
                    yield f"{source.file} has {source.count} of {len(log)} records"
        tails = sum(self._tails.counts.values())
        if tails:
            yield f"{tails} records behind a cut, in bundles from before it, are void"
        void = self._acks.void + self._aggregations.void
        if void:
            yield f"{void} references to what a later cut took away were not judged"
