"""One site's work in one round, as strategies and personalisation see it. Room: learning.

Imports no torch: whoever only merges, or audits a merge, needs strategies and never trains.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ledger.charter import Training
from swarm.learning.rows import Vector
from swarm.learning.training_state import Arrays, Keeper

if TYPE_CHECKING:
    from torch import Tensor, nn

    from swarm.learning.batches import Batches
    from swarm.learning.parameters import Layout


@dataclass(frozen=True, kw_only=True, eq=False)
class LocalSite:
    """A model, the site's own training rows, and how the charter has them trained.

    module: changed in place; whatever it holds beside the layout's tensors (what stays at home, what
    is frozen) is already there. layout: the tensors that travel, (d,) values. seed: of this round at
    this site: order of batches, dropout. class_weights: (classes,) for `class_weights = "federated"`.
    """

    module: nn.Module
    layout: Layout
    batches: Batches
    training: Training
    head: str
    seed: int
    keeper: Keeper | None = None
    class_weights: Tensor | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class LocalResult:
    """What a site's round came to.

    update: (u,) float32, what is sent. memory: what the site keeps for its next round and sends to
    nobody. Losses: mean over the site's training rows, unweighted, dropout off, before and after.
    """

    update: Vector
    steps: int
    samples: int
    loss_before: float
    loss_after: float
    memory: Arrays = field(default_factory=dict)
