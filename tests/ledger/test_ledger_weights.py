"""Weights are whole numbers that node and auditor compute alike."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.weights import MICRO, discount_micro, weights_micro


@dataclass(frozen=True)
class Policy:
    weighting: str = "samples"
    share_cap_micro: int = MICRO
    staleness_halves: int = 1


counts = st.lists(st.integers(0, 2**53 - 1) | st.integers(0, 20), max_size=12)
policies = st.builds(Policy, st.sampled_from(["samples", "uniform"]), st.integers(1, MICRO))


@given(counts, policies, st.randoms())
def test_weights_do_not_depend_on_the_order(
    samples: list[int], policy: Policy, random: object
) -> None:
    order = list(range(len(samples)))
    random.shuffle(order)  # type: ignore[attr-defined]
    weights = weights_micro(samples, policy)
    assert weights_micro([samples[i] for i in order], policy) == [weights[i] for i in order]


@given(counts, policies)
def test_weights_are_shares_under_the_cap(samples: list[int], policy: Policy) -> None:
    weights = weights_micro(samples, policy)
    assert len(weights) == len(samples)
    assert sum(weights) <= MICRO
    assert all(0 <= weight <= policy.share_cap_micro for weight in weights)
    for one, weight in zip(samples, weights, strict=True):
        for other, other_weight in zip(samples, weights, strict=True):
            assert one <= other or weight >= other_weight or policy.weighting == "uniform"
            assert one != other or weight == other_weight


@given(counts.filter(any))
def test_without_a_cap_a_share_is_the_rounded_down_fraction(samples: list[int]) -> None:
    total = sum(samples)
    assert weights_micro(samples, Policy()) == [count * MICRO // total for count in samples]


@given(st.lists(st.integers(1, 1_000), min_size=3, max_size=9), st.integers(400_000, MICRO))
def test_what_the_cap_takes_goes_to_the_others(samples: list[int], cap: int) -> None:
    weights = weights_micro(samples, Policy(share_cap_micro=cap))
    assert sum(weights) > MICRO - len(samples)


@pytest.mark.parametrize(
    ("samples", "cap", "expected"),
    [
        ([], MICRO, []),
        ([5], MICRO, [MICRO]),
        ([0, 0], MICRO, [500_000, 500_000]),
        ([10, 1, 1], 400_000, [400_000, 300_000, 300_000]),
        ([100, 50, 1], 400_000, [400_000, 400_000, 200_000]),
        ([7, 7, 0], 400_000, [400_000, 400_000, 0]),
        ([9, 3, 1], 100_000, [100_000, 100_000, 100_000]),
        ([3, 1], 500_000, [500_000, 500_000]),
    ],
)
def test_known_weights(samples: list[int], cap: int, expected: list[int]) -> None:
    assert weights_micro(samples, Policy(share_cap_micro=cap)) == expected


def test_uniform_gives_everyone_the_same() -> None:
    assert weights_micro([1, 1_000, 0], Policy("uniform")) == [333_333] * 3


def test_a_negative_count_is_our_own_bug() -> None:
    with pytest.raises(ValueError, match="negative"):
        weights_micro([1, -1], Policy())


@pytest.mark.parametrize("halves", range(5))
def test_a_discount_is_exact_to_the_last_digit(halves: int) -> None:
    """The largest whole d with d^2 * (1 + t)^h <= 10^12: no float could promise that."""
    for late in range(101):
        discount = discount_micro(late, halves)
        scale = (1 + late) ** halves
        assert discount**2 * scale <= MICRO**2 < (discount + 1) ** 2 * scale
        assert discount > 0, "a late update never weighs nothing"
    assert discount_micro(0, halves) == MICRO


@given(counts.filter(any), policies, st.integers(0, 100))
def test_equal_lateness_changes_no_share_and_more_lateness_never_helps(
    samples: list[int], policy: Policy, late: int
) -> None:
    on_time = weights_micro(samples, policy)
    nobody = weights_micro(samples, policy, staleness_rounds=[0] * len(samples))
    assert nobody == on_time
    first_late = [late] + [0] * (len(samples) - 1)
    assert weights_micro(samples, policy, staleness_rounds=first_late)[0] <= on_time[0]
