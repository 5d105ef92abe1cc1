"""Whatever a charter may choose for learning has words that a hospital's board can read."""

import pytest

from ledger.charter_types import CODECS, PERSONALISATIONS, RULES, STRATEGIES
from node.learning_words import CODEC, OWN_MODEL, RULE, STRATEGY, describe_learning
from tests.learning import make_charter


def test_every_choice_has_its_words() -> None:
    assert set(STRATEGY) == set(STRATEGIES)
    assert set(RULE) == set(RULES)
    assert set(CODEC) == set(CODECS) - {"float32"}
    assert set(OWN_MODEL) == set(PERSONALISATIONS) - {"none"}


@pytest.mark.parametrize(
    ("aggregation", "words"),
    [
        ("", ["FedAvg", "one liar can move it"]),
        (
            'rule = "trimmed_mean"\nneighbour_mixing = true\nliars_share = 0.2\ncodec = "top_k_int8"',
            [
                "smallest and largest",
                "nearest",
                "2 liars among 10",
                "largest 1 %",
                "adds to its next",
            ],
        ),
        ('rule = "krum"\nliars_share = 0.1', ["withstands 1 liar among 10 updates"]),
        ('strategy = "ifca"\nclusters = 3', ["3 models"]),
        ('strategy = "diloco"\nserver_rate = 0.5', ["Nesterov", "its rate is 0.5"]),
        ('codec = "top_k"\nkeep_share = 0.0025', ["largest 0.25 %"]),
    ],
)
def test_words_say_what_was_chosen(aggregation: str, words: list[str]) -> None:
    said = "\n".join(describe_learning(make_charter(aggregation=aggregation), 10))
    for word in words:
        assert word in said, said
