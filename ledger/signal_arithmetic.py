"""The arithmetic of signals: logarithms, spreads, cumulative sums. Room: ledger. Spec: docs/free-riders.md §3.

Integers only, so a node and an auditor get the same ones. *Milli* is 10^-3, bits are of base 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Final

MILLI: Final = 1_000
MICRO: Final = 1_000_000
LOG_STEPS: Final = 12
"""Binary digits behind the point of a logarithm: 0.00025 bits, below what millibits show."""
NORMAL_MAD_MILLI: Final = 1_483
"""A standard deviation in median absolute deviations, for normal values."""
FEW_OTHERS: Final = 6


def log2_milli(above: int, below: int) -> int:
    """Return ⌊1000 · t⌋, t the largest multiple of 2^-12 up to log2(above / below). Both above 0.

    above / below is first rounded down to 64 significant bits. Raises ValueError.
    """
    if above <= 0 or below <= 0:
        raise ValueError("logarithms need numbers above 0")
    shift = 64 - (above.bit_length() - below.bit_length())
    ratio = (above << shift) // below if shift >= 0 else above // (below << -shift)
    places = ratio.bit_length() - 1
    whole = places - shift
    mantissa = ratio << 64 >> places  # in [1, 2), 64 bits behind the point
    fraction = 0
    for _ in range(LOG_STEPS):
        mantissa = mantissa * mantissa >> 64
        fraction <<= 1
        if mantissa >= 1 << 65:
            mantissa >>= 1
            fraction |= 1
    return ((whole << LOG_STEPS) + fraction) * MILLI >> LOG_STEPS


def lower_median(values: Sequence[int]) -> int:
    """Return the middle one, of two the lower. At least one value. Raises ValueError."""
    if not values:
        raise ValueError("a median needs values")
    return sorted(values)[(len(values) - 1) // 2]


def deviation_milli(value: int, others: Sequence[int], *, floor: int, most_milli: int) -> int:
    """Return how many spreads ``value`` lies above the others' median, in milli, within ± most_milli.

    The spread is 1.483 median absolute deviations (a standard deviation of normal values), and more
    for few others, of whom several may be alike by chance: (m + 6) / m times that for m of them. It is at
    least ``floor``: what is less than a floor apart is not remarkable, however alike the others are.
    """
    middle, count = lower_median(others), len(others)
    spread = lower_median([abs(one - middle) for one in others]) * NORMAL_MAD_MILLI // MILLI
    spread = spread * (count + FEW_OTHERS) // count
    found = (value - middle) * MILLI // max(spread, floor)
    return max(-most_milli, min(most_milli, found))


def accumulate_milli(before: int, found: int, *, allowed: int, kept_of_8: int) -> int:
    """Return max(0, ⌊before · kept / 8⌋ + found − allowed): a cumulative sum that forgets.

    Page 1954, https://doi.org/10.2307/2333009; what is constant settles at 8 · (found − allowed) / (8 − kept).
    """
    return max(0, before * kept_of_8 // 8 + found - allowed)


def cosine_micro(dot: int, square_a: int, square_b: int) -> int:
    """Return dot / √(square_a · square_b) in millionths, towards zero, within ± 1; 0 for a zero vector."""
    size = isqrt(square_a * square_b)
    if not size:
        return 0
    cosine = min(abs(dot) * MICRO // size, MICRO)
    return cosine if dot >= 0 else -cosine


def nearness_millibits(cosine: int) -> int:
    """Return −log2(1 − cosine), at most 12 bits: each bit halves the distance (squared) of directions."""
    return log2_milli(MICRO, max(MICRO - cosine, MICRO >> 12))


def odds_millibits(cosine: int) -> int:
    """Return log2(c² / (1 − c²)) of a cosine in millionths; below 1/32, also where negative, as at 1/32.

    For updates that are a common direction plus noise of the sites' finite records, c² / (1 − c²) grows
    in proportion to the records.
    """
    bounded = max(MICRO >> 5, min(cosine, MICRO - (MICRO >> 12)))
    return log2_milli(bounded * bounded, MICRO * MICRO - bounded * bounded)
