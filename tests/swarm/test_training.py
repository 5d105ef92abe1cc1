from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from ledger.charter import Training
from ledger.errors import ConfigError
from swarm.learning.batches import MatrixBatches, SetBatches
from swarm.learning.parameters import flatten, load
from swarm.learning.training import (
    batch_indices,
    mean_loss,
    predict,
    row_losses,
    steps_of_a_round,
)
from tests.swarm.local_sites import train

TRAINING = Training(
    optimiser="sgd",
    learning_rate=0.1,
    weight_decay=0.0,
    momentum=0.0,
    batch_size=8,
    local_steps=5,
    local_epochs=0,
    class_weights="none",
    loss="auto",
)


def examples(rows: int = 33, *, classes: int = 2, seed: int = 0) -> MatrixBatches:
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(rows, 3)).astype(np.float32)
    labels = (features.sum(axis=1) > 0).astype(np.int64) + (features[:, 0] > 1) * (classes - 2)
    return MatrixBatches.of(features, labels)


def model(*, outputs: int = 1, batch_norm: bool = False) -> nn.Module:
    torch.manual_seed(0)
    middle: list[nn.Module] = [nn.BatchNorm1d(4)] if batch_norm else []
    return nn.Sequential(
        nn.Linear(3, 4), *middle, nn.ReLU(), nn.Dropout(0.2), nn.Linear(4, outputs)
    )


@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 99), st.integers(1, 4))
def test_an_epoch_shows_every_row_once_and_never_alone_at_the_end(
    rows: int, batch_size: int, seed: int, epochs: int
) -> None:
    training = replace(TRAINING, batch_size=batch_size, local_steps=0, local_epochs=epochs)
    batches = list(batch_indices(rows, training, seed))
    assert len(batches) == steps_of_a_round(rows, training)
    seen = np.concatenate(batches)
    assert np.array_equal(np.bincount(seen, minlength=rows), np.full(rows, epochs))
    if min(batch_size, rows) > 1:
        assert min(map(len, batches)) > 1


@given(st.integers(1, 50), st.integers(1, 40), st.integers(0, 99))
def test_local_steps_are_taken_exactly(rows: int, steps: int, seed: int) -> None:
    training = replace(TRAINING, local_steps=steps)
    assert len(list(batch_indices(rows, training, seed))) == steps


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(optimiser: str) -> None:
    training = replace(TRAINING, optimiser=optimiser, momentum=0.5, weight_decay=0.01)
    results = []
    for seed in (1, 1, 2):
        torch.rand(5)  # whatever happens to torch's own generator
        results.append(train(model(), examples(), training, head="binary", seed=seed))
    one, again, other = (result.parameters.tobytes() for result in results)
    assert one == again
    assert one != other


def test_training_leaves_torchs_own_generator_where_it_was() -> None:
    module = model()
    before = torch.random.get_rng_state()
    train(module, examples(), TRAINING, head="binary", seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("head", "outputs"), [("binary", 1), ("multiclass", 3), ("regression", 1)])
def test_every_head_learns(head: str, outputs: int) -> None:
    data = examples(classes=max(outputs, 2))
    training = replace(TRAINING, local_steps=100)
    result = train(model(outputs=outputs), data, training, head=head, seed=0)
    assert result.loss_after < 0.8 * result.loss_before
    assert result.samples == 33
    assert result.steps == 100


def test_one_full_batch_step_of_sgd_is_the_gradient() -> None:
    data = examples()
    module = nn.Linear(3, 1)
    load(module, np.zeros(4, np.float32))
    training = replace(TRAINING, batch_size=1000, local_steps=1, learning_rate=1.0)
    result = train(module, data, training, head="binary", seed=0)
    features, labels = data.features.numpy(), data.labels.numpy()
    residual = 0.5 - labels
    expected = np.append(features.T @ residual, residual.sum()) / len(labels)
    assert result.parameters == pytest.approx(-expected, abs=1e-6)


def test_losses_are_torchs() -> None:
    scores, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    assert row_losses(scores, labels, "multiclass").mean() == pytest.approx(
        float(functional.cross_entropy(scores, labels))
    )
    one = scores[:, :1]
    assert row_losses(one, labels, "regression") == pytest.approx(
        ((one[:, 0] - labels) ** 2).numpy()
    )


def test_balanced_classes_count_the_same() -> None:
    # 30 of one class, 3 of the other, nothing to tell them apart: balanced, the odds are even.
    data = MatrixBatches.of(np.zeros((33, 3), np.float32), np.repeat([0, 1], [30, 3]))
    training = replace(TRAINING, batch_size=33, local_steps=300, class_weights="balanced")
    result = train(nn.Linear(3, 1), data, training, head="binary", seed=0)
    assert result.parameters[-1] == pytest.approx(0.0, abs=0.02)


def test_balanced_weights_do_not_need_every_class() -> None:
    data = MatrixBatches.of(np.zeros((9, 3), np.float32), np.full(9, 2))
    training = replace(TRAINING, class_weights="balanced")
    result = train(nn.Linear(3, 4), data, training, head="multiclass", seed=0)
    assert np.isfinite(result.parameters).all()


@pytest.mark.parametrize("rows", [1, 2, 9, 17])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_batch_norm_survives_a_batch_of_one_row(rows: int, batch_size: int) -> None:
    training = replace(TRAINING, batch_size=batch_size, local_steps=7)
    result = train(model(batch_norm=True), examples(rows), training, head="binary", seed=0)
    assert np.isfinite(result.parameters).all()


def test_evaluation_neither_drops_out_nor_moves_running_statistics() -> None:
    module = model(batch_norm=True)
    before = flatten(module)
    data = examples()
    assert np.array_equal(predict(module, data), predict(module, data))
    assert mean_loss(module, data, "binary") == mean_loss(module, data, "binary")
    assert np.array_equal(flatten(module), before)


def test_training_that_diverges_tells_the_operator_what_to_lower() -> None:
    training = replace(TRAINING, learning_rate=1000.0, local_steps=50)
    with pytest.raises(ConfigError, match="learning_rate"):
        train(nn.Linear(3, 1), examples(), training, head="regression", seed=0)


def test_frozen_parameters_do_not_move() -> None:
    module = model()
    frozen = module[0].weight.requires_grad_(requires_grad=False)  # type: ignore[index]
    before = frozen.clone()
    train(module, examples(), TRAINING, head="binary", seed=0)
    assert torch.equal(frozen, before)


class Pictures:
    """A data set as a hospital writes it: (1, 4, 4) tensors."""

    def __init__(self, labels: list[object]) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, object]:
        return torch.full((1, 4, 4), float(index)), self.labels[index]


def test_an_own_data_sets_tensors_arrive_as_they_are() -> None:
    data = SetBatches(Pictures([0, torch.tensor(1), 1]), head="binary", classes=2)
    features, labels = data.batch(np.array([2, 0]))
    assert features.shape == (2, 1, 4, 4)
    assert features[0, 0, 0, 0] == 2
    assert labels.tolist() == [1, 0]


@pytest.mark.parametrize("label", [2, -1, 0.5, float("nan"), "ill", [0, 1]])
def test_a_label_that_is_no_class_is_refused_without_naming_it(label: object) -> None:
    with pytest.raises(ConfigError, match="label") as caught:
        SetBatches(Pictures([0, 1, label]), head="binary", classes=2)
    assert "ill" not in str(caught.value)
