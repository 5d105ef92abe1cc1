"""How long a node waits for the others' votes before it goes on alone. Spec: docs/wire.md §5.4.

A fold over the ledger: knows no clock. Where computing or the network is slower than the charter
thought, everybody would run out of patience before anybody's proposal could be followed, round after
round; so patience grows while rounds find no quorum, and returns once enough of them do.
"""

from typing import Final, final

from ledger.charter import RoundPolicy
from swarm.protocol.book import RoundBook
from swarm.protocol.candidates import MOMENTS_ROUND

PATIENCE_GRACES: Final = 3
"""Graces that a node waits for somebody's proposal, and again for a quorum, before it goes on alone."""
ROUNDS_REMEMBERED: Final = 8
"""Patience doubles for each of the last so many rounds that no quorum agreed."""
DOWNLOADS_STRETCH_MAX: Final = 4
"""How many times longer than else a payload that is coming in is waited for at most."""
ATTEMPT_DOUBLINGS_MAX: Final = 10
"""With a grace of 2 s the longest attempts last 1.7 hours."""


@final
class Patience:
    """One node's patience in AGREE and SETTLE."""

    def __init__(self, book: RoundBook, policy: RoundPolicy) -> None:
        self._book = book
        self._policy = policy

    def grace_s(self, round_: int) -> float:
        """The charter's grace, stretched while three of it stay within the longest deadline."""
        grace_s = self._policy.grace_s
        longest_s = max(grace_s, self._policy.deadline_max_s / PATIENCE_GRACES)
        return float(min(grace_s * self._stretch(round_), longest_s))

    def download_stretch(self, round_: int) -> int:
        """How many times longer than else a payload that is coming in is waited for."""
        return min(self._stretch(round_), DOWNLOADS_STRETCH_MAX)

    def _stretch(self, round_: int) -> int:
        """Two to the number of the last rounds before this one that no quorum agreed.

        One where members average with neighbours: there no round after round zero is agreed.
        """
        if self._book.is_gossip:
            return 1
        last = range(max(MOMENTS_ROUND + 1, round_ - ROUNDS_REMEMBERED), round_)
        return 1 << sum(self._book.agreed(one) is None for one in last)

    def vote_s(self, round_: int) -> float:
        """How long a proposal, and then a quorum, is waited for in a round."""
        return PATIENCE_GRACES * self.grace_s(round_)

    def quorum_s(self, round_: int, *, is_last: bool) -> float:
        """How long a quorum is waited for: in the last round, after which nobody meets again, longer."""
        return max(self.vote_s(round_), self._policy.deadline_max_s if is_last else 0.0)

    def attempt_s(self, attempt: int) -> float:
        """How long an attempt of round zero lasts that agrees nothing: each twice as long as the one before.

        So one becomes long enough for everybody's votes, however slow the network; and what stays
        split for days fills no log.
        """
        return self.vote_s(MOMENTS_ROUND) * (1 << min(attempt, ATTEMPT_DOUBLINGS_MAX))

    @property
    def goodbye_s(self) -> float:
        """How long the reports of the others are waited for after the last round: nobody doubles that."""
        return PATIENCE_GRACES * self._policy.grace_s
