"""report.html: one self-contained page for those who decide and those who check.

Room: scenarios. Law: everything on the page comes from the Outcome; nothing is loaded from outside;
every text is escaped, for names come from other hospitals.
"""

from importlib import resources
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from scenarios.live import bytes_text
from scenarios.outcome import Measured, Merge, Outcome

GRID_ROUNDS: Final = 25  # columns of the participation grid before it starts a new band
KIND_MEANINGS: Final = {
    "OPEN": "joined, by signing the charter",
    "CONTRIBUTION": "committed to a trained update",
    "AGGREGATION": "merged the updates and signed the result",
    "METRICS": "measured the model on its own patients",
    "REJECTION": "refused an update, and why",
    "CLOSE": "left at the end",
}


def render_report(outcome: Outcome, *, seeds_figure: str = "") -> str:
    """Build the page. seeds_figure: SVG of all seeds and variants, where the run is one of several."""
    from scenarios.figures import comparison_svg, curves_svg

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FunctionLoader(_template),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bytes"] = bytes_text
    environment.filters["auc"] = _measured
    environment.filters["digest"] = _groups
    return environment.get_template("report.html").render(
        run=outcome,
        seeds_figure=Markup(seeds_figure),  # noqa: S704 - our own figure, names escaped
        overall={name: outcome.overall(name) for name in ("alone", "swarm", "pooled")},
        meanings=KIND_MEANINGS,
        memory_mb=max((hospital.memory_mb for hospital in outcome.hospitals), default=0.0),
        bands=_bands(outcome.merges),
        left_out=_left_out(outcome),
        bytes_max=max((max(h.bytes_sent, h.bytes_received) for h in outcome.hospitals), default=0),
        comparison=Markup(comparison_svg(outcome)),  # noqa: S704 - our own figure, names escaped
        auc_curves=Markup(curves_svg(outcome, "auc")),  # noqa: S704
        loss_curves=Markup(curves_svg(outcome, "loss")),  # noqa: S704
    )


def write_report(outcome: Outcome, path: Path, *, seeds_figure: str = "") -> Path:
    """Write the page to ``path`` and return it."""
    path.write_text(render_report(outcome, seeds_figure=seeds_figure), encoding="utf-8")
    return path


def _template(name: str) -> str:
    return (resources.files("scenarios") / "templates" / name).read_text(encoding="utf-8")


def _measured(value: Measured | None) -> str:
    return "–" if value is None else f"{value.value:.3f}"


def _groups(digest: str) -> str:
    """Groups of four, as one reads a digest over the phone."""
    return " ".join(digest[at : at + 4] for at in range(0, len(digest), 4))


def _bands(merges: tuple[Merge, ...]) -> list[tuple[Merge, ...]]:
    return [merges[at : at + GRID_ROUNDS] for at in range(0, len(merges), GRID_ROUNDS)]


def _left_out(outcome: Outcome) -> list[dict[str, Any]]:
    """Every absence with its reason, in the order of rounds."""
    names = {hospital.index: hospital.name for hospital in outcome.hospitals}
    return [
        {"round": merge.round, "name": names.get(index, str(index)), "reason": reason}
        for merge in outcome.merges
        for index, reason in sorted(merge.left_out.items())
    ]
