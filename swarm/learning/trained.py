"""What one round's training hands over. Room: learning. Knows no torch, so a node starts without it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A round's contribution: full parameters after the local steps, and what the record says."""

    payload: bytes
    samples: int
    steps: int
    norm_micro: int
    loss_micro: int
