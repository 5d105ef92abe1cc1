"""Variants from the command line, and means over seeds."""

import pytest

from ledger.errors import ConfigError
from scenarios.cli_run import chosen_seeds
from scenarios.compare import compared, parse_variant
from scenarios.intervals import over_seeds
from scenarios.spec import load_spec


def test_a_variant_is_a_name_and_charter_settings() -> None:
    variant = parse_variant("k50=training.local_steps=50,aggregation.weighting=uniform")
    assert variant.name == "k50"
    assert variant.charter == {"training.local_steps": 50, "aggregation.weighting": "uniform"}
    layers = parse_variant("net=model.name=mlp,model.arguments.hidden=[64, 32],rounds.rounds=9")
    assert (layers.model, layers.rounds) == ("mlp", 9)
    assert layers.charter == {"model.arguments.hidden": [64, 32]}


@pytest.mark.parametrize(
    "text", ["k50", "=a=1", "k 5=a=1", "k50=", "k50=steps", "r=rounds.rounds=0"]
)
def test_a_variant_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--variant"):
        parse_variant(text)


def test_variants_share_everything_but_their_settings() -> None:
    (main_name, main), (name, varied) = compared(
        load_spec("stroke"), ["u=aggregation.weighting=uniform"]
    )
    assert (main_name, name) == ("main", "u")
    assert varied.charter == {**main.charter, "aggregation.weighting": "uniform"}
    assert (varied.seed, varied.rounds, varied.engine) == (main.seed, main.rounds, "simulated")
    assert [one for one, _ in compared(load_spec("stroke"), [])] == ["main", "mlp"]
    with pytest.raises(ConfigError, match="same name"):
        compared(load_spec("heart"), ["a=seed=1", "a=seed=2"])


def test_seeds_are_those_given_or_so_many_from_the_first() -> None:
    assert chosen_seeds(7, 3, None, None) == [7, 8, 9]
    assert chosen_seeds(7, 3, [4, 1, 4], None) == [4, 1]
    assert chosen_seeds(7, 3, [4], 2) == [4, 5]
    with pytest.raises(ConfigError, match="goes with one --seed"):
        chosen_seeds(7, 3, [4, 5], 2)


def test_the_interval_is_students_t() -> None:
    found = over_seeds([0.70, 0.72, 0.74, 0.76, 0.78])
    assert found is not None
    assert found.value == pytest.approx(0.74)
    assert found.high - found.value == pytest.approx(2.776 * 0.0316228 / 5**0.5, rel=1e-4)
    one = over_seeds([0.7])
    assert one is not None
    assert (one.low, one.high) == (0.7, 0.7)
    assert over_seeds([0.7, None]) is None
