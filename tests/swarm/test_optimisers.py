from dataclasses import replace

import pytest
import torch
from torch import nn

from swarm.learning.optimisers import make_optimiser
from tests.learning import make_charter

TRAINING = make_charter(training="learning_rate = 0.05\nlocal_steps = 1").training
CLASSES = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


class Branches(nn.Module):
    """The second layer is reached every other step; the third is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 1) for _ in range(3))
        self.layers[2].requires_grad_(requires_grad=False)

    def forward(self, x: torch.Tensor, step: int) -> torch.Tensor:
        used = self.layers if step % 2 else [self.layers[0], self.layers[2]]
        return torch.stack([layer(x) for layer in used]).sum(dim=0)


@pytest.mark.parametrize("name", list(CLASSES))
@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.01)])
def test_the_update_rules_are_torchs_own_to_the_bit(
    name: str, momentum: float, weight_decay: float
) -> None:
    training = replace(TRAINING, optimiser=name, momentum=momentum, weight_decay=weight_decay)
    ours, theirs = Branches(), Branches()
    theirs.load_state_dict(ours.state_dict())
    step_ours = make_optimiser(list(ours.parameters()), training)
    extra = {"momentum": momentum} if name == "sgd" else {}
    step_theirs = CLASSES[name](
        [p for p in theirs.parameters() if p.requires_grad],
        lr=training.learning_rate,
        weight_decay=weight_decay,
        foreach=False,
        **extra,
    )
    for step in range(12):
        x = torch.randn(8, 3)
        ours(x, step).square().mean().backward()
        step_ours.step()
        step_theirs.zero_grad()
        theirs(x, step).square().mean().backward()
        step_theirs.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)
