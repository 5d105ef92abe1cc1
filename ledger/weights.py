"""What each contribution weighs. Room: ledger. Spec: docs/ledger.md §7.

Integers only, so that the node that merges and the auditor who checks it get the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

MICRO = 1_000_000


class WeightPolicy(Protocol):
    """What the weights need to know of the charter's [aggregation]."""

    @property
    def weighting(self) -> str:
        """Either "samples" or "uniform"."""

    @property
    def share_cap_micro(self) -> int:
        """Largest share of one member, 1 to 1,000,000 (off)."""


def weights_micro(samples: Sequence[int], policy: WeightPolicy) -> list[int]:
    """Return each input's share of 1,000,000, rounded down, in the order of ``samples``.

    A member's weight depends on the multiset of samples only, never on their order.
    Shares above the cap are cut to it and the rest goes to the others in proportion (water
    filling); where the cap leaves nobody to take the rest, everyone weighs the cap.
    No samples at all means equal shares. Raises ValueError for a negative count.
    """
    if any(count < 0 for count in samples):
        raise ValueError("a sample count is negative")
    if policy.weighting == "uniform" or not any(samples):
        samples = [1] * len(samples)
    cap = policy.share_cap_micro
    share_left, samples_left = MICRO, sum(samples)
    capped_from: int | None = None  # counts from here up weigh the cap
    # Largest first: once one fits under the cap, so do all that are smaller. Equal counts meet
    # the same answer, because c*R > cap*S is the same as c*(R - cap) > cap*(S - c).
    for count in sorted(samples, reverse=True):
        if count * share_left <= cap * samples_left:
            break
        share_left -= cap
        samples_left -= count
        capped_from = count

    def weigh(count: int) -> int:
        if capped_from is not None and count >= capped_from:
            return cap
        return count * share_left // samples_left if count else 0

    return [weigh(count) for count in samples]
