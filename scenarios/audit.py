"""The audit of a run: the command that an auditor types, over the bundles of all hospitals.

Room: scenarios. Law: the verdict comes from `swarm-audit` alone, as its own process.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from scenarios.commands import ScenarioError, command, last_line
from scenarios.outcome import LedgerOutcome

STATUSES: Final = (0, 1, 2, 3)


def audit(bundles: Sequence[Path], *, charter: Path, charter_digest: str) -> LedgerOutcome:
    """Run `swarm-audit verify … --json`; any verdict is a result, only no verdict is an error."""
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
        kinds=_kinds(report),
        missing=_lines(report.get("missing")),
        findings=_lines(report.get("findings")),
        bundles=tuple(map(str, bundles)),
        charter=str(charter),
        charter_digest=charter_digest,
    )


def _kinds(report: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    counts = report.get("counts", {})
    return {
        str(kind): (int(count.get("records", 0)), int(count.get("final", 0)))
        for kind, count in counts.items()
    }


def _lines(values: object) -> tuple[str, ...]:
    if not isinstance(values, list):
        return ()
    return tuple(value if isinstance(value, str) else json.dumps(value) for value in values)
