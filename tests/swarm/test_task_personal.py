"""The learning task with what stays at home, partial training and counted classes: bytes in, bytes out."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from ledger.errors import ConfigError, PeerError
from ledger.record import MetricId, MetricValue
from swarm.learning.dataset import SiteData, Table
from swarm.learning.personalisation import OWN
from swarm.learning.task import LearningTask
from swarm.learning.training_state import Arrays
from tests.learning import auc, digest, make_site
from tests.swarm.local_sites import charter_with

NORMED = 'name = "mlp"\narguments = { hidden = [4], batch_norm = true }'
MU = "proximal_mu = 0.2"


def loss(values: Sequence[MetricValue]) -> float:
    return next(v.micro / 1e6 for v in values if v.metric == MetricId.LOG_LOSS)


def federation(charter: object, data: Sequence[SiteData]) -> list[LearningTask]:
    tasks = [
        LearningTask(charter, site, allow=(), seed=at, threads=1)  # type: ignore[arg-type]
        for at, site in enumerate(data)
    ]
    if tasks[0].needs_moments:
        sums = [(digest(p), p) for p in (task.local_moments() for task in tasks)]
        merged = {task.merge_moments(sums) for task in tasks}
        assert len(merged) == 1
        for task in tasks:
            task.set_moments(next(iter(merged)))
    return tasks


def run(
    tasks: Sequence[LearningTask], rounds: int, memories: list[Arrays] | None = None
) -> tuple[bytes, list[Arrays]]:
    model, memories = tasks[0].initial(), memories or [{} for _ in tasks]
    for number in range(1, rounds + 1):
        trained = [
            task.train(model, number, memory) for task, memory in zip(tasks, memories, strict=True)
        ]
        memories = [one.memory for one in trained]
        inputs = [(digest(one.payload), one.payload, 1_000_000 // len(tasks)) for one in trained]
        merged = {task.merge(inputs, model) for task in tasks}
        assert len(merged) == 1
        model = merged.pop()
    return model, memories


def skewed(seed: int, positives: float, rows: int = 120) -> SiteData:
    """A site where illness is as rare, or as common, as it is said."""
    site = make_site(seed, rows=4 * rows)

    def thin(table: Table) -> Table:
        draw = np.random.default_rng(seed).random(table.rows)
        keep = np.where(table.labels == 1, draw < positives, draw < 1 - positives)
        return table.take(keep)

    assert isinstance(site.train, Table)
    assert isinstance(site.validation, Table)
    return SiteData(train=thin(site.train), validation=thin(site.validation))


@pytest.mark.parametrize("mode", ["none", "intercept", "fine_tune", "fedbn", "ditto"])
@pytest.mark.parametrize("codec", ["float32", "int8"])
def test_every_mode_trains_remembers_and_restarts_to_the_same_bytes(mode: str, codec: str) -> None:
    charter = charter_with(
        f'codec = "{codec}"',
        f'mode = "{mode}"\nsteps = 3',
        MU * (mode == "ditto"),
        model=NORMED,
    )
    data = [make_site(at, rows=40) for at in range(2)]
    tasks = federation(charter, data)
    model, memories = run(tasks, 3)
    kept = {name.partition(".")[0] for name in memories[0]}
    assert kept == ({"personal"} if mode in ("fedbn", "ditto") else set()) | (
        {"codec"} if codec == "int8" else set()
    )
    again = federation(charter, data)
    assert again[0].evaluate(model, memories[0]) == tasks[0].evaluate(model, memories[0])
    asked = tasks[0].train(model, 4, memories[0])
    restarted = again[0].train(model, 4, memories[0])
    assert restarted.payload == asked.payload
    assert {k: v.tobytes() for k, v in restarted.memory.items()} == {
        k: v.tobytes() for k, v in asked.memory.items()
    }
    assert tasks[0].evaluate_on(model, data[0].validation), "the shared model can be asked for too"


def test_evaluation_between_rounds_changes_nothing_that_is_sent() -> None:
    for mode in ("intercept", "fine_tune", "fedbn", "ditto"):
        charter = charter_with("", f'mode = "{mode}"', MU * (mode == "ditto"), model=NORMED)
        data = [make_site(0, rows=40)]
        plain, asked = federation(charter, data)[0], federation(charter, data)[0]
        model = plain.initial()
        one = plain.train(model, 1, {})
        other = asked.train(model, 1, {})
        asked.evaluate(model, other.memory)
        asked.scores(model, data[0].validation)
        assert (
            plain.train(model, 2, one.memory).payload == asked.train(model, 2, other.memory).payload
        )


def test_an_intercept_mends_the_chances_of_unequal_hospitals_and_no_auc() -> None:
    data = [skewed(at, share) for at, share in enumerate((0.15, 0.5, 0.85))]
    steps = "local_epochs = 0"
    losses, areas = {}, {}
    for mode in ("none", "intercept"):
        tasks = federation(charter_with("", f'mode = "{mode}"', steps), data)
        model, memories = run(tasks, 10)
        found = [task.evaluate(model, own) for task, own in zip(tasks, memories, strict=True)]
        losses[mode] = np.mean([loss(values) for values in found])
        areas[mode] = [auc(values) for values in found]
    assert areas["intercept"] == areas["none"]
    assert losses["intercept"] < 0.95 * losses["none"]


def test_dittos_own_model_is_measured_where_the_memory_is_known() -> None:
    charter = charter_with("", 'mode = "ditto"\nsteps = 20\nlearning_rate = 0.3', MU)
    tasks = federation(charter, [make_site(0), make_site(1)])
    model, memories = run(tasks, 2)
    assert f"personal.{OWN}" in memories[0]
    own, shared = tasks[0].evaluate(model, memories[0]), tasks[0].evaluate(model)
    assert own != shared
    assert shared == tasks[0].evaluate_on(model, make_site(0).validation)


def test_only_the_chosen_tensors_travel() -> None:
    whole = federation(charter_with(model=NORMED), [make_site(0)])[0]
    part = federation(
        charter_with(model=NORMED, training='trained = ["layers.3.*"]'),
        [make_site(0), make_site(1)],
    )
    model, _ = run(part, 3)
    assert len(model) < len(whole.initial())
    assert set(part[0].tensors(model)) == {
        "model.layers.3.weight",
        "model.layers.3.bias",
        "moments",
    }
    assert part[0].evaluate(model) != part[0].evaluate(part[0].initial())
    assert part[0].from_tensors(part[0].tensors(model)) == model


def test_adapters_of_another_base_model_are_refused() -> None:
    charter = charter_with(model=NORMED, training='trained = ["layers.3.*"]')
    one = federation(charter, [make_site(0)])[0]
    other = federation(replace(charter, seed=charter.seed + 1), [make_site(0)])[0]
    with pytest.raises(PeerError, match="another layout"):
        one.check(other.train(other.initial(), 1).payload, 1)


def test_classes_weigh_by_the_federations_counts() -> None:
    """As one table of all sites with balanced classes would."""
    data = [skewed(0, 0.1), skewed(1, 0.3)]
    tables = [site.train for site in data]
    assert all(isinstance(table, Table) for table in tables)
    whole = Table(
        columns={
            name: np.concatenate([table.columns[name] for table in tables])  # type: ignore[union-attr]
            for name in ("age", "dose", "sex")
        },
        labels=np.concatenate([table.labels for table in tables]),  # type: ignore[union-attr]
    )
    federated = federation(charter_with(training='class_weights = "federated"'), data)
    weights = federated[0]._inputs.class_weights
    assert weights is not None
    counts = np.bincount(whole.labels)
    np.testing.assert_allclose(weights, whole.rows / (2 * counts), rtol=1e-6)
    assert federated[0].needs_moments
    only = federation(
        charter_with(training='class_weights = "federated"', data='standardise = "none"'), data
    )
    assert only[0].needs_moments


@pytest.mark.parametrize("strategy", ["ifca", "per_fedavg", "scaffold", "fedadam", "diloco"])
def test_strategies_with_a_state_or_a_model_of_their_own_go_the_same_way(strategy: str) -> None:
    tasks = federation(charter_with(f'strategy = "{strategy}"'), [make_site(0), make_site(1)])
    first = loss(tasks[0].evaluate(tasks[0].initial()))
    model, memories = run(tasks, 8)
    assert loss(tasks[0].evaluate(model, memories[0])) < first
    tensors = tasks[0].own_tensors(model)
    assert tasks[0].tensors(tasks[0].from_tensors(tensors)).keys() == tensors.keys()
    exported = tasks[0].tensors(tasks[0].from_tensors(tensors))
    for name, value in tensors.items():
        np.testing.assert_array_equal(exported[name], value)


def test_choices_that_do_not_go_together_stop_the_node_before_it_starts() -> None:
    with pytest.raises(ConfigError, match="proximal_mu must be above 0"):
        federation(charter_with('strategy = "fedprox"'), [make_site(0)])
