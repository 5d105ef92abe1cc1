"""What a study of `free-riders` must show, case by case; decides the exit status. Room: scenarios.

Law: set before any figure was seen, and held against seeds that no threshold was chosen on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure of `study.summary` and how high it must be at least, or at most."""

    figure: str
    least: float | None = None
    most: float | None = None

    def missed_by(self, case: Mapping[str, Any]) -> Iterator[str]:
        """Say what came and what was needed; nothing where there is nothing to count."""
        value = case[self.figure]
        if value is None:
            return
        if self.least is not None and value < self.least:
            yield f"{case['case']}: {self.figure} {value:.4f}; need >= {self.least:g}"
        if self.most is not None and value > self.most:
            yield f"{case['case']}: {self.figure} {value:.4f}; need <= {self.most:g}"


_LEARNING: Final = Bar("auc_lost_to_riders", most=0.005)
_AT_ONCE: Final = (Bar("recall_round_3", least=1.0), Bar("precision", least=0.95), _LEARNING)
_IN_TIME: Final = (Bar("recall", least=0.8), _LEARNING)
_HONEST: Final = (Bar("false_alarm_rate", most=0.01),)
BARS: Final[Mapping[str, tuple[Bar, ...]]] = MappingProxyType({
    **dict.fromkeys(("zero", "noise", "stale", "copy", "replay"), _AT_ONCE),
    **dict.fromkeys(("few-records", "random-labels"), _IN_TIME),
    **dict.fromkeys(("rare-population", "tiny", "none"), _HONEST),
    "collusion": (Bar("ranking_auc", least=0.95), Bar("framed_flagged", most=0), _LEARNING),
})  # fmt: skip
"""Cases that are not here are shown, and held against the loss of AUC only."""


def missed(cases: list[dict[str, Any]]) -> list[str]:
    """Every bar that was missed, one line each."""
    return [
        line
        for case in cases
        for bar in BARS.get(case["case"], (_LEARNING,))
        for line in bar.missed_by(case)
    ]
