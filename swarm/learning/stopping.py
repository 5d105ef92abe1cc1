"""Which round's model to release: the best agreed one by validation loss, with patience.

Room: learning. Pure: what METRICS records say goes in, a round comes out; nobody stops earlier. Loss
is averaged over the hospitals by their validation patients, so a large hospital counts for more.
Prechelt 1998, https://doi.org/10.1007/3-540-49430-8_3
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RoundLoss:
    """Validation loss of one round's agreed model. count: patients behind it."""

    loss: float
    count: int


def mean_loss(losses: Sequence[tuple[float, int]]) -> RoundLoss | None:
    """Sample-weighted mean of (loss, patients); None where nobody measured."""
    count = sum(patients for _, patients in losses)
    if count <= 0:
        return None
    return RoundLoss(loss=sum(loss * patients for loss, patients in losses) / count, count=count)


def released_round(losses: Mapping[int, RoundLoss], *, patience: int) -> int:
    """Return the round whose model is released: the last with patience 0, else the best so far.

    losses: round → loss, at least one. Rounds after ``patience`` rounds in a row without a new best
    are not looked at, as if training had stopped there. Of equals the earlier wins.
    Raises ValueError without any round.
    """
    if not losses:
        raise ValueError("no round was measured")
    numbers = sorted(losses)
    if patience == 0:
        return numbers[-1]
    best = numbers[0]
    for number in numbers[1:]:
        if losses[number].loss < losses[best].loss:
            best = number
        elif number - best >= patience:
            break
    return best
