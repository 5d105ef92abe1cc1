"""What stays at home: each mode against its paper, and nothing of it in what is sent."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from ledger.errors import ConfigError
from swarm.learning.batches import MatrixBatches
from swarm.learning.intercept import fit_intercept
from swarm.learning.layouts import home_names, layout_of
from swarm.learning.local import LocalSite
from swarm.learning.metrics import auc, ece
from swarm.learning.parameters import flatten, load
from swarm.learning.personalisation import (
    OWN,
    Ditto,
    FedBn,
    FineTune,
    Intercept,
    PersonalModel,
    Shared,
    home_arrays,
    personalisation_of,
)
from swarm.learning.seeding import derive_seed
from swarm.learning.strategies.averaging import FedAvg
from swarm.learning.strategies.scaffold import Scaffold
from swarm.learning.training import batch_indices, mean_loss, predict
from swarm.learning.training_state import StateError
from tests.swarm.local_sites import charter_with, gradient, linear, normed, rows, site_of

EMPTY = rows(0)


def weights(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_no_personalisation_is_the_shared_model() -> None:
    site, shared = site_of(rows()), weights(1, 2, 3, 4)
    own = Shared().adapt(site, shared, {}, rows(seed=9))
    assert own.parameters is shared
    assert not own.is_adapted
    load(site.module, shared)
    again = site_of(rows()).module
    scores = own.scores(again, site.layout, rows(seed=9))
    assert np.array_equal(scores, predict(site.module, rows(seed=9)))


# Local intercept


@pytest.mark.parametrize("seed", range(5))
def test_with_its_intercept_the_mean_chance_is_the_sites_own_rate(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.normal(scale=3, size=(40, 1)).astype(np.float32)
    labels = (generator.random(40) < 0.2).astype(np.int64)
    labels[0] = 1
    offset = fit_intercept(scores, labels, "binary")
    assert offset is not None
    chances = 1 / (1 + np.exp(-(scores.astype(float) + offset)))
    assert chances.mean() == pytest.approx(labels.mean(), abs=1e-9)


@pytest.mark.parametrize("spread", [0.0, 1e-6, 30.0, 9e3, 1e30])
def test_an_intercept_is_found_however_wild_the_scores_are(spread: float) -> None:
    scores = spread * np.random.default_rng(0).normal(size=(50, 1))
    labels = np.repeat([0, 1], [45, 5])
    offset = fit_intercept(scores, labels, "binary")
    assert offset is not None
    assert np.isfinite(offset).all()
    if spread < 1:
        assert offset[0] == pytest.approx(np.log(5 / 45), abs=1e-5)


def test_several_classes_get_the_offsets_that_an_independent_solver_finds() -> None:
    generator = np.random.default_rng(3)
    scores = generator.normal(scale=2, size=(60, 4))
    labels = generator.choice(4, p=[0.6, 0.2, 0.1, 0.1], size=60)

    def loss(offset: np.ndarray) -> float:
        moved = scores + offset
        return float(np.mean(np.log(np.exp(moved).sum(axis=1)) - moved[np.arange(60), labels]))

    expected = minimize(loss, np.zeros(4), tol=1e-12).x
    offset = fit_intercept(scores, labels, "multiclass")
    assert offset is not None
    np.testing.assert_allclose(offset, expected - expected.mean(), atol=1e-4)
    chances = np.exp(scores + offset)
    chances /= chances.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(chances.mean(axis=0), np.bincount(labels) / 60, atol=1e-9)


def test_a_class_that_a_site_never_saw_keeps_its_score() -> None:
    scores = np.random.default_rng(0).normal(size=(20, 3))
    offset = fit_intercept(scores, np.repeat([0, 2], [15, 5]), "multiclass")
    assert offset is not None
    assert offset[1] == 0
    assert offset[0] == -offset[2] != 0


@pytest.mark.parametrize(("labels", "head"), [([0] * 9, "binary"), ([2] * 9, "multiclass")])
def test_one_class_alone_gives_no_intercept(labels: list[int], head: str) -> None:
    scores = np.zeros((9, 3 if head == "multiclass" else 1))
    assert fit_intercept(scores, np.array(labels), head) is None
    assert fit_intercept(scores[:0], np.array(labels[:0]), head) is None


def test_a_regressions_intercept_is_its_mean_error() -> None:
    scores = np.random.default_rng(0).normal(size=(30, 1)).astype(np.float32)
    offset = fit_intercept(scores, scores[:, 0].astype(float) + 2.5, "regression")
    assert offset == pytest.approx([2.5])


def test_an_intercept_mends_calibration_and_leaves_every_auc_as_it_is() -> None:
    before, after = [], []
    for seed in range(6):
        # The site's rate is far from the shared model's.
        site, held = site_of(rows(80, seed=seed, shift=1.5)), rows(400, seed=100 + seed, shift=1.5)
        shared = weights(2.0, -1.0, 0.0, -1.5)
        own = Intercept().adapt(site, shared, {}, EMPTY)
        assert own.is_adapted
        plain = PersonalModel(parameters=shared).scores(site.module, site.layout, held)
        moved = own.scores(site.module, site.layout, held)
        labels = held.labels.numpy()
        assert auc(moved[:, 0], labels) == auc(plain[:, 0].astype(float), labels)  # to the bit
        before.append(ece(plain, labels, "binary"))
        after.append(ece(moved, labels, "binary"))
    assert np.mean(after) < 0.5 * np.mean(before)


# Fine-tuning


def fine(steps: int = 20, rate: float = 0.1) -> FineTune:
    return FineTune(steps=steps, learning_rate=rate)


def test_fine_tuning_takes_its_steps_and_is_kept_where_the_validation_loss_falls() -> None:
    data, shared = rows(40, flip=True), weights(1, -0.5, 0, 0)
    site = site_of(data)
    own = fine(steps=6, rate=0.1).adapt(site, shared, {}, rows(40, seed=8, flip=True))
    training = replace(site.training, local_steps=6, learning_rate=0.1)
    w = shared.astype(float)
    for chosen in batch_indices(40, training, derive_seed("fine tune", 5)):
        w = w - 0.1 * gradient(w, data, chosen)
    assert own.is_adapted
    np.testing.assert_allclose(own.parameters, w, rtol=2e-4, atol=2e-6)


def test_fine_tuning_that_does_not_help_is_dropped() -> None:
    shared = weights(3, -1.5, 0, 0)
    own = fine().adapt(site_of(rows(10, flip=True)), shared, {}, rows(200, seed=8))
    assert not own.is_adapted
    assert own.parameters is shared


def test_fine_tuning_never_makes_the_validation_loss_worse() -> None:
    for seed in range(12):
        site, held = site_of(rows(8, seed=seed)), rows(30, seed=50 + seed)
        shared = np.random.default_rng(seed).normal(size=4).astype(np.float32)
        load(site.module, shared)
        before = mean_loss(site.module, held, "binary")
        own = fine(rate=0.5).adapt(site, shared, {}, held)
        load(site.module, own.parameters)
        assert mean_loss(site.module, held, "binary") <= before


def test_fine_tuning_that_diverges_or_has_no_validation_rows_is_dropped() -> None:
    shared = weights(0, 0, 0, 0)
    data = rows(20)
    site = replace(site_of(data), head="regression")
    wild = FineTune(steps=200, learning_rate=1e3).adapt(site, shared, {}, data)
    assert not wild.is_adapted
    assert not fine().adapt(site, shared, {}, EMPTY).is_adapted


# FedBN


def fedbn_site(data: MatrixBatches, module: nn.Module, seed: int = 5) -> LocalSite:
    charter = charter_with(
        personalisation='mode = "fedbn"',
        model='name = "mlp"\narguments = { hidden = [4], batch_norm = true }',
    )
    return site_of(data, module, seed=seed, layout=layout_of(charter, module))


def test_batch_norms_parameters_statistics_and_counters_stay_at_home() -> None:
    assert home_names(normed()) == {
        "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked",
    }  # fmt: skip
    layout = fedbn_site(rows(), normed()).layout
    assert layout.names == ("0.weight", "0.bias", "3.weight", "3.bias")


def test_fedbn_is_fedavg_of_all_other_tensors() -> None:
    """Li et al. 2021, Algorithm 1, against two independent modules that swap what is shared."""
    data = [rows(40, seed=1), rows(40, seed=2, shift=1.0)]
    plain = [normed(), normed()]
    modules = [normed(), normed()]
    mode = FedBn(start=home_arrays(normed()))
    memories: list[dict[str, np.ndarray]] = [{}, {}]
    state = flatten(modules[0], fedbn_site(data[0], modules[0]).layout)
    for round_ in range(3):
        updates = []
        for at, module in enumerate(modules):
            # What another training has left in the module must not matter.
            for layer in module:  # type: ignore[attr-defined]
                if isinstance(layer, nn.BatchNorm1d):
                    layer.running_mean.fill_(77.0)  # type: ignore[union-attr, operator]
            site = fedbn_site(data[at], module, seed=round_)
            mode.before(site, memories[at])
            updates.append(FedAvg().train(site, state, {}).update)
            memories[at] = dict(mode.after(site, state, memories[at]))
            FedAvg().train(site_of(data[at], plain[at], seed=round_), flatten(plain[at]), {})
        state = ((updates[0].astype(float) + updates[1]) / 2).astype(np.float32)
        with torch.no_grad():
            for one, other in zip(
                plain[0].named_parameters(), plain[1].named_parameters(), strict=True
            ):
                if not one[0].startswith("1."):
                    mean = ((one[1].double() + other[1].double()) / 2).float()
                    one[1].copy_(mean)
                    other[1].copy_(mean)
    for at, module in enumerate(modules):
        own = mode.adapt(fedbn_site(data[at], module), state, memories[at], EMPTY)
        scores = own.scores(module, fedbn_site(data[at], module).layout, data[at])
        np.testing.assert_allclose(scores, predict(plain[at], data[at]), atol=1e-5)
    assert not np.allclose(memories[0]["1.running_mean"], memories[1]["1.running_mean"])


def test_a_site_that_never_trained_uses_the_starting_layers() -> None:
    module = normed()
    mode = FedBn(start=home_arrays(module))
    site = fedbn_site(rows(), module)
    shared = flatten(module, site.layout)
    expected = predict(module, rows())
    mode.before(site, {})
    FedAvg().train(site, shared, {})
    own = mode.adapt(site, shared, {}, EMPTY)
    assert np.array_equal(own.scores(module, site.layout, rows()), expected)


def test_layers_of_another_model_are_refused() -> None:
    wide = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 1))
    mode = FedBn(start=home_arrays(normed()))
    with pytest.raises(StateError):
        mode.before(fedbn_site(rows(), normed()), home_arrays(wide))


def test_fedbn_needs_batch_norm() -> None:
    charter = charter_with(
        personalisation='mode = "fedbn"',
        model='name = "mlp"\narguments = { hidden = [4], batch_norm = true }',
    )
    with pytest.raises(ConfigError, match="batch norm"):
        layout_of(charter, linear())


# Ditto


def test_ditto_trains_a_second_model_that_is_pulled_to_the_shared_one() -> None:
    """Li et al. 2021, Algorithm 1: v ← v − η (∇F(v) + λ (v − w)), w of each round's beginning."""
    data, shared = rows(), [weights(0.5, 0, 0, 0), weights(1, -1, 0, 0.3)]
    ditto = Ditto(steps=5, learning_rate=0.2, proximal_mu=0.8)
    memory: dict[str, np.ndarray] = {}
    v = shared[0].astype(float)
    for round_, w in enumerate(shared):
        site = site_of(data, seed=round_, local_steps=3)
        FedAvg().train(site, w, {})
        memory = dict(ditto.after(site, w, memory))
        training = replace(site.training, local_steps=5)
        for chosen in batch_indices(30, training, derive_seed("ditto", round_)):
            v = v - 0.2 * (gradient(v, data, chosen) + 0.8 * (v - w))
        np.testing.assert_allclose(memory[OWN], v, rtol=5e-4, atol=5e-6)
    own = ditto.adapt(site, shared[1], memory, EMPTY)
    assert own.is_adapted
    assert np.array_equal(own.parameters, memory[OWN])
    assert not ditto.adapt(site, shared[1], {}, EMPTY).is_adapted


def test_dittos_own_model_that_diverges_tells_the_operator_what_to_lower() -> None:
    site = replace(site_of(rows()), head="regression")
    with pytest.raises(ConfigError, match=r"personalisation\.learning_rate"):
        Ditto(steps=200, learning_rate=1e3, proximal_mu=0.1).after(site, weights(0, 0, 0, 0), {})


# All of them


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("none", Shared), ("intercept", Intercept), ("fine_tune", FineTune), ("fedbn", FedBn),
     ("ditto", Ditto)],
)  # fmt: skip
def test_what_is_sent_does_not_depend_on_what_stays_at_home(mode: str, kind: type) -> None:
    """But for FedBN, whose layers take part in training; there nothing of them is sent."""
    charter = charter_with(personalisation=f'mode = "{mode}"', training="proximal_mu = 0.3")
    module = normed()
    chosen = personalisation_of(charter, module)
    assert isinstance(chosen, kind)
    layout = layout_of(charter, module)
    sent = []
    for is_personal in (False, True):
        site = site_of(rows(), normed(), layout=layout)
        state = Scaffold().begin(flatten(normed(), layout))
        memory: dict[str, np.ndarray] = {}
        for _ in range(2):
            if is_personal:
                chosen.before(site, memory)
            result = Scaffold().train(site, state, {})
            if is_personal:
                memory = dict(chosen.after(site, Scaffold().parameters(state), memory))
                load(site.module, state[: layout.count], layout)
                chosen.adapt(site, state[: layout.count], memory, rows(seed=3))
            sent.append(result.update)
        assert result.update.size == 2 * layout.count
    if mode == "fedbn":
        assert sent[0].tobytes() == sent[2].tobytes()
    else:
        # Without FedBN a whole vector is loaded before training, whatever the module held.
        assert sent[0].tobytes() == sent[2].tobytes() == sent[3].tobytes()
