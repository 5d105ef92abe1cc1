"""How long a node waits for the others' votes before it goes on alone. Spec: docs/wire.md §5.4.

A fold over the ledger: knows no clock. Where computing or the network is slower than the charter
thought, everybody would run out of patience before anybody's proposal could be followed, round after
round; so patience grows while rounds find no quorum, and returns when they do.
"""

from typing import Final, final

from ledger.charter import RoundPolicy
from swarm.protocol.book import RoundBook
from swarm.protocol.candidates import MOMENTS_ROUND

PATIENCE_GRACES: Final = 3
"""Graces that a node waits for somebody's proposal, and again for a quorum, before it goes on alone."""
DOUBLINGS_MAX: Final = 16
"""Times that a grace doubles at most while rounds find no quorum; `deadline_max_s` bounds it earlier."""


@final
class Patience:
    """One node's patience in AGREE and SETTLE."""

    def __init__(self, book: RoundBook, policy: RoundPolicy) -> None:
        self._book = book
        self._policy = policy

    def grace_s(self, round_: int) -> float:
        """The charter's grace, doubled for each round in a row before this one that no quorum agreed.

        Never doubled where members average with neighbours: there no round after round zero is agreed.
        """
        grace_s = self._policy.grace_s
        if self._book.is_gossip:
            return grace_s
        latest = self._book.latest_agreed(before=round_)
        split = max(round_ - 1 - (latest.round if latest else MOMENTS_ROUND), 0)
        longest_s = max(grace_s, self._policy.deadline_max_s / PATIENCE_GRACES)
        return float(min(grace_s * 2.0 ** min(split, DOUBLINGS_MAX), longest_s))

    def vote_s(self, round_: int) -> float:
        """How long a proposal, and then a quorum, is waited for in a round."""
        return PATIENCE_GRACES * self.grace_s(round_)

    @property
    def goodbye_s(self) -> float:
        """How long the reports of the others are waited for after the last round: nobody doubles that."""
        return PATIENCE_GRACES * self._policy.grace_s
