"""The audit of a run: the command that an auditor types, over the bundles of all hospitals.

Room: scenarios. Law: the verdict comes from `swarm-audit` alone, as its own process.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from scenarios.commands import ScenarioError, command, last_line
from scenarios.outcome import LedgerOutcome

STATUSES: Final = (0, 1, 3)  # 2: it could not check, and its last line says why
FINAL: Final = "final"
PLACES: Final = ("file", "author", "seq", "expected")


def audit(bundles: Sequence[Path], *, charter: Path, charter_digest: str) -> LedgerOutcome:
    """Run `swarm-audit verify … --json`; any verdict is a result, none is an error."""
    status, printed = command(
        "swarm-audit", "verify", *bundles, "--charter", charter,
        "--charter-digest", charter_digest, "--json", accept=STATUSES,
    )  # fmt: skip
    try:
        report = json.loads(printed)
    except ValueError:
        raise ScenarioError(
            f"swarm-audit verify printed no JSON (exit status {status}): {last_line(printed)}"
        ) from None
    return ledger_outcome(
        report, status, bundles=bundles, charter=charter, charter_digest=charter_digest
    )


def ledger_outcome(
    report: Mapping[str, Any],
    exit_status: int,
    *,
    bundles: Sequence[Path],
    charter: Path,
    charter_digest: str,
) -> LedgerOutcome:
    """Read the auditor's JSON."""
    return LedgerOutcome(
        verdict=str(report.get("verdict", "")),
        exit_status=exit_status,
        records=int(report.get("records", 0)),
        final=int(report.get("final", 0)),
        anchored=int(report.get("anchored", 0)),
        kinds=_kinds(report),
        missing=tuple(map(str, report.get("missing", ()))),
        findings=tuple(map(_finding, report.get("findings", ()))),
        bundles=tuple(map(str, bundles)),
        charter=str(charter),
        charter_digest=charter_digest,
    )


def _kinds(report: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    return {
        str(kind): (
            sum(states.values()),
            sum(count for state, count in states.items() if state.lower() == FINAL),
        )
        for kind, states in report.get("counts", {}).items()
    }


def _finding(finding: Mapping[str, Any]) -> str:
    """One refusal in one line; the whole proof is in the auditor's own output."""
    places = [f"{key} {finding[key]}" for key in PLACES if finding.get(key) is not None]
    return f"step {finding.get('step')}: {finding.get('code')}: {finding.get('message')}" + (
        f" ({', '.join(places)})" if places else ""
    )
