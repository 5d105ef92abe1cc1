"""The end of a study, for a terminal: variants side by side, then every hospital.

Room: scenarios. Law: says the same as the JSON, from the same Study.
"""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from scenarios.intervals import METHOD
from scenarios.live import bytes_text
from scenarios.study import Study, VariantRuns, members_json

COLUMNS = (
    ("alone", "auc_external_alone", "auc_alone"),
    ("swarm", "auc_external_swarm", "auc_swarm"),
    ("pooled", "auc_external_pooled", "auc_pooled"),
)


def is_external(study: Study) -> bool:
    """Whether there were patients that nobody trained on."""
    return study.main.runs[0].external is not None


def print_study(console: Console, study: Study, *, report: Path, hospitals: bool = True) -> None:
    """Print the comparison, the hospitals of the main variant, and every failure."""
    where = "external patients" if is_external(study) else "own validation patients"
    console.print()
    console.print(_variants(study))
    _line(console, f"AUC on {where}; [{METHOD}]")
    if hospitals:
        console.print()
        console.print(_hospitals(study.main))
    console.print()
    for variant in study.variants:
        verdicts = {run.outcome.ledger.verdict for run in variant.runs}
        agreed = min(run.outcome.rounds_agreed for run in variant.runs)
        same = all(
            len({h.result_digest for h in run.outcome.hospitals}) == 1 for run in variant.runs
        )
        one = "one model in all hospitals" if same else "DIFFERENT models"
        rounds = f"{agreed} of {variant.runs[0].outcome.rounds} rounds agreed, {one}"
        if variant.runs[0].outcome.is_gossip:
            rounds = "every hospital its own model, averaged with its neighbours"
        _line(
            console,
            f"{variant.name:>14}  {rounds}, audit {'/'.join(sorted(verdicts))}",
        )
    _line(console, f"{'report':>14}  {report}")
    _line(console, f"{'time':>14}  {study.wall_s:.0f} s")
    if study.failures:
        _line(console, f"{'FAILED':>14}  {len(study.failures)} checks:")
        for failure in study.failures:
            _line(console, f"{'':>14}  - {failure}")
    else:
        _line(console, f"{'checks':>14}  all hold")


def cell(variant: VariantRuns, measure: str, digits: int = 3) -> str:
    """Mean and half width: `.804 ±.002`; a dash where it is undefined."""
    found = variant.interval(measure)
    if found is None:
        return "-"
    if len(found.values) < 2:
        return f"{found.value:.{digits}f}"
    return f"{found.value:.{digits}f} ±{found.high - found.value:.{digits}f}"


def _variants(study: Study) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(f"{len(study.main.runs)} seeds", no_wrap=True, max_width=20)
    for name in ("alone", "swarm", "pooled", "ECE", "Brier", "to 99 %", "sent"):
        table.add_column(name, justify="right", no_wrap=True)
    external = is_external(study)
    for variant in study.variants:
        sent = variant.mean("bytes_sent_total")
        table.add_row(
            variant.name,
            *(cell(variant, one if external else other) for _, one, other in COLUMNS),
            cell(variant, "ece_swarm").partition(" ")[0],
            cell(variant, "brier_swarm").partition(" ")[0],
            cell(variant, "rounds_to_99", 1).partition(" ")[0],
            "-" if sent is None else bytes_text(round(sent)),
        )
    return table


def _hospitals(variant: VariantRuns) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("own patients, AUC", no_wrap=True, max_width=20)
    for name in ("alone", "swarm", "pooled", "patients", "weight"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = members_json(variant)
    swarm = [row["auc_swarm"] for row in rows if row["auc_swarm"] is not None]
    for row in rows:
        values = (row["auc_alone"], row["auc_swarm"], row["auc_pooled"])
        is_worst = row["auc_swarm"] is not None and row["auc_swarm"] == min(swarm)
        table.add_row(
            row["name"] + (" (worst)" if is_worst else ""),
            *("-" if value is None else f"{value:.3f}" for value in values),
            str(row["samples"]),
            f"{row['weight_micro'] / 10_000:.1f} %",
        )
    return table


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
