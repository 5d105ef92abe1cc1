"""What an audit found, in words and in JSON. Room: ledger. Spec: docs/ledger.md §10."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import VerificationError
from .words import kind_name

VERIFIED = "VERIFIED"
REFUTED = "REFUTED"
EMPTY = "EMPTY"
"""No finding, but no record either: nothing was verified."""
QUICK = "QUICK: only the newest signature of each log was checked"


@dataclass(frozen=True)
class Finding:
    """One refusal: the step of the list, the error, and for a fork both envelopes."""

    step: int
    error: VerificationError
    proof: tuple[bytes, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        error = self.error
        return {
            "step": self.step,
            "code": error.code,
            "message": error.message,
            "file": error.file,
            "author": error.author,
            "epoch": error.epoch,
            "seq": error.seq,
            "expected": error.expected,
            "proof": [envelope.hex() for envelope in self.proof],
        }


@dataclass(frozen=True, kw_only=True)
class LogSummary:
    """One log: how many records were accepted, and up to where they are final."""

    author: int
    epoch: int
    records: int
    final_seq: int  # -1: none
    anchored: int = 0  # records under a checkpoint with a quorum
    timestamped: int = 0
    head_id: bytes
    has_void: bool = False  # what is behind these records is void: of a fork, or cut away

    def state_of(self, seq: int) -> str:
        """Return the highest state of one of its records."""
        if seq >= self.records:
            return "VOID" if self.has_void else "REFUSED by the audit"
        if seq < self.timestamped:
            return "TIMESTAMPED"
        if seq < self.anchored:
            return "ANCHORED"
        return "FINAL" if seq <= self.final_seq else "SIGNED"


@dataclass(frozen=True, kw_only=True)
class ForkFound:
    """A member whose key has signed two records for one slot, proven by records of the bundles."""

    author: int
    epoch: int
    seq: int  # the lowest slot that is known to be signed twice
    proof: tuple[bytes, bytes]  # two envelopes for that slot: they need nothing else
    recorded_in: tuple[tuple[int, int, int], ...]  # FORK_PROOF records: (author, epoch, seq)
    stands: int  # records of the log that stand
    is_final: bool  # whether one branch is final at or behind that slot
    is_cut: bool  # whether the roster says what stays of the log
    void: Mapping[int, int]  # kind → records of branches that do not stand

    @property
    def text(self) -> str:
        """Say who, where, and what stands."""
        log = f"{self.author}/{self.epoch}"
        if self.is_cut:
            why = "as the roster's cut says"
        elif self.is_final:
            why = "one branch is final beyond that slot"
        else:
            why = "neither branch is final there"
        named = ", ".join("/".join(map(str, place)) for place in self.recorded_in)
        return (
            f"member {self.author} has signed two records for slot {log}/{self.seq} "
            f"(recorded in {named}); {self.stands} records of log {log} stand, {why}; "
            f"{sum(self.void.values())} are void"
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "author": self.author,
            "epoch": self.epoch,
            "seq": self.seq,
            "proof": [envelope.hex() for envelope in self.proof],
            "recorded_in": [list(place) for place in self.recorded_in],
            "stands": self.stands,
            "is_final": self.is_final,
            "is_cut": self.is_cut,
            "void": {kind_name(kind): count for kind, count in self.void.items()},
        }


@dataclass(frozen=True, kw_only=True)
class Report:
    """The whole answer. ``records`` and ``final`` count what was accepted."""

    charter_digest: str
    members: int
    tolerated: int  # f: how many liars
    quorum: int  # q
    records: int = 0
    final: int = 0
    anchored: int = 0
    timestamped: int = 0
    counts: Mapping[str, Mapping[str, int]]  # kind → state → records
    not_understood: int = 0  # extension kinds
    logs: tuple[LogSummary, ...] = ()
    missing: tuple[str, ...]
    supplied: tuple[str, ...]
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...]
    forks: tuple[ForkFound, ...] = ()  # misbehaviour that is proven and refutes nothing
    cut_away: int = 0  # records behind a cut, in bundles from before it
    contested: int = 0  # references to a forked log that name nothing that stands
    quick: bool = False

    @property
    def verdict(self) -> str:
        """VERIFIED, REFUTED, or EMPTY where there was no record to verify."""
        if self.findings:
            return REFUTED
        return VERIFIED if self.records else EMPTY

    @property
    def exit_status(self) -> int:
        """0 verified, 1 refuted, 3 verified but evidence is missing, or nothing to verify."""
        if self.findings:
            return 1
        return 3 if self.missing or self.verdict == EMPTY else 0

    def first_line(self) -> str:
        """Return the verdict and everything that qualifies it."""
        kinds = ", ".join(f"{kind} {sum(states.values())}" for kind, states in self.counts.items())
        if self.verdict == EMPTY:
            return (
                f"{EMPTY}: nothing was verified, as there is no record in what was supplied; "
                f"missing: {'; '.join(self.missing) or 'every log'}; "
                f"supplied: {', '.join(self.supplied)}"
            )
        return (
            f"{QUICK + '. ' if self.quick else ''}{self.verdict}: {self.records} records ({kinds or 'none'}), "
            f"{self.final} final, {self.records - self.final} signed only; "
            f"{self.anchored} anchored, {self.timestamped} timestamped; "
            f"refused: {len(self.findings)}; {self._forked()}"
            f"missing: {'; '.join(self.missing) or 'nothing'}; "
            f"supplied: {', '.join(self.supplied)}"
        )

    @property
    def void(self) -> int:
        """How many records are of branches that do not stand."""
        return sum(sum(fork.void.values()) for fork in self.forks)

    def _forked(self) -> str:
        if not self.forks:
            return ""
        logs = ", ".join(f"{fork.author}/{fork.epoch}" for fork in self.forks)
        return f"forked, with proof: {logs}, {self.void} void; "

    def to_text(self) -> str:
        """Return the verdict's line and what is behind it, one fact a line."""
        lines = [self.first_line()]
        for finding in self.findings:
            lines.append(f"  step {finding.step}: {finding.error}")
            lines += [f"    proof: {envelope.hex()}" for envelope in finding.proof]
        for fork in self.forks:
            lines.append(f"  misbehaviour: {fork.text}")
            lines += [f"    proof: {envelope.hex()}" for envelope in fork.proof]
        if self.contested:
            lines.append(
                f"  contested: {self.contested} references to forked logs name no record that stands "
                "and were not judged"
            )
        lines.append(f"  charter {self.charter_digest}")
        lines.append(
            f"  members {self.members}, liars tolerated {self.tolerated}, quorum {self.quorum}"
        )
        for kind, states in self.counts.items():
            lines.append(f"  {kind}: " + ", ".join(f"{n} {state}" for state, n in states.items()))
        if self.not_understood:
            lines.append(f"  not understood (extension kinds): {self.not_understood}")
        for log in self.logs:
            lines.append(
                f"  log {log.author:04d}-{log.epoch:04d}: {log.records} records, "
                f"final up to {log.final_seq}, {log.anchored} anchored, "
                f"{log.timestamped} timestamped, head {log.head_id.hex()}"
            )
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, the same facts."""
        return {
            "verdict": self.verdict,
            "exit_status": self.exit_status,
            "level": QUICK if self.quick else "every signature was checked",
            "charter_digest": self.charter_digest,
            "members": self.members,
            "tolerated": self.tolerated,
            "quorum": self.quorum,
            "records": self.records,
            "final": self.final,
            "anchored": self.anchored,
            "timestamped": self.timestamped,
            "counts": {kind: dict(states) for kind, states in self.counts.items()},
            "not_understood": self.not_understood,
            "logs": [
                {
                    "author": log.author,
                    "epoch": log.epoch,
                    "records": log.records,
                    "final_seq": log.final_seq,
                    "anchored": log.anchored,
                    "timestamped": log.timestamped,
                    "head_id": log.head_id.hex(),
                }
                for log in self.logs
            ],
            "missing": list(self.missing),
            "supplied": list(self.supplied),
            "notes": list(self.notes),
            "findings": [finding.to_json() for finding in self.findings],
            "forks": [fork.to_json() for fork in self.forks],
            "void": self.void,
            "cut_away": self.cut_away,
            "contested": self.contested,
        }
