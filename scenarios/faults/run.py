"""`swarm-scenario faults`: run cases one after the other, show each as it ends, write the JSON.

Room: scenarios.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ledger.errors import ConfigError
from scenarios.commands import ScenarioError
from scenarios.faults.cases import CASES, Case, Options, run_case
from scenarios.faults.namespaces import why_not
from scenarios.faults.verdict import CaseResult


def choose(names: Sequence[str]) -> tuple[str, ...]:
    """Cases by name, all where none is named. Raises ConfigError that lists them."""
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise ConfigError(f'no case "{unknown[0]}"; choose from {", ".join(CASES)}')
    return tuple(names) or tuple(CASES)


def run_cases(
    names: Sequence[str],
    directory: Path,
    options: Options,
    console: Console,
    *,
    keep: bool,
    skip_impossible: bool,
) -> dict[str, Any]:
    """Run cases; return the object that `--json` writes.

    skip_impossible: leave out what needs root where there is none, and say so; else a ConfigError.
    """
    results: list[CaseResult] = []
    skipped: list[dict[str, str]] = []
    broken: list[dict[str, str]] = []
    for name in names:
        missing = needs(CASES[name])
        if missing and skip_impossible:
            skipped.append({"name": name, "why": missing})
            console.print(f"{name}: skipped, {missing}", highlight=False)
            continue
        console.print(f"{name}: {CASES[name].about} …", highlight=False)
        try:
            result = run_case(name, directory / name, options)
        except ScenarioError as error:
            broken.append({"name": name, "why": str(error)})
            console.print(f"{name}: broken: {error}", highlight=False, markup=False)
            continue
        results.append(result)
        console.print(in_words(result), highlight=False, markup=False)
        if not keep and not result.failures:
            shutil.rmtree(directory / name)
    if results:
        console.print(table_of(results))
    return {
        "cases": [result.to_json() for result in results],
        "skipped": skipped,
        "broken": broken,
        "ok": not broken and not any(result.failures for result in results),
    }


def needs(case: Case) -> str | None:
    """What this machine lacks for a case."""
    return why_not() if case.needs_namespaces or case.needs_root else None


def in_words(result: CaseResult) -> str:
    """One line about a case that has ended."""
    verdict = "; ".join(result.failures) or "nothing that was completed is lost"
    back = "" if result.recovered_s is None else f", merged again after {result.recovered_s:.1f} s"
    return f"{result.name}: {verdict}{back}"


def table_of(results: Sequence[CaseResult]) -> Table:
    """All cases side by side."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("case", no_wrap=True)
    for name in ("rounds", "agreed", "lost", "late", "median s", "max s", "back s", "results"):
        table.add_column(name, justify="right")
    table.add_column("audit")
    for one in results:
        back = "-" if one.recovered_s is None else f"{one.recovered_s:.1f}"
        table.add_row(
            one.name, str(one.rounds), str(one.rounds_agreed), str(one.rounds_lost),
            str(one.rounds_over_deadline), f"{one.round_s_median:.1f}", f"{one.round_s_max:.1f}",
            back, str(len(one.digests)), one.verdict,
        )  # fmt: skip
    return table


def write_json(result: dict[str, Any], path: Path) -> None:
    """Write what `run_cases` returned."""
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
