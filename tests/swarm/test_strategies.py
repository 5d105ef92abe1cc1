"""Each strategy against the paper's algorithm, written as plain loops in float64."""

from dataclasses import replace

import numpy as np
import pytest

from swarm.learning.aggregation import weighted_mean
from swarm.learning.outer import outer_of, outer_step
from swarm.learning.parameters import Layout, flatten, load
from swarm.learning.strategies.averaging import FedAvg
from swarm.learning.strategies.ifca import Ifca
from swarm.learning.strategies.per_fedavg import PerFedAvg, second_batch
from swarm.learning.strategies.scaffold import CONTROL, Scaffold
from swarm.learning.strategy import Strategy, strategy_of
from swarm.learning.training import batch_indices, mean_loss
from tests.learning import digest
from tests.swarm.local_sites import (
    TRAINING,
    Floats,
    charter_with,
    gradient,
    linear,
    normed,
    rows,
    site_of,
    train,
)

RATE = TRAINING.learning_rate
NEAR = {"rtol": 2e-4, "atol": 2e-6}


def start(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=4).astype(np.float32)


def mean_of(updates: list[np.ndarray], weights: list[int] | None = None) -> np.ndarray:
    weights = weights or [1] * len(updates)
    return weighted_mean(updates, weights, [digest(update.tobytes()) for update in updates])


def test_fedavg_sends_what_training_comes_to_and_takes_the_mean_bit_for_bit() -> None:
    site = site_of(rows(), normed())
    layout = Layout.of(site.module)
    before = flatten(site.module)
    plain = train(normed(), rows(), TRAINING, head="binary", seed=5)
    result = FedAvg().train(site, before, {})
    assert result.update.tobytes() == plain.parameters.tobytes()
    assert (result.steps, result.samples) == (7, 30)
    merged = mean_of([result.update, before])
    assert FedAvg().step(before, merged).tobytes() == merged.tobytes()
    assert FedAvg().update_length(layout.count) == layout.count


def test_fedprox_takes_the_papers_steps() -> None:
    data, mu = rows(), 0.7
    w = anchor = start().astype(float)
    for chosen in batch_indices(30, TRAINING, 5):
        w = w - RATE * (gradient(w, data, chosen) + mu * (w - anchor))
    result = FedAvg(proximal_mu=mu).train(site_of(data), start(), {})
    np.testing.assert_allclose(result.update, w, **NEAR)


def test_fedprox_leaves_running_statistics_to_the_data() -> None:
    free = FedAvg().train(site_of(rows(), normed()), flatten(normed()), {})
    held = FedAvg(proximal_mu=50.0).train(
        site_of(rows(), normed(), learning_rate=0.01), flatten(normed()), {}
    )
    layout = Layout.of(normed())
    moved = {
        name: np.abs(value - layout.unflatten(flatten(normed()))[name]).max()
        for name, value in layout.unflatten(held.update).items()
    }
    assert moved["0.weight"] < 0.02
    assert moved["1.running_mean"] > 0.02
    assert np.abs(free.update - flatten(normed())).max() > 0.1


def test_scaffold_takes_the_papers_steps_over_several_rounds_of_three_sites() -> None:
    """Karimireddy et al. 2020, Algorithm 1, option II, with every site in every round."""
    sites = [rows(24, seed=at, shift=at - 1.0) for at in range(3)]
    x, c = start().astype(float), np.zeros(4)
    own = [np.zeros(4) for _ in sites]
    state, memories = Scaffold().begin(start()), [{} for _ in sites]  # type: ignore[var-annotated]
    for round_ in range(4):
        models, changes, updates = [], [], []
        for at, data in enumerate(sites):
            y = x.copy()
            for chosen in batch_indices(24, TRAINING, 10 * round_ + at):
                y = y - RATE * (gradient(y, data, chosen) - own[at] + c)
            renewed = own[at] - c + (x - y) / (7 * RATE)
            models.append(y)
            changes.append(renewed - own[at])
            own[at] = renewed
            site = site_of(data, seed=10 * round_ + at)
            result = Scaffold().train(site, state, memories[at])
            memories[at] = dict(result.memory)
            updates.append(result.update)
            np.testing.assert_allclose(memories[at][CONTROL], own[at], rtol=2e-3, atol=2e-5)
        x, c = np.mean(models, axis=0), c + np.mean(changes, axis=0)
        state = Scaffold().step(state, mean_of(updates))
        np.testing.assert_allclose(state, np.append(x, c), rtol=2e-3, atol=2e-5)
    np.testing.assert_allclose(c, np.mean(own, axis=0), atol=1e-12)


def test_scaffold_keeps_no_control_of_what_has_no_gradient() -> None:
    site = site_of(rows(), normed())
    state = Scaffold().begin(flatten(site.module))
    result = Scaffold().train(site, state, {})
    control = site.layout.unflatten(result.memory[CONTROL])
    assert not control["1.running_var"].any()
    assert control["0.weight"].all()


def test_scaffold_has_less_drift_than_fedavg_on_unequal_sites() -> None:
    """The distance of the fixed point to the optimum of the mean loss, many steps a round."""
    sites = [rows(40, seed=at, shift=3.0 * (-1) ** at) for at in range(2)]
    best = np.zeros(4)
    for _ in range(1500):
        best -= 0.5 * (gradient(best, sites[0]) + gradient(best, sites[1])) / 2
    far = {}
    for strategy in (FedAvg(), Scaffold()):
        state, memories = strategy.begin(start()), [{}, {}]  # type: ignore[var-annotated]
        for round_ in range(30):
            updates = []
            for at, data in enumerate(sites):
                site = site_of(data, seed=round_, batch_size=40, local_steps=12)
                result = strategy.train(site, state, memories[at])
                memories[at] = dict(result.memory)
                updates.append(result.update)
            state = strategy.step(state, mean_of(updates))
        far[type(strategy)] = float(np.linalg.norm(strategy.parameters(state) - best))
    assert far[Scaffold] < 0.3 * far[FedAvg], far


@pytest.mark.parametrize("name", ["diloco", "fedadam", "fedyogi", "fedadagrad"])
def test_outer_strategies_hold_their_moments_in_the_state(name: str) -> None:
    strategy = strategy_of(charter_with(f'strategy = "{name}"\nserver_rate = 0.3'))
    state = strategy.begin(start())
    assert state.size == 4 * strategy.state_vectors
    expected = state
    for seed in range(3):
        merged = start(seed + 7)
        expected = outer_step(outer_of(name, rate=0.3), expected, merged)
        state = strategy.step(state, merged)
    assert state.tobytes() == expected.tobytes()
    assert strategy.parameters(state).tobytes() == state[:4].tobytes()
    assert strategy.reference(state).tobytes() == state[:4].tobytes()


def test_per_fedavg_takes_the_papers_first_order_steps() -> None:
    """Fallah et al. 2020, Algorithm 1, FO: gradient at the adapted point, applied to the old one."""
    data, alpha = rows(), 0.3
    site = site_of(data)
    w = start().astype(float)
    for step, chosen in enumerate(batch_indices(30, TRAINING, 5)):
        adapted = w - alpha * gradient(w, data, chosen)
        w = w - RATE * gradient(adapted, data, second_batch(site, step))
    result = PerFedAvg(inner_rate=alpha).train(site, start(), {})
    np.testing.assert_allclose(result.update, w, **NEAR)


def test_per_fedavg_uses_the_model_after_one_step_on_all_own_rows() -> None:
    data = rows()
    used = PerFedAvg(inner_rate=0.3).model_for(site_of(data), start())
    expected = start() - 0.3 * gradient(start().astype(float), data)
    np.testing.assert_allclose(used, expected, rtol=1e-5, atol=1e-6)


def test_a_model_that_adapts_is_better_after_the_step_than_the_plain_mean_is() -> None:
    """Two kinds of hospital with opposite labels: what Per-FedAvg is for."""
    sites = [rows(60, seed=at, flip=bool(at % 2)) for at in range(4)]
    loss = {}
    for strategy in (FedAvg(), PerFedAvg(inner_rate=4.0)):
        state = np.array([0.5, 0.5, 0.5, 0.5], np.float32)
        for round_ in range(15):
            trained = [strategy.train(site_of(d, seed=round_), state, {}) for d in sites]
            state = strategy.step(state, mean_of([t.update for t in trained]))
        adapt = PerFedAvg(inner_rate=4.0)
        losses = []
        for data in sites:
            site = site_of(data)
            adapt.model_for(site, state)
            losses.append(mean_loss(site.module, data, "binary"))
        loss[type(strategy)] = float(np.mean(losses))
    assert loss[PerFedAvg] < 0.5, loss


def ifca_by_hand(
    models: list[Floats], sites: list[object], weights: list[int], seed: int
) -> list[Floats]:
    """Ghosh et al. 2020, Algorithm 1 with model averaging, within clusters weighted by samples."""
    sums = [np.zeros(4) for _ in models]
    shares = [0.0 for _ in models]
    for data, weight in zip(sites, weights, strict=True):
        losses = []
        for w in models:
            features, labels = data.features.numpy().astype(float), data.labels.numpy()  # type: ignore[attr-defined]
            z = features @ w[:3] + w[3]
            losses.append(float(np.mean(np.logaddexp(0, z) - labels * z)))
        j = int(np.argmin(losses))
        y = models[j].copy()
        for chosen in batch_indices(len(data), TRAINING, seed):  # type: ignore[arg-type]
            y = y - RATE * gradient(y, data, chosen)  # type: ignore[arg-type]
        sums[j] += weight * y
        shares[j] += weight
    return [s / n if n else w for s, n, w in zip(sums, shares, models, strict=True)]


def test_ifca_averages_within_the_clusters_that_the_losses_choose() -> None:
    sites = [rows(30, seed=at, flip=at in {1, 3}) for at in range(5)]
    weights = [5, 1, 2, 9, 4]
    ifca = Ifca(clusters=3, seed=4)
    state = ifca.begin(np.zeros(4, np.float32))
    models = [m.astype(float) for m in state.reshape(3, 4)]
    for round_ in range(6):
        updates = [ifca.train(site_of(data, seed=round_), state, {}).update for data in sites]
        assert all(update.size == ifca.update_length(4) for update in updates)
        state = ifca.step(state, mean_of(updates, weights))
        models = ifca_by_hand(models, list(sites), weights, round_)
        np.testing.assert_allclose(state.reshape(3, 4), models, rtol=1e-4, atol=1e-5)
    choices = [ifca.choose(site_of(data), state) for data in sites]
    assert choices[0] == choices[2] == choices[4] != choices[1] == choices[3]
    chosen = ifca.model_for(site_of(sites[1]), state)
    assert chosen.tobytes() == state.reshape(3, 4)[choices[1]].tobytes()


def test_a_cluster_that_nobody_chooses_stays_as_it_was() -> None:
    ifca = Ifca(clusters=2, seed=0)
    state = ifca.begin(np.zeros(4, np.float32))
    update = ifca.train(site_of(rows()), state, {}).update
    chosen = int(update[8:].argmax())
    after = ifca.step(state, mean_of([update, update])).reshape(2, 4)
    assert after[1 - chosen].tobytes() == state.reshape(2, 4)[1 - chosen].tobytes()
    assert after[chosen].tobytes() != state.reshape(2, 4)[chosen].tobytes()


def test_ifcas_models_start_apart_and_the_same_everywhere() -> None:
    one = Ifca(clusters=4, seed=1).begin(start()).reshape(4, 4)
    assert len({model.tobytes() for model in one}) == 4
    assert np.abs(one - start()).max() <= 0.1 + 1e-6
    np.testing.assert_allclose(one[0] + one[1], 2 * start(), atol=1e-6)
    assert Ifca(clusters=4, seed=1).begin(start()).tobytes() == one.tobytes()
    assert Ifca(clusters=4, seed=2).begin(start()).tobytes() != one.tobytes()
    # Golden bits: another machine or numpy must begin from the same models.
    assert digest(Ifca(clusters=2, seed=1).begin(np.zeros(3, np.float32)).tobytes()).hex()[:16] == (
        "5573a6a1386d9f28"
    )


@pytest.mark.parametrize("lie", ["twice", "heavy", "negative", "nobody", "both"])
def test_a_liar_cannot_weigh_more_in_ifca_than_one_member(lie: str) -> None:
    ifca = Ifca(clusters=2, seed=0)
    honest = ifca.train(site_of(rows()), ifca.begin(start()), {}).update
    ifca.examine(honest)
    chosen = int(honest[8:].argmax())
    update = honest.copy()
    match lie:
        case "twice":
            update[8:] = 1
        case "heavy":
            update[8 + chosen] = 1e6
        case "negative":
            update[9 - chosen] = -1
        case "nobody":
            update[8:] = 0
        case "both":
            update[:8] = 1
    with pytest.raises(ValueError, match="changes that alone"):
        ifca.examine(update)


@pytest.mark.parametrize("broken", ["length", "negative", "infinite"])
def test_an_ifca_merge_that_no_members_made_is_refused(broken: str) -> None:
    ifca = Ifca(clusters=2, seed=0)
    state = ifca.begin(start())
    merged = np.zeros(10, np.float32)
    if broken == "length":
        merged = merged[1:]
    elif broken == "negative":
        merged[8] = -1.0
    else:
        merged[:4], merged[8] = 3e38, 1e-9
    with pytest.raises(ValueError, match=r"none for|negative|finite"), np.errstate(over="ignore"):
        ifca.step(state, merged)


ALL = ["fedavg", "fedprox", "scaffold", "fedadam", "per_fedavg", "ifca"]


def chosen(name: str) -> Strategy:
    return strategy_of(charter_with(f'strategy = "{name}"', training="proximal_mu = 0.1"))


@pytest.mark.parametrize("name", ALL)
def test_a_strategy_moves_only_what_is_trained(name: str) -> None:
    module = normed()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    layout = Layout.of(module, trained=["3.*"])
    strategy = chosen(name)
    site = site_of(rows(), module, layout=layout)
    state = strategy.begin(flatten(module, layout))
    assert state.size == 5 * strategy.state_vectors
    result = strategy.train(site, state, {})
    assert result.update.size == strategy.update_length(5)
    strategy.model_for(site, strategy.step(state, result.update))
    for key, value in module.state_dict().items():
        assert key.startswith("3.") or bool((value == before[key]).all()), key


@pytest.mark.parametrize("name", ALL)
def test_the_second_round_goes_on_from_the_first_ones_memory(name: str) -> None:
    """The same bits again from the same state and memory; nothing else is remembered."""
    strategy = chosen(name)
    state = strategy.begin(flatten(linear()))
    first = strategy.train(site_of(rows(), seed=1), state, {})
    state = strategy.step(state, first.update)
    memory = {key: value.copy() for key, value in first.memory.items()}
    second = strategy.train(site_of(rows(), seed=2), state, first.memory)
    again = strategy.train(site_of(rows(), seed=2), state, memory)
    assert second.update.tobytes() == again.update.tobytes()
    assert {k: v.tobytes() for k, v in memory.items()} == {
        k: v.tobytes() for k, v in first.memory.items()
    }


def test_a_federation_of_one_site_learns_with_every_strategy() -> None:
    for name in ALL:
        strategy = chosen(name)
        state, memory = strategy.begin(flatten(linear())), {}  # type: ignore[var-annotated]
        data = rows(60)
        for round_ in range(15):
            result = strategy.train(site_of(data, seed=round_), state, memory)
            state, memory = strategy.step(state, result.update), dict(result.memory)
        site = replace(site_of(data), seed=0)
        load(site.module, strategy.model_for(site, state), site.layout)
        assert mean_loss(site.module, data, "binary") < 0.5, name
