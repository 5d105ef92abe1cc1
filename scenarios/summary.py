"""The end of a run, for a terminal: two tables and a few lines.

Room: scenarios. Law: says the same as the report and the JSON, from the same Outcome.
"""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from scenarios.live import bytes_text
from scenarios.outcome import Measured, Outcome


def print_summary(console: Console, outcome: Outcome, *, report: Path) -> None:
    """Print results, ledger, report path and every failure."""
    console.print()
    console.print(_results(outcome))
    console.print()
    console.print(_participation(outcome))
    console.print()
    ledger = outcome.ledger
    facts = [
        ("rounds agreed", f"{outcome.rounds_agreed} of {outcome.rounds}, {_digests(outcome)}"),
        (
            "audit",
            (
                f"{ledger.verdict}: {ledger.records} records, {ledger.final} FINAL, "
                f"{ledger.anchored} ANCHORED"
            ),
        ),
        ("charter", ledger.charter_digest),
        ("report", str(report)),
        ("time", f"{outcome.wall_s:.0f} s"),
    ]
    for name, text in facts:
        _line(console, f"{name:>14}  {text}")
    if outcome.failures:
        count = len(outcome.failures)
        _line(console, f"{'FAILED':>14}  {count} check{'' if count == 1 else 's'}:")
        for failure in outcome.failures:
            _line(console, f"{'':>14}  - {failure}")
    else:
        _line(console, f"{'checks':>14}  all hold")


def _results(outcome: Outcome) -> Table:
    """Alone, swarm and pooled; at most 80 columns wide with names of up to 20."""
    table = _table("AUC [95 % interval]", "alone", "swarm", "pooled")
    for hospital in outcome.hospitals:
        levels = (hospital.alone, hospital.swarm, hospital.pooled)
        table.add_row(hospital.name, *(_cell(level.auc) for level in levels))
    overall = (outcome.overall(name) for name in ("alone", "swarm", "pooled"))
    table.add_row("all, weighted", *map(_cell, overall), style="bold")
    return table


def _participation(outcome: Outcome) -> Table:
    table = _table("contribution", "patients", "weight", "rounds merged", "sent", "received")
    for hospital in outcome.hospitals:
        merged = sum(hospital.index in merge.merged for merge in outcome.merges)
        table.add_row(
            hospital.name,
            str(hospital.samples),
            f"{hospital.weight_micro / 10_000:.1f} %",
            f"{merged} of {outcome.rounds}",
            bytes_text(hospital.bytes_sent),
            bytes_text(hospital.bytes_received),
        )
    return table


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(first, no_wrap=True, max_width=20)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _cell(value: Measured | None) -> str:
    if value is None:
        return "-"
    low, high = max(value.low, 0.0), min(value.high, 1.0)
    return f"{value.value:.3f} [{low:.2f}, {high:.2f}]"


def _digests(outcome: Outcome) -> str:
    digests = {hospital.result_digest for hospital in outcome.hospitals}
    if len(digests) == 1 and (digest := next(iter(digests))):
        return f"one result in all {len(outcome.hospitals)} hospitals: {digest[:16]}…"
    return f"{len(digests)} different results in {len(outcome.hospitals)} hospitals"


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
