"""Where a node stands in its round, and every move that it can make. Pure data. Spec: docs/wire.md §5.3."""

from enum import IntEnum, auto
from typing import Final


class Phase(IntEnum):
    """Where a node stands in its round."""

    JOIN = 0
    TRAIN = 1
    COLLECT = 2
    AGREE = 3
    SETTLE = 4
    CATCH_UP = 5
    EVALUATE = 6
    LINGER = 7
    DONE = 8


class Event(IntEnum):
    """Why a node moves from one phase to the next."""

    STARTED = auto()
    CONTRIBUTED = auto()
    CLOSED = auto()
    VOTED = auto()
    SPLIT = auto()
    SETTLED = auto()
    OVERTAKEN = auto()
    OUTRUN = auto()
    HELD = auto()
    EVALUATED = auto()
    FINISHED = auto()
    LEFT = auto()


TRANSITIONS: Final[dict[tuple[Phase, Event], Phase]] = {
    (Phase.JOIN, Event.STARTED): Phase.TRAIN,
    (Phase.JOIN, Event.OVERTAKEN): Phase.CATCH_UP,
    (Phase.JOIN, Event.FINISHED): Phase.LINGER,
    (Phase.TRAIN, Event.CONTRIBUTED): Phase.COLLECT,
    (Phase.TRAIN, Event.OVERTAKEN): Phase.CATCH_UP,
    (Phase.COLLECT, Event.CLOSED): Phase.AGREE,
    (Phase.COLLECT, Event.OVERTAKEN): Phase.CATCH_UP,
    (Phase.COLLECT, Event.OUTRUN): Phase.TRAIN,
    (Phase.COLLECT, Event.FINISHED): Phase.LINGER,
    (Phase.AGREE, Event.VOTED): Phase.SETTLE,
    (Phase.AGREE, Event.OVERTAKEN): Phase.CATCH_UP,
    (Phase.SETTLE, Event.SPLIT): Phase.AGREE,
    (Phase.SETTLE, Event.SETTLED): Phase.EVALUATE,
    (Phase.SETTLE, Event.OVERTAKEN): Phase.CATCH_UP,
    (Phase.CATCH_UP, Event.HELD): Phase.EVALUATE,
    (Phase.CATCH_UP, Event.OVERTAKEN): Phase.CATCH_UP,
    (Phase.EVALUATE, Event.EVALUATED): Phase.TRAIN,
    (Phase.EVALUATE, Event.OVERTAKEN): Phase.CATCH_UP,
    (Phase.EVALUATE, Event.FINISHED): Phase.LINGER,
    (Phase.LINGER, Event.LEFT): Phase.DONE,
}
"""Every move a node can make; whatever is not here cannot happen. A test walks all pairs."""
