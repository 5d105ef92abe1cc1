"""Doubts and signals on the report's page: words, records, what would clear them, and a timeline. Room: ledger.

Spec: docs/free-riders.md. Values in, HTML out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape

from .signal_report import records_of
from .signals import MemberSignals


def signal_section(signals: Sequence[MemberSignals], name: Callable[[int], str]) -> Iterator[str]:
    """Yield the section; nothing where no sketch or score says anything."""
    if not signals:
        return
    yield "<h2>Doubts</h2>"
    yield (
        '<p class="small">From sketches and scores, recomputed from the records. A doubt moves no '
        "weight and removes nobody; it fades when what it rests on does.</p>"
    )
    doubted = [one for one in signals if one.alerts]
    if not doubted:
        yield "<p>Nobody is doubted.</p>"
    for one in doubted:
        for alert in one.alerts:
            span = f"round {alert.round}"
            if alert.until != alert.round:
                span = f"rounds {alert.round} to {alert.until}"
            yield (
                f"<p><strong>{escape(name(one.member))}</strong>: {escape(alert.text)} ({span}). "
                f"Would clear it: {escape(alert.clears)}. "
                f'<span class="small">Records {records_of(alert)}.</span></p>'
            )
    for one in signals:
        yield from _timeline(one, name)


def _timeline(one: MemberSignals, name: Callable[[int], str]) -> Iterator[str]:
    columns = sorted({measure for _, values in one.timeline for measure in values})
    if not columns:
        return
    yield f"<details><summary>Signals of {escape(name(one.member))}, round by round</summary>"
    yield '<div class="scroll"><table><thead><tr><th>round</th>'
    yield "".join(f"<th>{escape(column)}</th>" for column in columns) + "</tr></thead><tbody>"
    for round_, values in one.timeline:
        cells = (f"{values[column]:,}" if column in values else "" for column in columns)
        yield f"<tr><td>{round_}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    yield "</tbody></table></div></details>"
