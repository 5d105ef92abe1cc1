"""Graphs of gossip mode: everybody knows them alike, they connect everybody, and they mix evenly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.topology import MICRO, TOPOLOGIES, Topology

NET = bytes(range(32))
DRAWN = [name for name in TOPOLOGIES if name != "edges"]
SIZES = st.integers(1, 40)


def matrix(topology: Topology, count: int, round_: int) -> np.ndarray:
    table = np.zeros((count, count))
    for author in range(count):
        for other, weight in topology.mixing_micro(range(count), author, round_):
            table[author, other] = weight / MICRO
    return table


@pytest.mark.parametrize("name", DRAWN)
@settings(max_examples=10, deadline=None)
@given(count=SIZES, round_=st.integers(0, 1000))
def test_rows_sum_to_one_and_nobody_averages_with_itself_twice(
    name: str, count: int, round_: int
) -> None:
    topology = Topology(name=name, net=NET)
    for author in range(count):
        weights = topology.mixing_micro(range(count), author, round_)
        assert sum(weight for _, weight in weights) == MICRO
        assert all(weight >= 0 for _, weight in weights)
        authors = [other for other, _ in weights]
        assert authors == sorted(set(authors))
        assert author in authors


@pytest.mark.parametrize("name", DRAWN)
@settings(max_examples=10, deadline=None)
@given(count=SIZES, round_=st.integers(0, 100))
def test_columns_sum_to_one_so_nobody_counts_twice(name: str, count: int, round_: int) -> None:
    """Doubly stochastic: mixing keeps the mean."""
    table = matrix(Topology(name=name, net=NET), count, round_)
    assert np.allclose(table.sum(axis=0), 1.0, atol=1e-4)


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("count", [2, 3, 7, 25])
def test_what_one_knows_reaches_everybody(name: str, count: int) -> None:
    topology = Topology(name=name, net=NET)
    known = np.eye(count)
    for round_ in range(count):
        known = matrix(topology, count, round_) @ known
    assert (known > 0).all()


@pytest.mark.parametrize("name", ["random_regular", "epidemic", "ring", "torus", "full"])
@settings(max_examples=10, deadline=None)
@given(count=SIZES, round_=st.integers(0, 100))
def test_who_pulls_from_me_is_pulled_from_by_me(name: str, count: int, round_: int) -> None:
    topology = Topology(name=name, net=NET)
    near = [set(topology.senders(range(count), author, round_)) for author in range(count)]
    assert all(author in near[other] for author in range(count) for other in near[author])


def test_one_peer_exponential_averages_exactly_in_log_rounds() -> None:
    topology = Topology(name="one_peer_exponential", net=NET)
    product = np.eye(16)
    for round_ in range(4):
        product = matrix(topology, 16, round_) @ product
    assert np.allclose(product, 1 / 16, atol=1e-4)


def test_epidemic_changes_every_round_and_random_regular_never() -> None:
    members = range(30)
    for name, changes in (("epidemic", True), ("random_regular", False)):
        topology = Topology(name=name, net=NET)
        seen = {topology.senders(members, 3, round_) for round_ in range(20)}
        assert (len(seen) > 10) is changes
    other = Topology(name="random_regular", net=bytes(32))
    assert other.senders(members, 3, 0) != Topology(name="random_regular", net=NET).senders(
        members, 3, 0
    )


def test_members_who_left_are_nobodys_neighbours() -> None:
    members = (0, 2, 5, 9, 12)
    for name in DRAWN:
        for author in members:
            assert set(Topology(name=name, net=NET).senders(members, author, 4)) <= set(members)


def test_the_charters_own_edges() -> None:
    topology = Topology(name="edges", net=NET, edges=((0, 1), (1, 2), (1, 7)))
    assert topology.senders((0, 1, 2), 1, 5) == (0, 2)
    assert topology.senders((0, 1, 2), 0, 5) == (1,)
    assert dict(topology.mixing_micro((0, 1, 2), 0, 5)) == {0: 666_667, 1: 333_333}
    assert dict(topology.mixing_micro((0, 1, 2), 1, 5)) == {0: 333_333, 1: 333_334, 2: 333_333}
