"""What each contribution weighs. Room: ledger. Spec: docs/ledger.md §7.

Integers only, so that the node that merges and the auditor who checks it get the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
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

    @property
    def staleness_halves(self) -> int:
        """Twice the exponent a of (1 + staleness)^-a, 0 (off) to 4."""


def discount_micro(staleness_rounds: int, halves: int) -> int:
    """Return (1 + staleness)^(-halves / 2) in millionths, rounded down: 1,000,000 when nothing is late.

    floor(sqrt(x)) = isqrt(floor(x)), so whole numbers alone give the exact digits everywhere.
    Polynomial discount of Xie et al. 2019, https://arxiv.org/abs/1903.03934
    """
    return isqrt(MICRO**2 // (1 + staleness_rounds) ** halves)


def weights_micro(
    samples: Sequence[int],
    policy: WeightPolicy,
    *,
    staleness_rounds: Sequence[int] = (),
    mixing_micro: Sequence[int] = (),
    factors_micro: Sequence[int] = (),
) -> list[int]:
    """Return each input's share of 1,000,000, rounded down, in the order of ``samples``.

    staleness_rounds: how many rounds late each input is, in the same order; empty: nothing is late.
    mixing_micro: what the graph of gossip averaging gives each input, in the same order; empty: all
    alike. factors_micro: the same of reputation (docs/reputation.md §13).
    A member's weight depends on the multiset of samples and lateness, never on their order.
    Shares above the cap are cut to it and the rest goes to the others in proportion (water
    filling); where the cap leaves nobody to take the rest, everyone weighs the cap.
    No samples at all means equal shares. Raises ValueError for a negative count.
    """
    if any(count < 0 for count in samples):
        raise ValueError("a sample count is negative")
    if policy.weighting == "uniform" or not any(samples):
        samples = [1] * len(samples)
    if mixing_micro:
        samples = [count * mix for count, mix in zip(samples, mixing_micro, strict=True)]
    if factors_micro:
        samples = [count * factor for count, factor in zip(samples, factors_micro, strict=True)]
    if any(staleness_rounds):
        samples = [
            count * discount_micro(late, policy.staleness_halves)
            for count, late in zip(samples, staleness_rounds, strict=True)
        ]
        # On-time inputs are scaled by 1,000,000 as well, which changes no share.
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
