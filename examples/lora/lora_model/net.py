"""Three linear layers as somebody trained them, each with a low-rank adapter beside it.

Hu et al. 2022, LoRA, https://arxiv.org/abs/2106.09685
"""

import itertools
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

BASE = Path(__file__).with_name("base.safetensors")
WIDTHS = (64, 256, 256, 10)


class Lora(nn.Module):
    """y = W x + b + up(down(x)): rank · (inputs + outputs) values learn, inputs · outputs rest.

    `up` starts at zero, so at first the layer is the one that it adapts.
    """

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs)
        self.lora_down = nn.Parameter(torch.randn(rank, inputs) / inputs**0.5)
        self.lora_up = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs) → (n, outputs)."""
        scores: Tensor = self.base(x) + x @ self.lora_down.T @ self.lora_up.T
        return scores


class AdaptedNet(nn.Module):
    """Reads 8 x 8 digits; the base layers come from the file that `pretrain.py` writes."""

    def __init__(self, rank: int = 4, pretrained: bool = True) -> None:  # noqa: FBT001, FBT002 - the charter passes names
        super().__init__()
        self.layers = nn.ModuleList(
            Lora(inputs, outputs, rank) for inputs, outputs in itertools.pairwise(WIDTHS)
        )
        if pretrained:
            self.load_state_dict(load_file(BASE), strict=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 64) → (n, 10) logits."""
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        scores: Tensor = self.layers[-1](x)
        return scores
