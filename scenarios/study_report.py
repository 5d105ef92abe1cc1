"""A study on disk: report.html of the first seed with the figure of all seeds, and comparison.svg.

Room: scenarios. Law: as report.py: self-contained, and every number is the Study's.
"""

from dataclasses import replace
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.figure import Figure

from scenarios.figures import GRID, INK, SERIES, STYLE, WIDTH_IN, shortened, svg_text
from scenarios.report import write_report
from scenarios.study import Study
from scenarios.study_summary import COLUMNS, is_external

OFFSETS: Final = (-0.22, 0.0, 0.22)
ROW_IN: Final = 0.55


def write_study(study: Study, directory: Path) -> Path:
    """Write `report.html` and `comparison.svg` into ``directory``; return the report's path."""
    figure = study_svg(study)
    namespace = 'xmlns="http://www.w3.org/2000/svg"'
    alone = figure.replace("<svg ", f'<svg {namespace} font-family="sans-serif" ', 1)
    (directory / "comparison.svg").write_text(alone, encoding="utf-8")
    outcome = replace(study.main.runs[0].outcome, failures=study.failures, wall_s=study.wall_s)
    return write_report(outcome, directory / "report.html", seeds_figure=figure)


def study_svg(study: Study) -> str:
    """Alone, swarm and pooled with intervals: one row per variant, a small dot per seed."""
    external = is_external(study)
    with mpl.rc_context({**STYLE, "svg.hashsalt": "study"}):
        figure = Figure(figsize=(WIDTH_IN, 0.6 + ROW_IN * len(study.variants)))
        axes = figure.add_subplot()
        for at, variant in enumerate(study.variants):
            for offset, series, (_, outside, inside) in zip(OFFSETS, SERIES, COLUMNS, strict=True):
                found = variant.interval(outside if external else inside)
                if found is None:
                    continue
                y, colour = at + offset, series.colour
                axes.plot([found.low, found.high], [y, y], color=colour, linewidth=1.2)
                seeds = len(found.values)
                axes.plot(found.values, [y] * seeds, ".", color=colour, markersize=3, alpha=0.5)
                axes.plot(found.value, y, series.marker, color=colour, markersize=4.5)
                label = f"{series.name} {found.value:.3f}" if at == 0 else f"{found.value:.3f}"
                axes.annotate(
                    label, (1.0, y), xycoords=("axes fraction", "data"), xytext=(6, 0),
                    textcoords="offset points", va="center", color=colour, fontsize=7.5,
                )  # fmt: skip
        count = len(study.variants)
        names = [shortened(variant.name) for variant in study.variants]
        axes.set_ylim(count - 0.5, -0.5)
        axes.set_yticks(range(count), names, fontsize=8.5, color=INK)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        where = "patients of other hospitals" if external else "own validation patients"
        seeds = len(study.main.runs)
        axes.set_xlabel(f"AUC on {where}: mean of {seeds} seeds, 95 % interval, one dot a seed")
        figure.subplots_adjust(
            left=0.03 + 0.0115 * max(map(len, names)),
            right=0.86,
            top=0.98,
            bottom=0.45 / figure.get_figheight(),
        )
        return svg_text(figure, "AUC of alone, swarm and pooled for each variant over the seeds")
