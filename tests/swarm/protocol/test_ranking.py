"""Who proposes first."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from swarm.protocol.ranking import ranked

NET = bytes(range(32))


@given(st.integers(0, 2**32 - 1), st.permutations(range(9)))
def test_everybody_computes_the_same_order(round_: int, authors: list[int]) -> None:
    order = ranked(NET, round_, authors)
    assert order == ranked(NET, round_, range(9))
    assert sorted(order) == list(range(9))


@given(st.integers(0, 2**32 - 1), st.integers(0, 8))
def test_who_is_away_moves_nobody_else(round_: int, away: int) -> None:
    order = ranked(NET, round_, range(9))
    present = [author for author in range(9) if author != away]
    assert ranked(NET, round_, present) == tuple(a for a in order if a != away)


def test_every_member_is_first_about_as_often() -> None:
    first = Counter(ranked(NET, round_, range(4))[0] for round_ in range(2_000))
    assert all(400 < first[author] < 600 for author in range(4))


def test_another_federation_has_another_order() -> None:
    orders = {ranked(bytes([net]) * 32, 1, range(8)) for net in range(20)}
    assert len(orders) == 20
