"""How long each member is waited for: a multiple of its own recent median. Spec: docs/wire.md §5.4.

Every member has its own pace, measured also when it came too late for a round. So one that becomes
slower is waited for longer, within the charter's bounds, and one that hangs costs what it used to need.
"""

from collections import deque
from statistics import median
from typing import Final, final

from ledger.charter import RoundPolicy

ROUNDS_REMEMBERED: Final = 3
"""One odd round changes nothing; two in a row are the new pace."""


@final
class AdaptiveDeadline:
    """Remembers how long members took and proposes how long to wait for them."""

    def __init__(self, policy: RoundPolicy) -> None:
        self._policy = policy
        self._durations_s: dict[int, deque[float]] = {}
        self._stranger_s = policy.deadline_max_s

    def begin_round(self) -> None:
        """From now on, who was never measured is waited for as long as the slowest known one."""
        if self._durations_s:
            usual_s = max(median(one) for one in self._durations_s.values())
            self._stranger_s = self._within(usual_s)

    def observe(self, author: int, duration_s: float) -> None:
        """Remember that ``author``'s contribution came ``duration_s`` after the round began here."""
        durations_s = self._durations_s.setdefault(author, deque(maxlen=ROUNDS_REMEMBERED))
        durations_s.append(min(max(duration_s, 0.0), self._policy.deadline_max_s))

    def wait_s(self, author: int) -> float:
        """How long after the round began ``author`` is waited for; at first, the longest."""
        known = self._durations_s.get(author)
        return self._within(median(known)) if known else self._stranger_s

    def _within(self, usual_s: float) -> float:
        wanted_s = self._policy.deadline_factor * usual_s
        return min(max(wanted_s, self._policy.deadline_min_s), self._policy.deadline_max_s)
