"""Signals in words and as JSON: every doubt with its evidence, and what would clear it. Room: ledger.

Spec: docs/reputation.md §12.6, docs/free-riders.md. Values in, values out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from .signals import EVIDENCE_MAX, Alert, MemberSignals

RECORDS_IN_WORDS_MAX: Final = 8


def as_json(signals: Sequence[MemberSignals]) -> list[dict[str, Any]]:
    """Return everybody's timelines and doubts as values that ``json`` writes; ids in hex."""
    return [
        {
            "member": one.member,
            "doubt_milli": one.doubt_milli,
            "peak_milli": one.peak_milli,
            "doubts": [alert_json(alert) for alert in one.alerts],
            "timeline": [{"round": round_, **values} for round_, values in one.timeline],
        }
        for one in signals
    ]


def alert_json(alert: Alert, *, records_max: int = EVIDENCE_MAX) -> dict[str, Any]:
    """Return one doubt as plain values; of its records so many, and how many more there are."""
    shown = alert.evidence[:records_max]
    return {
        "signal": alert.signal,
        "from_round": alert.round,
        "to_round": alert.until,
        "text": alert.text,
        "would_clear_it": alert.clears,
        "records": [id_.hex() for id_ in shown],
        "more_records": alert.more + len(alert.evidence) - len(shown),
    }


def doubt_lines(signals: Sequence[MemberSignals], names: Mapping[int, str]) -> Iterator[str]:
    """Yield every doubt in words."""
    for one in signals:
        for alert in one.alerts:
            yield sentence(names[one.member], alert)
            yield f"    would clear it: {alert.clears}"
            yield f"    records: {records_of(alert)}"


def records_of(alert: Alert) -> str:
    """Return the first records behind a doubt, and how many more there are."""
    shown = alert.evidence[:RECORDS_IN_WORDS_MAX]
    left = alert.more + len(alert.evidence) - len(shown)
    return ", ".join(id_.hex()[:16] for id_ in shown) + (f" and {left} more" if left else "")


def sentence(name: str, alert: Alert) -> str:
    """Return one doubt in a line."""
    span = f"round {alert.round}"
    if alert.until != alert.round:
        span = f"rounds {alert.round} to {alert.until}"
    return f"{name}: {alert.text} ({span})"


def timeline_lines(one: MemberSignals) -> Iterator[str]:
    """Yield each round's measures of one member; `…_sum` is what has gathered, in thousandths."""
    for round_, values in one.timeline:
        shown = ", ".join(f"{name} {value:,}" for name, value in sorted(values.items()))
        yield f"round {round_}: {shown or 'nothing to measure'}"
