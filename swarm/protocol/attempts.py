"""Round zero votes until it agrees. Pure functions over votes. Spec: docs/wire.md §5.7, ADR 0014.

Every other round may end provisional; round zero's moments all must share. So a vote that is split is
taken again, and the rule below keeps two attempts from agreeing on different things. It needs no
coordinator and no clock: the votes of an attempt say what may be voted for in the next.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim(Generic[Value]):
    """What one electorate (the members of some roster) may have made of a value in one attempt.

    value: None for one that nobody here has seen. unseen: votes that others may have and are not here.
    is_barred: nobody can vote for it again.
    """

    value: Value | None
    votes: int
    unseen: int
    quorum: int
    is_barred: bool = False

    @property
    def may_have_won(self) -> bool:
        """Whether it would have a quorum if the votes that are missing here went to it."""
        return self.votes + self.unseen >= self.quorum


@dataclass(frozen=True, slots=True)
class Next(Generic[Value]):
    """What the votes of one attempt allow in the next.

    ready: whether they are enough to go on; bound: what alone may be voted for then, or None for
    anything.
    """

    ready: bool
    bound: Value | None = None


def next_vote(claims: Iterable[Claim[Value]]) -> Next[Value]:
    """Return what may be voted for after an attempt of which this may have become.

    Whoever goes on votes for the one value that may have won, in whichever electorate. While there are
    two such values, or it may be one that nobody here has seen or that nobody can vote for again, more
    votes must come first: all votes of the members that are not lost are always enough.
    """
    possible: set[Value] = set()
    for claim in claims:
        if claim.may_have_won:
            if claim.value is None or claim.is_barred:
                return Next(ready=False)
            possible.add(claim.value)
    if len(possible) > 1:
        return Next(ready=False)
    return Next(ready=True, bound=possible.pop() if possible else None)
