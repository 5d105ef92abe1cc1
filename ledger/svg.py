"""Small charts as inline SVG, written by hand: the auditor's install has no plotting library.

Room: ledger. Text is escaped; numbers are formatted, never taken over as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from typing import Final

WIDTH: Final = 250
HEIGHT: Final = 128
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 8, 8, 20
_POINTS_MAX: Final = 240
_DOTS_MAX: Final = 30


@dataclass(frozen=True, slots=True)
class Point:
    """One value at one round, with its interval (equal bounds: none)."""

    x: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Axes:
    """What all panels of one kind share."""

    x_min: int
    x_max: int
    y_min: float
    y_max: float

    @classmethod
    def around(cls, panels: Sequence[Sequence[Point]]) -> Axes:
        """Return axes that hold every point and interval, with round ends."""
        points = [point for panel in panels for point in panel]
        low = min(point.low for point in points)
        high = max(point.high for point in points)
        step = _step(max(high - low, abs(high) / 50, 1e-6))
        y_min, y_max = step * floor(low / step), step * ceil(high / step)
        if y_max - y_min < step:
            y_min, y_max = y_min - step, y_max + step
        xs = [point.x for point in points]
        return cls(min(xs), max(xs), y_min, y_max)

    def x(self, value: int) -> float:
        """Return where a round stands."""
        span = max(self.x_max - self.x_min, 1)
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (value - self.x_min) / span

    def y(self, value: float) -> float:
        """Return where a value stands."""
        return _TOP + (HEIGHT - _TOP - _BOTTOM) * (self.y_max - value) / (self.y_max - self.y_min)


def _step(span: float) -> float:
    """Return 1, 2 or 5 times a power of ten, so that four to ten of them make up the span."""
    power: float = 10.0 ** (floor(log10(span)) - 1)
    return power * next(one for one in (1, 2, 5, 10, 20) if power * one * 10 >= span)


def panel(points: Sequence[Point], axes: Axes, *, title: str) -> str:
    """Return one chart: a line over rounds, its interval as a band."""
    shown = list(points)
    if len(shown) > _POINTS_MAX:
        stride = -(-len(shown) // _POINTS_MAX)
        shown = [*shown[:-1:stride], shown[-1]]
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        *_frame(axes),
    ]
    if any(point.low != point.high for point in shown):
        upper = [f"{axes.x(one.x):.1f},{axes.y(one.high):.1f}" for one in shown]
        lower = [f"{axes.x(one.x):.1f},{axes.y(one.low):.1f}" for one in reversed(shown)]
        if len(shown) > 1:
            parts.append(f'<polygon class="band" points="{" ".join(upper + lower)}"/>')
        else:
            x = axes.x(shown[0].x)
            y = axes.y(shown[0].low), axes.y(shown[0].high)
            parts.append(
                f'<line class="line" x1="{x:.1f}" x2="{x:.1f}" y1="{y[0]:.1f}" y2="{y[1]:.1f}"/>'
            )
    line = " ".join(f"{axes.x(one.x):.1f},{axes.y(one.value):.1f}" for one in shown)
    parts.append(f'<polyline class="line" points="{line}"/>')
    if len(shown) <= _DOTS_MAX:
        parts += [
            f'<circle class="dot" cx="{axes.x(one.x):.1f}" cy="{axes.y(one.value):.1f}" r="2"/>'
            for one in shown
        ]
    parts.append("</svg>")
    return "".join(parts)


def _frame(axes: Axes) -> list[str]:
    parts = []
    for value in (axes.y_min, (axes.y_min + axes.y_max) / 2, axes.y_max):
        y = axes.y(value)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(
            f'<text x="{_LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{_short(value)}</text>'
        )
    ends = [(axes.x_min, "start")]
    if axes.x_max > axes.x_min:
        ends.append((axes.x_max, "end"))
    for number, anchor in ends:
        label = f"round {number}" if anchor == "start" else f"{number}"
        parts.append(
            f'<text x="{axes.x(number):.1f}" y="{HEIGHT - 5}" text-anchor="{anchor}">{label}</text>'
        )
    return parts


def _short(value: float) -> str:
    return f"{value:.3g}"
