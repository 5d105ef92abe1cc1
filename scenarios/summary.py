"""The end of a run, for a terminal: one table and five lines.

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
    ledger = outcome.ledger
    facts = [
        ("rounds agreed", f"{outcome.rounds_agreed} of {outcome.rounds}, {_digests(outcome)}"),
        ("audit", f"{ledger.verdict}: {ledger.records} records, {ledger.final} final"),
        ("charter", ledger.charter_digest),
        ("report", str(report)),
        ("time", f"{outcome.wall_s:.0f} s"),
    ]
    for name, text in facts:
        _line(console, f"{name:>14}  {text}")
    if outcome.failures:
        _line(console, f"{'FAILED':>14}  {len(outcome.failures)} checks:")
        for failure in outcome.failures:
            _line(console, f"{'':>14}  - {failure}")
    else:
        _line(console, f"{'checks':>14}  all hold")


def _results(outcome: Outcome) -> Table:
    table = Table(box=None, pad_edge=False, title=outcome.title, title_justify="left")
    table.add_column("AUC [95 % interval]", no_wrap=True)
    for name in ("alone", "swarm", "pooled"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("patients", "weight", "sent", "received"):
        table.add_column(name, justify="right", no_wrap=True)
    for hospital in outcome.hospitals:
        table.add_row(
            hospital.name,
            _cell(hospital.alone.auc),
            _cell(hospital.swarm.auc),
            _cell(hospital.pooled.auc),
            str(hospital.samples),
            f"{hospital.weight_micro / 10_000:.1f} %",
            bytes_text(hospital.bytes_sent),
            bytes_text(hospital.bytes_received),
        )
    table.add_section()
    table.add_row(
        "all, weighted",
        *(_cell(outcome.overall(name)) for name in ("alone", "swarm", "pooled")),
        str(sum(hospital.samples for hospital in outcome.hospitals)),
        f"{sum(hospital.weight_micro for hospital in outcome.hospitals) / 10_000:.1f} %",
        style="bold",
    )
    return table


def _cell(value: Measured | None) -> str:
    if value is None:
        return "-"
    return f"{value.value:.3f} [{max(value.low, 0):.3f}, {min(value.high, 1):.3f}]"


def _digests(outcome: Outcome) -> str:
    digests = {hospital.result_digest for hospital in outcome.hospitals}
    if len(digests) == 1 and (digest := next(iter(digests))):
        return f"one result in all {len(outcome.hospitals)} hospitals: {digest[:16]}…"
    return f"{len(digests)} different results in {len(outcome.hospitals)} hospitals"


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
