"""What the charter's words for merging are called on the ledger. Room: ledger. Spec: docs/ledger.md §7.

Pure functions of the charter and of how many inputs there are, so that a node that writes an
AGGREGATION and an auditor who reads it mean the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from .bodies import Codec, Rule

if TYPE_CHECKING:
    from .charter import AggregationPolicy

MILLION: Final = 1_000_000
RULE_OF_NAME: Final[Mapping[str, Rule]] = {
    rule.name.lower(): rule for rule in Rule if rule is not Rule.MOMENTS
}
CODEC_OF_NAME: Final[Mapping[str, Codec]] = {
    codec.name.lower(): codec for codec in Codec if codec is not Codec.MOMENTS
}


def rule_of_round(policy: AggregationPolicy, round_: int) -> Rule:
    """How a round's inputs become one; round zero sums up moments."""
    return RULE_OF_NAME[policy.rule] if round_ else Rule.MOMENTS


def codec_of_round(policy: AggregationPolicy, round_: int) -> Codec:
    """How a round's contributions are written."""
    return CODEC_OF_NAME[policy.codec] if round_ else Codec.MOMENTS


def origin_of(bases: Sequence[bytes]) -> bytes:
    """Which of the bases of a round's own inputs the merge starts from: most, of several the smallest."""
    counts = Counter(bases)
    return min(counts, key=lambda base: (-counts[base], base))


def result_codec(rule: int) -> Codec:
    """How a merge's result is written: models are never compressed, since everybody makes his own."""
    return Codec.MOMENTS if rule == Rule.MOMENTS else Codec.FLOAT32


def rule_parameters(policy: AggregationPolicy, inputs: int) -> tuple[int, ...]:
    """What an AGGREGATION of a round above 0 says beside its rule: liars withstood, and 1 if mixed.

    inputs: how many there are. The plain mean withstands nobody and says nothing.
    """
    if policy.rule == "mean":
        return ()
    return liars_among(inputs, policy.liars_share_micro), int(policy.neighbour_mixing)


def liars_among(count: int, share_micro: int) -> int:
    """How many of ``count`` inputs a rule withstands at a share in millionths; below half of them."""
    return max(min(count * share_micro // MILLION, (count - 1) // 2), 0)
