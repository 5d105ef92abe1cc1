import hashlib
import math
import random as stdlib_random
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.conformance import ConformanceError, check_aggregation_rule
from swarm.learning.aggregation import (
    BLOCK_ELEMENTS,
    Vector,
    weighted_mean,
    weighted_mean_one_by_one,
)

Rows = Sequence[Vector]
Inputs = tuple[list[Vector], list[int], list[bytes]]

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def inputs(draw: st.DrawFn) -> Inputs:
    members = draw(st.integers(1, 6))
    length = draw(st.integers(1, 8))
    rows = [
        np.array(draw(st.lists(finite, min_size=length, max_size=length)), np.float32)
        for _ in range(members)
    ]
    weights = draw(st.lists(st.integers(0, 1_000_000), min_size=members, max_size=members))
    weights[draw(st.integers(0, members - 1))] += 1
    return rows, weights, [hashlib.sha256(row.tobytes()).digest() for row in rows]


@given(inputs(), st.integers())
def test_any_order_of_the_rows_gives_the_same_bits(given_inputs: Inputs, seed: int) -> None:
    rows, weights, digests = given_inputs
    order = list(range(len(rows)))
    stdlib_random.Random(seed).shuffle(order)
    again = weighted_mean(*([values[i] for i in order] for values in given_inputs))
    assert weighted_mean(rows, weights, digests).tobytes() == again.tobytes()


@given(inputs())
def test_rows_that_are_unpacked_one_by_one_give_the_same_bits(given_inputs: Inputs) -> None:
    rows, weights, digests = given_inputs
    one_by_one = weighted_mean_one_by_one(rows.__getitem__, weights, digests)
    assert weighted_mean(rows, weights, digests).tobytes() == one_by_one.tobytes()


@given(inputs())
def test_the_mean_is_the_exact_one_rounded_from_float64(given_inputs: Inputs) -> None:
    rows, weights, digests = given_inputs
    result = weighted_mean(rows, weights, digests)
    for at in range(len(rows[0])):
        products = [
            Fraction(float(row[at])) * weight for row, weight in zip(rows, weights, strict=True)
        ]
        exact = sum(products) / sum(weights)
        # Each product and sum may lose half a unit of float64; the result one of float32.
        slack = sum(map(abs, products)) / sum(weights) * Fraction(len(rows) + 2, 2**52)
        unit = Fraction(math.ulp(float(np.abs(result[at]))) * 2**29 + 2**-149)
        assert abs(Fraction(float(result[at])) - exact) <= slack + unit


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, BLOCK_ELEMENTS - 1, BLOCK_ELEMENTS + 1]))
def test_blocks_leave_no_seam(seed: int, length: int) -> None:
    generator = np.random.default_rng(seed)
    rows = list(generator.normal(size=(3, length)).astype(np.float32))
    weights = [500_000, 300_000, 200_000]
    digests = [bytes([at]) for at in range(3)]
    reference = np.zeros(length)
    for row, weight in zip(rows, weights, strict=True):
        reference = reference + row.astype(np.float64) * weight
    assert np.array_equal(
        weighted_mean(rows, weights, digests), (reference / 1_000_000).astype(np.float32)
    )


def test_the_largest_finite_parameters_do_not_overflow() -> None:
    top = np.full(3, np.finfo(np.float32).max)
    assert np.array_equal(weighted_mean([top, top], [1, 999_999], [b"a", b"b"]), top)


def test_two_sites_with_one_digest_and_other_weights_keep_the_order_free() -> None:
    row, other = np.float32([0.1]), np.float32([0.7])
    one = weighted_mean([row, row, other], [3, 5, 7], [b"a", b"a", b"b"])
    two = weighted_mean([other, row, row], [7, 5, 3], [b"b", b"a", b"a"])
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize(
    ("rows", "weights", "digests"),
    [
        ([], [], []),
        ([np.zeros(2, np.float32)], [0], [b"a"]),
        ([np.zeros(2, np.float32)], [-1], [b"a"]),
        ([np.zeros(2, np.float32)], [1, 1], [b"a"]),
        ([np.zeros(2, np.float64)], [1], [b"a"]),
        ([np.zeros((1, 2), np.float32)], [1], [b"a"]),
        ([np.zeros(2, np.float32), np.zeros(3, np.float32)], [1, 1], [b"a", b"b"]),
    ],
)
def test_what_cannot_be_averaged_is_refused(
    rows: list[Any], weights: list[int], digests: list[bytes]
) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - our own contract, several texts
        weighted_mean(rows, weights, digests)


def test_the_mean_passes_its_exam() -> None:
    check_aggregation_rule(weighted_mean)


def test_the_exam_finds_a_rule_that_depends_on_the_order() -> None:
    def first_wins(rows: Rows, _weights: Sequence[int], _digests: Sequence[bytes]) -> Vector:
        return rows[0].copy()

    with pytest.raises(ConformanceError, match="another order"):
        check_aggregation_rule(first_wins)


def test_the_exam_finds_a_rule_that_invents_values() -> None:
    def doubled(rows: Rows, weights: Sequence[int], digests: Sequence[bytes]) -> Vector:
        return np.float32(2) * weighted_mean(rows, weights, digests)

    with pytest.raises(ConformanceError, match="outside"):
        check_aggregation_rule(doubled)
