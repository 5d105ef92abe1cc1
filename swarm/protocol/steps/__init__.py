"""One function a phase: what happened, or which work is wanted. Spec: docs/wire.md §5.2, §5.8.

A step looks at the node's position and at the time; it performs nothing. What its event leads to stands
in `phases.py`.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from swarm.protocol.phases import Phase
from swarm.protocol.position import Position, Step
from swarm.protocol.steps import catching_up, collecting, joining, leaving, mixing, training, voting

StepFunction: TypeAlias = Callable[[Position, float], Step]

AGREEING: Final[Mapping[Phase, StepFunction]] = MappingProxyType({
    Phase.JOIN: joining.join,
    Phase.TRAIN: training.train,
    Phase.COLLECT: collecting.collect,
    Phase.AGREE: voting.agree,
    Phase.SETTLE: voting.settle,
    Phase.CATCH_UP: catching_up.catch_up,
    Phase.EVALUATE: catching_up.evaluate,
    Phase.LINGER: leaving.linger,
    Phase.DONE: leaving.done,
})  # fmt: skip
"""Every round, where a quorum agrees; round zero everywhere."""
MIXING: Final[Mapping[Phase, StepFunction]] = MappingProxyType({
    **AGREEING,
    Phase.COLLECT: mixing.collect,
    Phase.AGREE: mixing.merge,
    Phase.SETTLE: mixing.settle,
})  # fmt: skip
"""Rounds above zero, where everybody averages with neighbours."""


def step(at: Position, now_s: float) -> Step:
    """Take the step of the phase that a node is in."""
    steps = AGREEING if at.mixes() is None else MIXING
    return steps[at.phase](at, now_s)
