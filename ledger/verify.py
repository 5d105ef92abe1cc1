"""``swarm-audit verify``: the numbered list. Room: ledger. Spec: docs/ledger.md §10.

The steps stand in STEPS in the order of the list; a failure carries the number of its step. Here
are those that look at the bundles as a whole; the logs are :mod:`ledger.audit`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from .audit import Audit, run_audit
from .audit_checkpoints import rosters_of, steps_16_to_18
from .audit_reputation import step_19_reputation
from .audit_roster import step_2_3_updates
from .audit_steps import STEPS, Step
from .audit_tails import files_before_cuts
from .bundle import CHARTER_NAME, Bundle, read_bundle
from .charter import Charter, CharterError, charter_net, load_charter
from .errors import ConfigError, VerificationError
from .recompute import Recomputed, load_recomputation, recompute
from .report import Finding, Report
from .roster import Roster

__all__ = [
    "STEPS",
    "Audited",
    "Brought",
    "Opened",
    "Step",
    "audit_bundles",
    "open_bundles",
    "verify_bundles",
]

Log: TypeAlias = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Brought:
    """What the auditor brings besides bundles and charter; each makes a step possible."""

    pins: Sequence[Path] = ()  # step 17: checkpoints kept from before
    tokens: Sequence[Path] = ()  # step 18: RFC 3161 time stamps
    reputation: Mapping[int, int] | None = None  # step 19: member → what is claimed of it
    payloads: Path | None = None  # step 20: a folder of payload files (the learning extra)

    def names(self) -> list[str]:
        """Return what is there, in words."""
        named = [*_named(len(self.pins), "pin"), *_named(len(self.tokens), "token")]
        named += ["payloads"] if self.payloads is not None else []
        return named + (["reputation"] if self.reputation is not None else [])


NOTHING: Final = Brought()


@dataclass(frozen=True, kw_only=True)
class Opened:
    """Bundles side by side after steps 1 to 4; ``roster`` is None if nothing stands above it."""

    charter_digest: str
    charter: Charter | None
    roster: Roster | None
    bundles: Sequence[Bundle]
    paths: Mapping[Log, Sequence[Path]]
    before_cut: frozenset[Path]
    """Files of logs that were cut by an update which their own bundle does not hold."""
    missing: tuple[str, ...]
    supplied: tuple[str, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class Audited:
    """What was found and, where charter and roster could be read, the logs it was found in."""

    opened: Opened
    report: Report
    audit: Audit | None = None


def verify_bundles(
    bundles: Sequence[Path | str],
    charter_bytes: bytes | None = None,
    charter_digest_hex: str | None = None,
    *,
    jobs: int = 1,
    quick: bool = False,
    brought: Brought = NOTHING,
) -> Report:
    """Check bundles together and say what was found.

    ``charter_bytes`` and ``charter_digest_hex`` are what the auditor got out of band; without
    the first the bundles' own charter is used. Every file's first failure becomes a finding.
    ``jobs``: processes; the answer is the same for any number. ``quick``: of the signatures only
    the newest of each log is checked, and the report says so.
    ``brought``: whatever else the auditor has.
    Raises ConfigError if something cannot be read: that is no verdict.
    """
    return audit_bundles(
        bundles, charter_bytes, charter_digest_hex, jobs=jobs, quick=quick, brought=brought
    ).report


def audit_bundles(
    bundles: Sequence[Path | str],
    charter_bytes: bytes | None = None,
    charter_digest_hex: str | None = None,
    *,
    jobs: int = 1,
    quick: bool = False,
    brought: Brought = NOTHING,
) -> Audited:
    """Do the same for those who go on to read the logs."""
    recomputation = None if brought.payloads is None else load_recomputation()
    opened = open_bundles(bundles, charter_bytes, charter_digest_hex)
    supplied = (*opened.supplied, *brought.names())
    if opened.charter is None or opened.roster is None:
        report = Report(
            charter_digest=opened.charter_digest, members=0, tolerated=0, quorum=0, counts={},
            quick=quick, missing=opened.missing, supplied=supplied,
            findings=opened.findings,
        )  # fmt: skip
        return Audited(opened=opened, report=report)
    audit = run_audit(
        opened.charter, opened.roster, opened.paths,
        before_cut=opened.before_cut, jobs=jobs, quick=quick,
    )  # fmt: skip
    recomputed = Recomputed()
    if brought.payloads is not None and recomputation is not None:
        recomputed = recompute(audit, brought.payloads, recomputation)
    rosters = rosters_of(opened.bundles, opened.charter, opened.roster)
    anchors = steps_16_to_18(
        opened.bundles, rosters, audit.audited(), pins=brought.pins, tokens=brought.tokens
    )
    findings = [*opened.findings, *recomputed.findings]
    if brought.reputation is not None:
        findings += step_19_reputation(audit, opened.roster, brought.reputation)
    notes = (*(recomputed.notes if recomputation is not None else ()), *_not_brought(brought))
    report = audit.report(
        (*opened.missing, *recomputed.missing), supplied, findings, anchors, notes
    )
    return Audited(opened=opened, report=report, audit=audit)


def _not_brought(brought: Brought) -> Iterator[str]:
    if brought.reputation is None:
        yield "no reputation was claimed (--reputation), so none was compared (step 19)"
    if brought.payloads is None:
        yield "payloads (--recompute) were not supplied, so no merge was recomputed (step 20)"


def open_bundles(
    bundles: Sequence[Path | str],
    charter_bytes: bytes | None = None,
    charter_digest_hex: str | None = None,
) -> Opened:
    """Steps 1 to 4: charter, roster, and which file is whose log.

    Raises ConfigError if something cannot be read.
    """
    if not bundles:
        raise ConfigError("no bundle was given")
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
    charter: Charter | None = None
    roster: Roster | None = None
    if own_bytes is not None:
        findings += _step_1_charter(opened, own_bytes, charter_digest_hex)
        # A bundle's own file may be damaged; what the auditor holds must be right.
        if not any(finding.error.file is None for finding in findings):
            charter = _step_2_3_roster(own_bytes, findings)
    paths: dict[Log, list[Path]] = {}
    if charter is not None:
        roster, refused = step_2_3_updates(opened, charter)
        findings += refused
        if refused:
            roster = None  # nothing can be judged by a roster that is not certain
        else:
            paths = _step_4_files(opened, roster, findings)
    return Opened(
        charter_digest=charter_net(own_bytes).hex() if own_bytes is not None else "",
        charter=charter,
        roster=roster,
        bundles=opened,
        paths=paths,
        before_cut=files_before_cuts(opened, roster) if roster is not None else frozenset(),
        missing=_not_supplied(charter_bytes, charter_digest_hex),
        supplied=_supplied(len(bundles), charter_bytes, charter_digest_hex),
        findings=tuple(findings),
    )


def _supplied(count: int, charter: bytes | None, digest: str | None) -> tuple[str, ...]:
    named = _named(count, "bundle")
    named += ["charter"] if charter is not None else []
    named += ["charter digest"] if digest is not None else []
    return tuple(named)


def _named(count: int, what: str) -> list[str]:
    return [f"{count} {what}{'' if count == 1 else 's'}"] if count else []


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
        error = VerificationError(
            "E_NETWORK",
            f"the charter's digest is {digest}, not the one that you gave: one of the two is not "
            "your federation's, ask its members for both",
            expected=digest_hex,
        )
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
