"""Robust rules: against independent float64 references, the same bits in any order, liars outvoted."""

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import optimize

from ledger.rules import liars_among
from swarm.conformance import check_aggregation_rule
from swarm.learning.gram import gram
from swarm.learning.order_statistics import sorting_network, trimmed_mean
from swarm.learning.robust import ROBUST_RULES, rule_of

Table = NDArray[np.float64]
ALL = [(name, mixes) for name in ROBUST_RULES for mixes in (False, True)]


def table_of(seed: int, count: int, length: int, *, liars: int = 0, scale: float = 8.0) -> Table:
    generator = np.random.default_rng(seed)
    table = generator.normal(size=(count, length)) + generator.normal(size=length)
    table[:liars] *= -scale
    return table.astype(np.float32).astype(np.float64)


def merged(
    name: str, table: Table, weights: list[int], liars: int, *, mixes: bool = False
) -> NDArray[np.float32]:
    rows = list(table.astype(np.float32))
    digests = [hashlib.sha256(row.tobytes()).digest() for row in rows]
    origin = np.zeros(table.shape[1], dtype=np.float32)
    return rule_of(name, mixes=mixes)(rows, weights, digests, origin=origin, liars=liars)


# References, written from the papers with numpy's own sums and norms.


def reference_mixing(table: Table, shares: Table, liars: int) -> Table:
    mixed = []
    for row in table:
        near = np.argsort(np.linalg.norm(table - row, axis=1), kind="stable")
        near = near[: len(table) - liars]
        mixed.append(np.average(table[near], axis=0, weights=shares[near]))
    return np.array(mixed)


def reference_trimmed(table: Table, _shares: Table, liars: int) -> Table:
    ordered = np.sort(table, axis=0)
    return ordered[liars : len(table) - liars].mean(axis=0)


def reference_median(table: Table, _shares: Table, _liars: int) -> Table:
    return np.median(table, axis=0)


def reference_norm_clipped(table: Table, shares: Table, _liars: int) -> Table:
    norms = np.linalg.norm(table, axis=1)
    radius = np.sort(norms)[(len(norms) - 1) // 2]
    return (shares * np.minimum(1, radius / norms)) @ table


def reference_geometric(table: Table, shares: Table, _liars: int) -> Table:
    def cost(point: Table) -> float:
        return float(shares @ np.linalg.norm(table - point, axis=1))

    return optimize.minimize(
        cost, shares @ table, method="BFGS", options={"gtol": 1e-10, "maxiter": 10_000}
    ).x


def reference_krum(table: Table, _shares: Table, liars: int) -> Table:
    return table[int(np.argmin(krum_scores(table, liars)))]


def reference_multi_krum(table: Table, shares: Table, liars: int) -> Table:
    best = np.argsort(krum_scores(table, liars), kind="stable")[: len(table) - liars]
    return np.average(table[best], axis=0, weights=shares[best])


def krum_scores(table: Table, liars: int) -> Table:
    squares = ((table[:, None] - table[None]) ** 2).sum(axis=2)
    nearest = np.sort(squares + np.diag([np.inf] * len(table)), axis=1)
    return nearest[:, : max(len(table) - liars - 2, 1)].sum(axis=1)


def reference_centered(table: Table, shares: Table, _liars: int) -> Table:
    centre = np.zeros(table.shape[1])
    for _ in range(10):
        steps = table - centre
        norms = np.linalg.norm(steps, axis=1)
        radius = np.sort(norms)[(len(norms) - 1) // 2]
        centre = centre + (shares * np.minimum(1, radius / norms)) @ steps
    return centre


REFERENCES: dict[str, Callable[[Table, Table, int], Table]] = {
    "norm_clipped_mean": reference_norm_clipped,
    "geometric_median": reference_geometric,
    "krum": reference_krum,
    "multi_krum": reference_multi_krum,
    "centered_clipping": reference_centered,
    "trimmed_mean": reference_trimmed,
    "median": reference_median,
}


def test_every_rule_has_a_reference() -> None:
    assert set(REFERENCES) == set(ROBUST_RULES)


@pytest.mark.parametrize(("name", "mixes"), ALL)
@pytest.mark.parametrize("seed", range(4))
def test_a_rule_gives_what_its_paper_says(name: str, seed: int, *, mixes: bool) -> None:
    liars = 3
    # Geometric medians in few dimensions, where the reference's optimiser finds the minimum.
    table = table_of(seed, 11, 6 if name == "geometric_median" else 300, liars=liars)
    weights = [int(w) for w in np.random.default_rng(seed).integers(100, 1000, 11)]
    shares = np.array(weights) / sum(weights)
    entered = reference_mixing(table, shares, liars) if mixes else table
    expected = REFERENCES[name](entered, shares, liars)
    result = merged(name, table, weights, liars, mixes=mixes)
    tolerance = 2e-3 if name == "geometric_median" else 2e-5
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("name", "mixes"), ALL)
def test_a_rule_passes_the_exam_of_aggregation_rules(name: str, *, mixes: bool) -> None:
    rule = rule_of(name, mixes=mixes)
    check_aggregation_rule(
        lambda rows, weights, digests: rule(
            rows, weights, digests, origin=np.min(rows, axis=0), liars=2
        )
    )


@pytest.mark.parametrize(("name", "mixes"), ALL)
def test_six_of_thirty_two_liars_do_not_carry_the_result_away(name: str, *, mixes: bool) -> None:
    table = table_of(5, 32, 400, liars=6, scale=100.0)
    honest = table[6:].mean(axis=0)
    result = merged(name, table, [1] * 32, 6, mixes=mixes)
    spread = np.linalg.norm(table[6:] - honest, axis=1).max()
    assert np.linalg.norm(result - honest) <= spread
    plain = np.linalg.norm(table.mean(axis=0) - honest)
    assert np.linalg.norm(result - honest) < plain / 5


@pytest.mark.parametrize(("name", "mixes"), ALL)
def test_a_huge_liar_does_not_drown_the_honest_digits(name: str, *, mixes: bool) -> None:
    """Distances among the honest are still told apart beside a row of 1e18."""
    table = table_of(6, 9, 200)
    table[0] = 1e18
    result = merged(name, table, [1] * 9, 2, mixes=mixes)
    honest = table[1:].mean(axis=0)
    spread = np.linalg.norm(table[1:] - honest, axis=1).max()
    if (name, mixes) != ("norm_clipped_mean", False):  # clipping alone keeps a liar's direction
        assert np.linalg.norm(result - honest) <= spread


@pytest.mark.parametrize("count", range(1, 40))
def test_the_sorting_network_sorts(count: int) -> None:
    """By the 0-1 principle on random bit columns, and exhaustively for few lanes."""
    columns = 1 << count if count <= 10 else 4096
    if count <= 10:
        bits = (np.arange(columns) >> np.arange(count)[:, None]) & 1
    else:
        bits = np.random.default_rng(count).integers(0, 2, (count, columns))
    lanes = list(bits)
    for low, high in sorting_network(count):
        lanes[low], lanes[high] = (
            np.minimum(lanes[low], lanes[high]),
            np.maximum(lanes[low], lanes[high]),
        )
    assert (np.diff(lanes, axis=0) >= 0).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 50), st.integers(-120, 60))
def test_inner_products_are_close_and_exactly_symmetric_in_any_order(
    seed: int, count: int, length: int, exponent: int
) -> None:
    generator = np.random.default_rng(seed)
    rows = list((generator.normal(size=(count, length)) * 2.0**exponent).astype(np.float32))
    origin = np.zeros(length, dtype=np.float32)
    products = np.array(gram(rows, origin))
    order = generator.permutation(count)
    again = np.array(gram([rows[i] for i in order], origin))
    assert again.tobytes() == products[np.ix_(order, order)].tobytes()
    exact = np.array(rows, dtype=np.float64)
    if exponent > -90:
        largest = float(np.square(exact).sum(axis=1).max())
        assert np.abs(products - exact @ exact.T).max() <= 1e-4 * largest


def test_blas_threads_and_blocks_do_not_change_a_bit() -> None:
    """The sum of each block is exact: splitting it by hand gives the same integer."""
    rows = list(table_of(3, 8, 8192).astype(np.float32))
    origin = np.zeros(8192, dtype=np.float32)
    whole = np.array(gram(rows, origin))
    reordered = np.random.default_rng(0).permutation(8192)
    again = np.array(gram([row[reordered] for row in rows], origin))
    assert whole.tobytes() == again.tobytes()


def test_zeros_of_both_signs_are_one_number() -> None:
    rows = [np.array([0.0, -0.0], np.float32), np.array([-0.0, 0.0], np.float32)]
    for ordered in (rows, rows[::-1]):
        assert trimmed_mean(ordered, 0).tobytes() == bytes(8)


@pytest.mark.parametrize("name", ROBUST_RULES)
def test_no_honest_majority_is_an_error_and_not_a_guess(name: str) -> None:
    with pytest.raises(ValueError, match=r"2 · liars < members"):
        merged(name, table_of(1, 4, 5), [1] * 4, 2)


def test_a_row_that_is_not_finite_is_an_error() -> None:
    table = table_of(1, 5, 9)
    table[2, 3] = np.inf
    with pytest.raises(ValueError, match="not finite"):
        merged("krum", table, [1] * 5, 1)


def test_an_unknown_rule_names_those_there_are() -> None:
    with pytest.raises(ValueError, match="centered_clipping"):
        rule_of("average")


@pytest.mark.parametrize(
    ("count", "share", "liars"),
    [(32, 190_000, 6), (4, 250_000, 1), (3, 900_000, 1), (1, 500_000, 0)],
)
def test_liars_are_a_share_of_those_who_came_and_never_half(
    count: int, share: int, liars: int
) -> None:
    assert liars_among(count, share) == liars


def test_members_without_weight_count_the_same_when_only_they_are_chosen() -> None:
    table = table_of(2, 5, 20)
    table[4] = 1e6
    result = merged("multi_krum", table, [0, 0, 0, 0, 1], 1)
    np.testing.assert_allclose(result, table[:4].mean(axis=0), rtol=1e-5)
