"""What lies behind a cut in bundles from before it: checked, counted, void. Room: ledger.

Spec: docs/ledger.md §12.4. Whoever exported a bundle before an update could not know what that would
cut away, so nobody is refused for it; whoever holds the update and such records is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TypeAlias, final

from .audit_log import BodyMemo, LogAudit, Signatures
from .bodies import ForkProof, Kind
from .bundle import Bundle
from .errors import VerificationError
from .fork import Fork, check_fork_proof
from .frames import read_frames
from .report import Finding
from .roster import Roster

Log: TypeAlias = tuple[int, int]


def files_before_cuts(bundles: Iterable[Bundle], roster: Roster) -> frozenset[Path]:
    """Return the files of logs that were cut by an update which their own bundle does not hold."""
    return frozenset(
        bundle.logs[cut.author, cut.epoch]
        for bundle in bundles
        for cut in roster.cuts()
        if (cut.author, cut.epoch) in bundle.logs
        and max(bundle.rosters, default=0) < (roster.term(cut.author, cut.epoch).until or 0)
    )


def leave_tail(log: LogAudit, before_cut: AbstractSet[Path]) -> bool:
    """Let an audit read only what a cut keeps of files from before it; False if that is nothing."""
    cut = log.cut
    if cut is None:
        return True
    for source in log.sources:
        if source.path in before_cut:
            source.frames = islice(read_frames(source.path), cut.kept)
    if cut.kept == 0:
        log.sources = [source for source in log.sources if source.path not in before_cut]
    return bool(log.sources)


@final
class Tails:
    """The records behind cuts, in files from before them: steps 4 to 10, and nothing else."""

    def __init__(
        self,
        roster: Roster,
        paths: Mapping[Log, Sequence[Path]],
        before_cut: AbstractSet[Path],
        signatures: Signatures,
    ) -> None:
        # The processes that look at signatures elsewhere answer for what stands.
        each = Signatures.EACH if signatures is Signatures.ELSEWHERE else signatures
        self.counts: dict[Log, int] = {}
        self.proven: list[tuple[Fork, ForkProof, tuple[int, int, int]]] = []
        self._found: dict[str, Finding] = {}
        self._roster = roster
        for log in sorted(paths):
            files = [path for path in paths[log] if path in before_cut]
            if files:
                self._read(
                    LogAudit(*log, roster=roster, paths=files, memo=BodyMemo(), signatures=each)
                )

    def _read(self, audit: LogAudit) -> None:
        kept = audit.cut.kept if audit.cut is not None else 0
        while audit.advance():
            value = audit.entry.value
            audit.commit(audit.entry.id, value)
            if value[4] < kept:
                continue
            if value[7] == Kind.FORK_PROOF:
                body = ForkProof.from_value(value[12])
                with suppress(VerificationError):  # it proves nothing, and counts for nothing
                    fork = check_fork_proof(body, self._roster)
                    self.proven.append((fork, body, (value[2], value[3], value[4])))
        if audit.accepted > kept:
            self.counts[audit.author, audit.epoch] = audit.accepted - kept
        for source in audit.sources:
            if source.finding is not None and source.finding_at >= kept:
                self._found[source.file] = source.finding

    def findings(self, refused: AbstractSet[str]) -> list[Finding]:
        """Return what was wrong behind cuts, but for files that were ``refused`` before."""
        return [finding for file, finding in self._found.items() if file not in refused]
