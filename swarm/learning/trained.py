"""What one round's training hands over. Room: learning. Knows no torch, so a node starts without it."""

from dataclasses import dataclass, field

from swarm.learning.training_state import Arrays


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A round's contribution, what the record says about it, and what the site must remember.

    memory: named arrays for the next training, which nobody else ever sees.
    """

    payload: bytes
    samples: int
    steps: int
    norm_micro: int
    loss_micro: int
    memory: Arrays = field(default_factory=dict, compare=False)
