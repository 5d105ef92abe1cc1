"""How long a round waits: a multiple of the recent median, within the charter's bounds. Spec: docs/wire.md §5.4."""

from collections import deque
from statistics import median
from typing import Final

from ledger.charter import RoundPolicy

ROUNDS_REMEMBERED: Final = 5


class AdaptiveDeadline:
    """Remembers how long complete rounds took and proposes how long to wait for the next.

    A hospital that is slow but alive raises the median and so is waited for; the charter's
    `deadline_max_s` bounds what one slow site can cost the others.
    """

    def __init__(self, policy: RoundPolicy) -> None:
        self._policy = policy
        self._durations_s: deque[float] = deque(maxlen=ROUNDS_REMEMBERED)

    def observe(self, duration_s: float) -> None:
        """Remember that collecting one round took ``duration_s``."""
        self._durations_s.append(duration_s)

    def duration_s(self) -> float:
        """How long the next round may collect. The first round may take the longest."""
        if not self._durations_s:
            return self._policy.deadline_max_s
        wanted_s = self._policy.deadline_factor * median(self._durations_s)
        return min(max(wanted_s, self._policy.deadline_min_s), self._policy.deadline_max_s)
