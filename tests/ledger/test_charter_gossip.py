"""What a charter says of averaging with neighbours, and what it may not say: one clear line each."""

import pytest
from ledger_factory import charter_of

from ledger.charter import load_charter
from ledger.errors import ConfigError
from ledger.topology import Topology


def gossip(text: str = "") -> bytes:
    return charter_of(4, f'[aggregation]\naveraging = "gossip"\n{text}')


def test_neighbours_follow_from_the_charter() -> None:
    charter = load_charter(gossip('topology = "random_regular"\ndegree = 2\n'))
    assert charter.topology == Topology(name="random_regular", net=charter.net, degree=2)
    assert load_charter(gossip()).aggregation.topology == "static_exponential"
    assert load_charter(charter_of(4)).topology is None


def test_edges_are_pairs_of_names() -> None:
    names = [member.name for member in load_charter(gossip()).members]
    pairs = ", ".join(f'["{names[0]}", "{name}"]' for name in names[1:])
    charter = load_charter(gossip(f'topology = "edges"\nedges = [{pairs}]\n'))
    assert charter.topology is not None
    assert charter.topology.senders(range(4), 0, 1) == (1, 2, 3)
    assert charter.topology.senders(range(4), 2, 1) == (0,)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('topology = "star"\n', "topology must be one of"),
        ('topology = "epidemic"\ndegree = 3\n', "degree must be even, got 3"),
        ('topology = "edges"\n', 'edges are for topology = "edges"'),
        ('topology = "edges"\nedges = [["A", "nobody"]]\n', 'edges name "A", who is no member'),
        ('topology = "edges"\nedges = [["A", "A"]]\n', 'edges joins "A" to itself'),
        ('topology = "edges"\nedges = ["A"]\n', "edges must be an array of pairs"),
    ],
)
def test_a_graph_that_cannot_be_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_charter(gossip(text))
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_edges_that_leave_a_member_alone_are_refused() -> None:
    names = [member.name for member in load_charter(gossip()).members]
    text = f'topology = "edges"\nedges = [["{names[0]}", "{names[1]}"], ["{names[2]}", "{names[3]}"]]\n'
    with pytest.raises(ConfigError, match=f'do not join "{names[2]}" with "{names[0]}"'):
        load_charter(gossip(text))


def test_nobody_can_be_required_where_nobody_is_waited_for() -> None:
    name = load_charter(gossip()).members[1].name
    text = f'required = ["{name}"]\n[aggregation]\naveraging = "gossip"\n'
    with pytest.raises(ConfigError, match=r"rounds\.required must be empty"):
        load_charter(charter_of(4, text))


def test_a_graph_without_gossip_is_refused() -> None:
    with pytest.raises(ConfigError, match='are for averaging = "gossip"; leave them out'):
        load_charter(charter_of(4, '[aggregation]\ntopology = "ring"\n'))
