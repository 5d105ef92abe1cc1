"""Figures of the report as inline SVG: no file, no script, no reference to anything outside.

Room: scenarios. Law: text stays text (searchable, the page's font); colours are from Okabe and
Ito's palette, told apart by colour-blind eyes, and every line differs in its dashes too, so that
the page also reads in black on white.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from scenarios.outcome import HospitalOutcome, Measured, Outcome, Point

INK: Final = "#222222"
MUTED: Final = "#6b6b6b"
GRID: Final = "#e4e4e4"
SWARM: Final = "#0072b2"
ALONE: Final = "#b3470a"  # Okabe and Ito's vermilion, darker: it must also be read as text
POOLED: Final = "#4d4d4d"
WIDTH_IN: Final = 7.1  # an A4 page between 15 mm margins, so print is at the drawn size
COLUMNS: Final = 2
NAME_CHARACTERS_MAX: Final = 22
STYLE: Final[Any] = {  # matplotlib types each key
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
}


@dataclass(frozen=True, kw_only=True)
class Series:
    """How one of alone, swarm, pooled is drawn everywhere."""

    name: str
    colour: str
    marker: str
    dashes: Any


SERIES: Final = (
    Series(name="alone", colour=ALONE, marker="s", dashes=(0, (4, 2))),
    Series(name="swarm", colour=SWARM, marker="o", dashes="solid"),
    Series(name="pooled", colour=POOLED, marker="D", dashes=(0, (1, 1.5))),
)


def comparison_svg(outcome: Outcome) -> str:
    """Alone, swarm and pooled AUC with intervals: one row per hospital and one for all."""
    rows: list[tuple[str, list[Measured | None]]] = [
        (hospital.name, [getattr(hospital, series.name).auc for series in SERIES])
        for hospital in outcome.hospitals
    ]
    rows.append(("All, weighted", [outcome.overall(series.name) for series in SERIES]))
    with mpl.rc_context({**STYLE, "svg.hashsalt": "comparison"}):
        figure = Figure(figsize=(WIDTH_IN, 0.55 + 0.5 * len(rows)))
        axes = figure.add_subplot()
        for at, (_, values) in enumerate(rows):
            for offset, series, value in zip((-0.24, 0.0, 0.24), SERIES, values, strict=True):
                if value is None:
                    continue
                y = at + offset
                axes.plot([value.low, value.high], [y, y], color=series.colour, linewidth=1.2)
                axes.plot(value.value, y, series.marker, color=series.colour, markersize=4.5)
                label = f"{series.name} {value.value:.3f}" if at == 0 else f"{value.value:.3f}"
                axes.annotate(
                    label, (1.0, y), xycoords=("axes fraction", "data"), xytext=(6, 0),
                    textcoords="offset points", va="center", color=series.colour, fontsize=7.5,
                )  # fmt: skip
        axes.axhline(len(rows) - 1.5, color=MUTED, linewidth=0.6)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        names = [shortened(name) for name, _ in rows]
        axes.set_yticks(range(len(rows)), names, fontsize=8.5, color=INK)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        low = min((v.low for _, values in rows for v in values if v), default=0.5)
        axes.set_xlim(max(0.0, low - 0.01), 1.0 + (1.0 - low) * 0.02 + 0.0005)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.grid(axis="x", color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel("AUC on each hospital's own validation patients, 95 % interval")
        figure.subplots_adjust(
            left=0.03 + 0.0115 * max(map(len, names)),
            right=0.86,
            top=0.99,
            bottom=0.42 / figure.get_figheight(),
        )
        return svg_text(figure, "AUC of alone, swarm and pooled for each hospital")


def curves_svg(outcome: Outcome, metric: str) -> str:
    """Curves of "auc" or "loss" over the rounds: a panel per hospital, baselines as levels."""
    hospitals = outcome.hospitals
    rows = -(-len(hospitals) // COLUMNS)
    with mpl.rc_context({**STYLE, "svg.hashsalt": metric}):
        figure = Figure(figsize=(WIDTH_IN, 0.35 + 1.75 * rows))
        low, high = _limits(hospitals, metric)
        for at, hospital in enumerate(hospitals):
            axes = figure.add_subplot(rows, COLUMNS, at + 1)
            _panel(axes, hospital, metric, outcome.rounds)
            axes.set_ylim(low, high)
            axes.yaxis.set_major_formatter(FuncFormatter(_short))
            if at // COLUMNS == rows - 1 or at + COLUMNS >= len(hospitals):
                axes.set_xlabel("round")
            if at % COLUMNS == 0:
                axes.set_ylabel("AUC" if metric == "auc" else "log-loss")
            _end_labels(axes, hospital, metric, (low, high))
        height = figure.get_figheight()
        figure.subplots_adjust(
            left=0.09, right=0.875, top=1 - 0.22 / height, bottom=0.4 / height,
            wspace=0.62, hspace=0.38,
        )  # fmt: skip
        title = "AUC" if metric == "auc" else "Log-loss"
        return svg_text(figure, f"{title} of the agreed model after each round, per hospital")


def _panel(axes: Axes, hospital: HospitalOutcome, metric: str, rounds: int) -> None:
    points: Sequence[Point] = getattr(hospital, metric)
    axes.set_title(shortened(hospital.name), color=INK)
    axes.set_title(f"{hospital.samples} patients", color=MUTED, loc="right", fontsize=7.5)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for series in SERIES:
        level: Measured | None = getattr(getattr(hospital, series.name), metric)
        if series.name != "swarm" and level is not None:
            axes.axhline(level.value, color=series.colour, linestyle=series.dashes, linewidth=1.1)
    at = [point.round for point in points]
    axes.fill_between(
        at, [p.measured.low for p in points], [p.measured.high for p in points],
        color=SWARM, alpha=0.12, linewidth=0,
    )  # fmt: skip
    axes.plot(at, [p.measured.value for p in points], color=SWARM, linewidth=1.6)
    if points:
        end = points[-1].measured.value
        axes.plot(at[-1], end, "o", color=SWARM, markersize=3.5, clip_on=False)
    axes.set_xlim(min(at, default=0), max(rounds, 2))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _end_labels(
    axes: Axes, hospital: HospitalOutcome, metric: str, limits: tuple[float, float]
) -> None:
    """Name each line at its right end, moved apart where they would overlap."""
    low, high = limits
    found = [(getattr(getattr(hospital, s.name), metric), s) for s in SERIES]
    wanted = [(value.value, series) for value, series in found if value is not None]
    wanted.sort(key=lambda pair: pair[0])
    step = (high - low) * 0.115
    heights = spread([min(max(value, low), high) for value, _ in wanted], step, low, high)
    for (value, series), y in zip(wanted, heights, strict=True):
        axes.annotate(
            f"{series.name} {_short(value)}", (1.0, y), xycoords=("axes fraction", "data"),
            xytext=(5, 0), textcoords="offset points", va="center", color=series.colour,
            fontsize=7.5, annotation_clip=False,
        )  # fmt: skip


def shortened(name: str) -> str:
    """Cut a long name so that it fits beside the figure; the table below has all of it."""
    return name if len(name) <= NAME_CHARACTERS_MAX else name[: NAME_CHARACTERS_MAX - 1] + "…"


def spread(heights: Sequence[float], step: float, low: float, high: float) -> list[float]:
    """Move ascending label heights apart to at least ``step``, inside [low, high] if they fit."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + step) if placed else height)
    # Push back what went over the top, then what that pushed under the bottom.
    ceiling = high
    for at in range(len(placed) - 1, -1, -1):
        placed[at] = min(placed[at], ceiling)
        ceiling = placed[at] - step
    floor = low
    for at, height in enumerate(placed):
        placed[at] = max(height, floor)
        floor = placed[at] + step
    return placed


def _limits(hospitals: Sequence[HospitalOutcome], metric: str) -> tuple[float, float]:
    """Same scale in each panel: all curves and levels, not the widest interval of a small site."""
    values = [p.measured.value for h in hospitals for p in getattr(h, metric)]
    for hospital in hospitals:
        for name in ("alone", "pooled"):
            level = getattr(getattr(hospital, name), metric)
            values += [level.value] if level is not None else []
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    pad = max((high - low) * 0.12, 0.01)
    if metric == "auc":
        return max(0.0, low - pad), min(1.0 + pad / 4, high + pad)
    return max(0.0, low - pad), high + pad


def _short(value: float, _: object = None) -> str:
    """0.9812 → ".981": three digits are what the intervals carry."""
    text = f"{value:.3f}"
    return text.removeprefix("0") if text.startswith("0.") else text


def svg_text(figure: Figure, title: str) -> str:
    """Draw to SVG text that can stand inside a page: no prologue, metadata or namespaces."""
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = text.replace("xlink:href", "href")
    # The page sets the family; matplotlib has only used its own to measure.
    text = text.replace("'DejaVu Sans'", "inherit").replace("DejaVu Sans", "inherit")
    text = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
