"""How long to wait before the next attempt. Knows no clock, no peer; randomness is an argument."""

from collections.abc import Callable
from typing import Final, final

FIRST_S: Final = 0.25
LAST_S: Final = 30.0
_FACTOR: Final = 2.0


@final
class Backoff:
    """Waits that double from first_s to last_s, each shortened by up to a half at random.

    uniform() returns a number in [0, 1). The jitter keeps members that lost the same peer from
    coming back to it in step.
    """

    def __init__(
        self, uniform: Callable[[], float], *, first_s: float = FIRST_S, last_s: float = LAST_S
    ) -> None:
        self._uniform = uniform
        self._first_s = first_s
        self._last_s = last_s
        self.attempts = 0

    def next_s(self) -> float:
        """Count one attempt and return the wait before it, never more than last_s."""
        ceiling_s = min(self._first_s * _FACTOR ** min(self.attempts, 30), self._last_s)
        self.attempts += 1
        return ceiling_s * (0.5 + 0.5 * self._uniform())

    def reset(self) -> None:
        """Start again: the attempt succeeded and lasted."""
        self.attempts = 0
