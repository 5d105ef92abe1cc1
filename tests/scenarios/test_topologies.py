"""What `swarm-scenario topology` says of graphs is what averaging over them does."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from ledger.topology import TOPOLOGIES, Topology
from scenarios.cli import app
from scenarios.topologies import NET, mixing_of, weights

NAMES = [name for name in TOPOLOGIES if name != "edges"]


@pytest.mark.parametrize("name", NAMES)
def test_members_have_met_after_the_rounds_that_are_said(name: str) -> None:
    said = mixing_of(name, 16)
    assert said.rounds is not None
    values = np.random.default_rng(1).normal(size=16)
    first = values - values.mean()
    for round_ in range(int(np.ceil(said.rounds)) + 1):
        values = weights(Topology(name=name, net=NET), 16, round_) @ values
    # The worst start takes about as long as said; a random one is never much slower.
    assert np.linalg.norm(values - values.mean()) <= 0.05 * np.linalg.norm(first)


def test_the_order_is_the_one_that_is_known() -> None:
    rounds = {name: mixing_of(name, 32).rounds or np.inf for name in NAMES}
    assert rounds["full"] == 1
    assert rounds["one_peer_exponential"] == 5  # log2(32): exact
    assert rounds["static_exponential"] < rounds["torus"] < rounds["ring"]
    assert rounds["epidemic"] < rounds["torus"]


def test_the_payloads_are_counted() -> None:
    assert mixing_of("full", 8).payloads == 7
    assert mixing_of("ring", 8).payloads == 2
    assert mixing_of("static_exponential", 32).payloads == 5
    assert mixing_of("one_peer_exponential", 32).payloads == 1


def test_the_command_prints_a_table_and_json() -> None:
    runner = CliRunner()
    table = runner.invoke(app, ["topology", "ring", "--members", "8"])
    assert table.exit_code == 0
    assert "ring" in table.output
    answer = runner.invoke(app, ["topology", "ring", "full", "--members", "8", "--json"])
    assert [row["topology"] for row in json.loads(answer.output)] == ["ring", "full"]


def test_an_unknown_graph_is_wrong_usage_in_one_line() -> None:
    result = CliRunner().invoke(app, ["topology", "star"])
    assert result.exit_code == 2
    assert "static_exponential" in result.output
