"""What a member of little repute still receives: everything, but later. Spec: docs/reputation.md §14.

Below the charter's floor a member is served neither updates nor results of the newest rounds, also not
when all rounds are over. Older ones it gets as ever, and what it contributes from them counts as ever: so
it can earn its way back, and who takes without giving takes an old model. Its own node knows, and
works with what it can get, instead of asking in vain. That concerns f members at most,
the lowest first, so that the others always are a quorum. Nobody is shut out: removal is for humans.
"""

from collections.abc import Mapping
from typing import Final, final

from swarm.protocol.book import RoundBook

BEHIND_ROUNDS: Final = 3
"""So many newest agreed rounds are withheld."""
MICRO: Final = 1_000_000


@final
class Access:
    """One node's knowledge of who is below the floor."""

    def __init__(self, book: RoundBook, *, floor: float, own: int) -> None:
        """floor: the charter's, 0 to 1; 0 withholds nothing."""
        self._book = book
        self._floor_micro = round(floor * MICRO)
        self._own = own
        self.below: frozenset[int] = frozenset()

    def update(self, values_micro: Mapping[int, int]) -> None:
        """Take over everybody's newest reputation."""
        lowest = sorted(
            (value, member)
            for member, value in values_micro.items()
            if value < self._floor_micro and self._book.roster.is_active(member)
        )
        chosen = {member for _, member in lowest[: self._book.roster.f]}
        self._book.lag(BEHIND_ROUNDS if self._own in chosen else 0)
        self.below = frozenset(chosen - {self._own})

    def withholds(self, peer: int, digest: bytes) -> bool:
        """Whether ``peer`` has to wait for this payload."""
        if peer not in self.below:
            return False
        named = self._book.newest_round_of(digest)
        latest = self._book.latest_agreed()
        return named is not None and latest is not None and named > latest.round - BEHIND_ROUNDS
