"""A small network with a straight path: never worse than a line, bent where the data ask for it."""

from torch import Tensor, nn


class WoundNet(nn.Module):
    """Linear scores plus a gated hidden layer.

    The node passes ``inputs`` (columns after one-hot and missing indicators) and ``outputs`` (1 for
    two classes); ``width`` and ``dropout`` come from the charter's [model.arguments].
    """

    def __init__(self, inputs: int, outputs: int, width: int = 16, dropout: float = 0.1) -> None:
        super().__init__()
        self.line = nn.Linear(inputs, outputs)
        self.bend = nn.Sequential(
            nn.Linear(inputs, 2 * width),
            nn.GLU(),
            nn.LayerNorm(width),
            nn.Dropout(dropout),
            nn.Linear(width, outputs),
        )
        nn.init.zeros_(
            self.line.weight
        )  # start as an undecided model: every site's first loss is fair
        nn.init.zeros_(self.line.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(n, inputs) → (n, outputs) logits."""
        scores: Tensor = self.line(features) + self.bend(features)
        return scores
