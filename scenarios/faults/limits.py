"""How long a round may take: what the charter grants each of its parts, and nothing else.

Room: scenarios. Spec: docs/wire.md §5.2, §5.4. In words: docs/faults.md.
"""

from dataclasses import dataclass
from typing import Any, Final, Self

from ledger.charter import Charter
from swarm.protocol.patience import PATIENCE_GRACES

LOG_S: Final = 1.0
"""How long after the moment itself a busy machine may write the line that tells of it."""
COMPUTING_S: Final = 10.0
"""For merging, catching up and evaluating, on a machine that has other work."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """One charter's limits, in seconds from the moment that a node enters TRAIN."""

    deadline_s: float
    """The charter's longest deadline: nobody's contribution is waited for longer."""
    grace_s: float
    is_gossip: bool = False
    """Nobody votes: there is no patience to spend."""

    @classmethod
    def of(cls, charter: Charter) -> Self:
        """Read them from a charter."""
        policy = charter.rounds
        return cls(
            deadline_s=policy.deadline_max_s,
            grace_s=policy.grace_s,
            is_gossip=charter.aggregation.is_gossip,
        )

    @property
    def collect_s(self) -> float:
        """When COLLECT is over."""
        return self.deadline_s + LOG_S

    def vote_s(self, unagreed: int = 0) -> float:
        """How long a proposal, and then a quorum, is waited for.

        unagreed: how many of the last rounds no quorum agreed; each doubles it, up to the deadline.
        """
        if self.is_gossip:
            return 0.0
        shortest_s = PATIENCE_GRACES * self.grace_s
        return min(shortest_s * 2.0**unagreed, max(shortest_s, self.deadline_s))

    def round_s(self, unagreed: int = 0, *, is_last: bool = False) -> float:
        """When the whole round is over; in the last one a quorum is waited for as long as for a contribution."""
        propose_s = quorum_s = self.vote_s(unagreed)
        if is_last and not self.is_gossip:
            quorum_s = max(quorum_s, self.deadline_s)
        return self.deadline_s + propose_s + quorum_s + COMPUTING_S

    def to_json(self) -> dict[str, Any]:
        """What each limit is made of."""
        return {
            "deadline_max_s": self.deadline_s,
            "log_s": LOG_S,
            "collect_s": self.collect_s,
            "proposal_s": self.vote_s(),
            "quorum_s": self.vote_s(),
            "computing_s": COMPUTING_S,
            "round_s": self.round_s(),
            "last_round_s": self.round_s(is_last=True),
            "unagreed_round_s": self.round_s(unagreed=64),
        }
