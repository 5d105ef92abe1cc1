"""Which of a charter's choices go together: one line for each pair that does not."""

import subprocess
import sys

import pytest

from ledger.charter_types import CODECS, PERSONALISATIONS, RULES, STRATEGIES
from ledger.errors import ConfigError
from swarm.learning.fits import check_fits, misfits
from tests.swarm.local_sites import charter_with

MU = "proximal_mu = 0.1"
NORMED = 'name = "mlp"\narguments = { batch_norm = true }'


def test_a_plain_charter_fits() -> None:
    check_fits(charter_with())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_fits_with_the_defaults(strategy: str) -> None:
    check_fits(charter_with(f'strategy = "{strategy}"', training=MU * (strategy == "fedprox")))


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "fedadam", "diloco", "per_fedavg"])
@pytest.mark.parametrize("codec", CODECS)
def test_strategies_of_one_model_fit_with_every_rule_and_codec(strategy: str, codec: str) -> None:
    for rule in RULES:
        for mixing in ("false", "true") if rule != "mean" else ("false",):
            policy = f'strategy = "{strategy}"\ncodec = "{codec}"\nrule = "{rule}"'
            policy += f"\nneighbour_mixing = {mixing}"
            check_fits(charter_with(policy, training=MU * (strategy == "fedprox")))


@pytest.mark.parametrize("mode", PERSONALISATIONS)
def test_every_personalisation_fits_with_fedavg(mode: str) -> None:
    check_fits(
        charter_with(
            personalisation=f'mode = "{mode}"', training=MU * (mode == "ditto"), model=NORMED
        )
    )


@pytest.mark.parametrize(
    ("aggregation", "personalisation", "training", "message"),
    [
        ('strategy = "fedprox"', "", "", "proximal_mu must be above 0"),
        ("", 'mode = "ditto"', "", "proximal_mu must be above 0"),
        ("", "", MU, "does nothing"),
        ("server_rate = 0.5", "", "", "server_rate is of diloco"),
        ('strategy = "scaffold"', "", "momentum = 0.9", "momentum = 0"),
        ('strategy = "scaffold"', "", 'optimiser = "adam"', 'optimiser = "sgd"'),
        ('strategy = "scaffold"\nrule = "krum"', "", "", "distances mean"),
        ('strategy = "scaffold"\nrule = "median"\nneighbour_mixing = true', "", "", "distances"),
        ('strategy = "scaffold"\ncodec = "top_k_int8"', "", "", "top-k"),
        ('strategy = "ifca"\nrule = "median"', "", "", "updates cannot be compared"),
        ('strategy = "ifca"\ncodec = "int8"', "", "", "memberships must arrive exactly"),
        ('strategy = "ifca"', 'mode = "ditto"', MU, "needs one shared model"),
        ('strategy = "fedadam"\naveraging = "gossip"', "", "", "a state that all must share"),
        ('strategy = "scaffold"\naveraging = "gossip"', "", "", "a state that all must share"),
        ('codec = "int8"\naveraging = "gossip"', "", "", "models that differ"),
        ('averaging = "gossip"\n[reputation]\nmode = "weigh"', "", "", "results that all agree on"),
        ("[reputation]\naccess_floor = 0.3", "", "", "access_floor needs"),
        ('strategy = "per_fedavg"', 'mode = "fine_tune"', "", "adapts by itself"),
        ("", 'mode = "fedbn"', "", "needs batch norm"),
        ("", 'mode = "fedbn"', 'trained = ["a"]', "trains all layers"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    aggregation: str, personalisation: str, training: str, message: str
) -> None:
    charter = charter_with(aggregation, personalisation, training)
    with pytest.raises(ConfigError, match=message) as caught:
        check_fits(charter)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("charter: ")


def test_classes_of_a_regression_have_no_weights() -> None:
    charter = charter_with(training='class_weights = "balanced"', head="regression")
    assert [problem for problem in misfits(charter) if "regression" in problem]


def test_scoring_needs_updates_that_are_one_model() -> None:
    policy = 'strategy = "ifca"\n[reputation]\nmode = "score"'
    with pytest.raises(ConfigError, match=r"reputation\.mode"):
        check_fits(charter_with(policy))


def test_asking_loads_no_torch() -> None:
    code = "import sys, swarm.learning.fits\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
