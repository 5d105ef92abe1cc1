"""Round zero votes until it agrees. Pure functions over votes. Spec: docs/wire.md §5.7, ADR 0014.

Every other round may end provisional; round zero's moments all must share. So a vote that is split is
taken again, and the rule below keeps two attempts from agreeing on different things. It needs no
coordinator and no clock: the votes of an attempt say what may be voted for in the next.
"""

from collections import Counter
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Next(Generic[Value]):
    """What the votes of one attempt allow in the next.

    ready: whether they are enough to go on; bound: what alone may be voted for then, or None for
    anything.
    """

    ready: bool
    bound: Value | None = None


def next_vote(
    votes: Mapping[int, Value], *, members: int, quorum: int, lapsed: Collection[Value] = ()
) -> Next[Value]:
    """Return what may be voted for after an attempt with these votes (author → value, one each).

    A value may have won although nobody here has seen it: if the votes that are missing here went to
    it, it would have a quorum. Whoever goes on votes for the one value that may have won. While there
    are two such values, or it may be one that nobody here has seen, more votes must come first: all
    votes of the members that are not lost are always enough.

    lapsed: values that cannot have won nor be voted for again, although votes for them are here.
    """
    unseen = members - len(votes)
    if unseen >= quorum:
        return Next(ready=False)
    possible = [
        value
        for value, count in Counter(votes.values()).items()
        if value not in lapsed and count + unseen >= quorum
    ]
    if len(possible) > 1:
        return Next(ready=False)
    return Next(ready=True, bound=possible[0] if possible else None)
