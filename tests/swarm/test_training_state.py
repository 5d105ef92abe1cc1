"""A training that is broken off after any step goes on to the same bits."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ledger.charter import Training
from swarm.learning.batches import MatrixBatches
from swarm.learning.task import LearningTask
from swarm.learning.training import TrainResult
from swarm.learning.training_state import StateError, TrainingState, restore
from tests.learning import make_charter, make_site
from tests.swarm.local_sites import train

STEPS = 9


class Fickle(nn.Module):
    """All that may hide in a model: dropout, running statistics, a tied weight, a private buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)
        self.second, self.third = nn.Linear(4, 4), nn.Linear(4, 4)
        self.third.weight = self.second.weight
        self.last = nn.Linear(4, 1)
        self.seldom = nn.Linear(4, 1)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.calls += 1
        hidden = nn.functional.dropout(torch.relu(self.norm(self.first(x))), 0.3, self.training)
        hidden = self.third(torch.relu(self.second(hidden)))
        # Reached in some steps only: its optimiser state begins later than the others'.
        extra = self.seldom(hidden) if int(self.calls) % 3 == 2 else 0.0
        return self.last(hidden) + extra


class Notes:
    """Keeps every state, and resumes from the one that it was given."""

    def __init__(self, start: TrainingState | None = None) -> None:
        self.start = start
        self.states: list[TrainingState] = []
        self.discarded = False

    def resume(self) -> TrainingState | None:
        return self.start

    def after_step(self, capture: Callable[[], TrainingState]) -> None:
        state = capture()
        tensors = {name: array.copy() for name, array in state.tensors.items()}
        self.states.append(replace(state, tensors=tensors))

    def discard(self) -> None:
        self.start, self.discarded = None, True


def run(training: Training, notes: Notes | None) -> TrainResult:
    generator = np.random.default_rng(1)
    features = generator.normal(size=(29, 3)).astype(np.float32)
    data = MatrixBatches.of(features, (features.sum(axis=1) > 0).astype(np.int64))
    torch.manual_seed(2)
    module = Fickle()
    return train(module, data, training, head="binary", seed=3, keeper=notes)


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_from_the_state_after_any_step_training_ends_in_the_same_bits(
    optimiser: str, momentum: float
) -> None:
    charter = make_charter(training=f"learning_rate = 0.1\nbatch_size = 8\nlocal_steps = {STEPS}")
    training = replace(charter.training, optimiser=optimiser, momentum=momentum)
    whole, notes = run(training, None), Notes()
    watched = run(training, notes)
    assert watched.parameters.tobytes() == whole.parameters.tobytes(), "watching changes nothing"
    assert len(notes.states) == STEPS
    for step, state in enumerate(notes.states, start=1):
        rest = Notes(state)
        resumed = run(training, rest)
        assert len(rest.states) == STEPS - step
        assert resumed.parameters.tobytes() == whole.parameters.tobytes(), f"after step {step}"
        assert (resumed.steps, resumed.loss_before, resumed.loss_after) == (
            whole.steps,
            whole.loss_before,
            whole.loss_after,
        )


@pytest.mark.parametrize("what", ["shape", "type", "absent", "surplus", "stranger"])
def test_a_state_of_something_else_is_refused(what: str) -> None:
    charter = make_charter(training="learning_rate = 0.1\nbatch_size = 8\nlocal_steps = 3")
    training = replace(charter.training, optimiser="adam")
    notes = Notes()
    run(training, notes)
    tensors = dict(notes.states[0].tensors)
    name = "optimiser.mean.0"
    match what:
        case "shape":
            tensors[name] = tensors[name][:1]
        case "type":
            tensors[name] = tensors[name].astype(np.float64)
        case "absent":
            del tensors[name]
        case "surplus":
            tensors["module.more"] = tensors[name]
        case "stranger":
            tensors["residual.0"] = tensors[name]
    with pytest.raises(StateError):
        run(training, Notes(replace(notes.states[0], tensors=tensors)))


def test_a_part_that_comes_later_keeps_its_arrays_in_the_same_state() -> None:
    """What error feedback and privacy accounting will be: one more part."""

    class Residual:
        def __init__(self) -> None:
            self.values = np.arange(3.0)

        def state(self) -> dict[str, np.ndarray]:
            return {"values": self.values}

        def restore(self, tensors: dict[str, np.ndarray]) -> None:
            self.values = tensors["values"]

    part = Residual()
    restore({"residual": part}, TrainingState(tensors={"residual.values": np.ones(3)}))
    assert part.values.tolist() == [1, 1, 1]


def test_a_task_with_a_state_of_another_model_trains_anew_and_says_the_same() -> None:
    charter = make_charter()
    task = LearningTask(charter, make_site(1), allow=(), seed=5, threads=1)
    task.set_moments(task.local_moments())
    whole, notes = task.train(task.initial(), 1), Notes()
    assert task.train(task.initial(), 1, keeper=notes) == whole
    middle = notes.states[4]
    assert task.train(task.initial(), 1, keeper=Notes(middle)) == whole
    tensors = dict(middle.tensors)
    tensors.popitem()
    stale = Notes(replace(middle, tensors=tensors))
    assert task.train(task.initial(), 1, keeper=stale) == whole
    assert stale.discarded
