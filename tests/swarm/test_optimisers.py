"""torch's functions under its optimiser classes: the same steps, without the compiler."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from ledger.charter import Training
from swarm.learning.optimisers import make_optimiser

TRAINING = Training(
    optimiser="sgd", learning_rate=0.1, weight_decay=0.01, momentum=0.9, batch_size=8,
    local_steps=1, local_epochs=0, class_weights="none", loss="auto",
)  # fmt: skip


def reference(kind: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if kind == "sgd":
        return torch.optim.SGD(parameters, lr=0.1, weight_decay=0.01, momentum=0.9)
    rule = torch.optim.Adam if kind == "adam" else torch.optim.AdamW
    return rule(parameters, lr=0.1, weight_decay=0.01)


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_ten_steps_are_those_of_torchs_own_class_bit_for_bit(kind: str) -> None:
    ours, theirs = (nn.Linear(5, 3), nn.Linear(5, 3))
    theirs.load_state_dict(ours.state_dict())
    mine = make_optimiser(list(ours.parameters()), replace(TRAINING, optimiser=kind))
    other = reference(kind, list(theirs.parameters()))
    for step in range(10):
        rows = torch.randn(8, 5, generator=torch.Generator().manual_seed(step))
        ours(rows).square().mean().backward()
        mine.step()
        other.zero_grad()
        theirs(rows).square().mean().backward()
        other.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


def test_frozen_and_unreached_parameters_stay_as_they_are() -> None:
    layers = nn.ModuleList([nn.Linear(2, 1), nn.Linear(2, 1), nn.Linear(2, 1)])
    layers[0].requires_grad_(False)
    before = [parameter.detach().clone() for parameter in layers.parameters()]
    optimiser = make_optimiser(list(layers.parameters()), TRAINING)
    (layers[0](torch.ones(4, 2)) + layers[1](torch.ones(4, 2))).mean().backward()
    optimiser.step()
    moved = [not torch.equal(a, b) for a, b in zip(before, layers.parameters(), strict=True)]
    assert moved == [False, False, True, True, False, False]


def test_training_never_loads_torchs_compiler() -> None:
    program = (
        "import sys, torch; from torch import nn\n"
        "from tests.swarm.test_optimisers import TRAINING, make_optimiser\n"
        "layer = nn.Linear(2, 1); optimiser = make_optimiser(list(layer.parameters()), TRAINING)\n"
        "layer(torch.ones(1, 2)).sum().backward(); optimiser.step()\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
