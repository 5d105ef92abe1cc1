"""Which of a charter's choices go together. One line for each pair that does not.

Room: learning. Knows no tensor, so `doctor` and `charter digest` ask before torch is loaded. What only a
module can tell (a pattern that no tensor matches, batch norm) is in layouts.py. docs/learning.md §2
gives the reasons.
"""

from collections.abc import Iterator
from typing import Final

from ledger.charter import Charter
from ledger.errors import ConfigError

OUTER: Final = ("diloco", "fedadam", "fedyogi", "fedadagrad")
"""Strategies whose merged model goes through an outer optimiser."""
GOSSIP: Final = ("fedavg", "fedprox", "per_fedavg")
"""Strategies without a state beside the parameters."""
KEEPING_MODES: Final = ("fedbn", "ditto")
"""Personalisations whose model at home is in the site's memory."""
BY_COORDINATE: Final = ("mean", "trimmed_mean", "median")
"""Rules that look at one value at a time, so that units may differ between values."""


def check_fits(charter: Charter, *, file: str = "charter") -> None:
    """Raise ConfigError, one line that says what to change, for the first choice that does not fit."""
    for problem in misfits(charter):
        raise ConfigError(f"{file}: {problem}")


def standardises(charter: Charter) -> bool:
    """Whether the columns are standardised by means and spreads over the swarm."""
    return charter.schema.standardise == "federated" and bool(charter.schema.features)


def counts_classes(charter: Charter) -> bool:
    """Whether rows are weighted by how many of each class the swarm has."""
    return charter.training.class_weights == "federated"


def has_round_zero(charter: Charter) -> bool:
    """Whether sites sum something up before anybody trains (round_zero.py)."""
    return standardises(charter) or counts_classes(charter)


def misfits(charter: Charter) -> Iterator[str]:
    """Yield every choice that does not fit."""
    yield from _training(charter)
    yield from _strategy(charter)
    yield from _one_model(charter)
    yield from _gossip(charter)
    yield from _personalisation(charter)
    yield from _reputation(charter)


def _training(charter: Charter) -> Iterator[str]:
    policy, training = charter.aggregation, charter.training
    pulls = [f'strategy = "{policy.strategy}"'] * (policy.strategy == "fedprox")
    pulls += ['personalisation.mode = "ditto"'] * (charter.personalisation.mode == "ditto")
    if pulls and not training.proximal_mu:
        yield f"training.proximal_mu must be above 0 for {pulls[0]}; 0.1 is a start"
    if training.proximal_mu and not pulls:
        yield (
            'training.proximal_mu does nothing without strategy = "fedprox" or '
            'personalisation.mode = "ditto"; remove it'
        )
    if training.class_weights != "none" and charter.schema.head == "regression":
        yield 'training.class_weights is for classes, and the head is "regression"; remove it'


def _strategy(charter: Charter) -> Iterator[str]:
    policy, training = charter.aggregation, charter.training
    if policy.server_rate and policy.strategy not in OUTER:
        yield f'aggregation.server_rate is of {", ".join(OUTER)}, not of "{policy.strategy}"; remove it'
    if policy.strategy != "scaffold":
        return
    if training.optimiser != "sgd" or training.momentum:
        yield 'strategy = "scaffold" needs training.optimiser = "sgd" and training.momentum = 0'
    if policy.rule not in BY_COORDINATE or policy.neighbour_mixing:
        yield (
            'strategy = "scaffold" sends parameters and gradients in one vector, whose distances mean '
            f"nothing; aggregation.rule must be one of {', '.join(BY_COORDINATE)} without mixing"
        )
    if policy.codec.startswith("top_k"):
        yield (
            'strategy = "scaffold" sends parameters and gradients, of which top-k codecs keep the '
            'larger kind; choose another aggregation.codec, such as "int8"'
        )


def _one_model(charter: Charter) -> Iterator[str]:
    """What relies on every update being one model with the site's parameters."""
    policy = charter.aggregation
    if policy.strategy != "ifca":
        return
    what = 'strategy = "ifca" sends one of several models, '
    if policy.rule != "mean" or policy.neighbour_mixing:
        yield what + 'so updates cannot be compared; aggregation.rule must be "mean"'
    if policy.codec != "float32":
        yield what + 'and its memberships must arrive exactly; aggregation.codec must be "float32"'
    if charter.reputation.mode != "off":
        yield what + 'which nobody else can score; reputation.mode must be "off"'


def _gossip(charter: Charter) -> Iterator[str]:
    policy = charter.aggregation
    if not policy.is_gossip:
        return
    if policy.strategy not in GOSSIP:
        yield (
            f'strategy = "{policy.strategy}" has a state that all must share, and nobody agrees on '
            f'one with averaging = "gossip"; use {" or ".join(GOSSIP)}'
        )
    if policy.codec != "float32":
        yield (
            'averaging = "gossip" mixes whole models, and a codec sends changes of models that '
            'differ; aggregation.codec must be "float32"'
        )


def _personalisation(charter: Charter) -> Iterator[str]:
    mode, strategy = charter.personalisation.mode, charter.aggregation.strategy
    if strategy == "per_fedavg" and mode in ("fine_tune", "ditto"):
        yield f'personalisation.mode = "{mode}": strategy = "per_fedavg" adapts by itself; use "none"'
    if strategy == "ifca" and mode in ("fedbn", "ditto"):
        yield f'personalisation.mode = "{mode}" needs one shared model, not strategy = "ifca"'
    if mode != "fedbn":
        return
    if charter.training.trained:
        yield 'personalisation.mode = "fedbn" trains all layers; remove training.trained'
    arguments = charter.model.arguments
    if not charter.model.name.startswith("python:") and not arguments.get("batch_norm", False):
        yield (
            f'personalisation.mode = "fedbn" needs batch norm, which model "{charter.model.name}" '
            "does not have here; set model.arguments.batch_norm = true if it takes that"
        )


def _reputation(charter: Charter) -> Iterator[str]:
    policy = charter.reputation
    if policy.mode == "off":
        if policy.access_floor:
            yield 'reputation.access_floor needs reputation.mode = "score" or "weigh"'
        return
    what = f'reputation.mode = "{policy.mode}" '
    if charter.aggregation.is_gossip:
        yield what + 'needs results that all agree on; averaging = "gossip" has none'
    if charter.personalisation.mode == "fedbn":
        yield what + 'cannot measure others\' models without the layers that "fedbn" keeps at home'
