import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from swarm.learning.moments import (
    Floats,
    Moments,
    Standardiser,
    columns_digest,
    local_moments,
    merge_moments,
)

cells = st.one_of(st.just(np.nan), st.floats(-1e6, 1e6))
tables = st.lists(
    st.integers(0, 9).flatmap(lambda rows: arrays(np.float64, (rows, 3), elements=cells)),
    min_size=1,
    max_size=5,
)


@settings(deadline=None)
@given(tables)
def test_merging_sites_equals_pooling_their_rows(sites: list[Floats]) -> None:
    merged = merge_moments([local_moments(site) for site in sites])
    pooled = local_moments(np.concatenate(sites))
    assert np.array_equal(merged.count, pooled.count)
    assert np.allclose(merged.mean, pooled.mean, rtol=1e-9, atol=1e-6)
    assert np.allclose(merged.m2, pooled.m2, rtol=1e-9, atol=1e-3)


@given(tables)
def test_moments_survive_the_journey(sites: list[Floats]) -> None:
    for site in sites:
        moments = local_moments(site)
        assert np.array_equal(
            Moments.from_vector(moments.to_vector()).to_vector(), moments.to_vector()
        )


def test_a_site_without_a_column_takes_part_and_changes_nothing_there() -> None:
    full = local_moments(np.array([[1.0, 10.0], [3.0, 30.0]]))
    lacking = local_moments(np.array([[5.0, np.nan], [7.0, np.nan]]))
    merged = merge_moments([lacking, full])
    assert merged.count.tolist() == [4, 2]
    assert merged.mean.tolist() == [4, 20]
    assert merged.m2.tolist() == [20, 200]


def test_a_small_spread_on_a_large_offset_keeps_its_digits() -> None:
    values = 1e9 + np.random.default_rng(0).normal(size=(1_000, 1))
    merged = merge_moments([local_moments(part) for part in np.split(values, 10)])
    assert np.sqrt(merged.m2 / merged.count) == pytest.approx(values.std(axis=0), rel=1e-6)


def test_every_member_merges_to_the_same_bits() -> None:
    generator = np.random.default_rng(1)
    parts = [local_moments(generator.normal(size=(rows, 4))) for rows in (5, 9, 2)]
    merged = {
        merge_moments(sorted(order, key=lambda part: part.to_vector().tobytes()))
        .to_vector()
        .tobytes()
        for order in itertools.permutations(parts)
    }
    assert len(merged) == 1


def test_a_column_that_does_not_vary_is_not_blown_up() -> None:
    moments = local_moments(np.array([[0.1, 7.0], [0.1, 7.0], [0.1, 7.0]]))
    scaled = Standardiser.of(moments).apply(np.array([[0.1, 8.0]]))
    assert scaled[0] == pytest.approx([0.0, 1.0])


def test_what_is_missing_becomes_the_mean() -> None:
    moments = local_moments(np.array([[1.0], [3.0]]))
    assert Standardiser.of(moments).apply(np.array([[np.nan], [3.0]])).tolist() == [[0.0], [1.0]]


@pytest.mark.parametrize(
    "forged",
    [
        [1.5, 0.0, 0.0],  # half a patient
        [-1.0, 0.0, 0.0],
        [2.0**53, 0.0, 0.0],
        [3.0, 0.0, -1.0],  # a negative spread
        [0.0, 5.0, 0.0],  # a mean of nothing
        [1.0, 5.0, 1.0],  # one value that varies
        [3.0, np.nan, 0.0],
        [3.0, np.inf, 0.0],
        [3.0, 0.0],
    ],
)
def test_moments_that_no_patients_have_are_refused(forged: list[float]) -> None:
    with pytest.raises(ValueError, match="moments"):
        Moments.from_vector(np.array(forged))


def test_columns_in_another_order_have_another_digest() -> None:
    assert columns_digest(["a", "b"]) != columns_digest(["b", "a"])
