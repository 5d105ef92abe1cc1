"""Every interleaving of a small federation with liars: no two final records for one slot.

The model: the author forks its log into two branches. Each honest member stores, in some order, one
branch (the other is then a second record for a slot, which it refuses), and acks what it stored.
A liar acks both, each to whom it likes. Final is what :mod:`ledger.finality` says it is.
"""

from collections.abc import Iterator
from itertools import product

import pytest
from ledger_factory import Federation

from ledger.finality import states_of
from ledger.roster import Roster

BRANCHES = ("A", "B")
Event = tuple[int, str]  # member stores and acks a branch


def final_branches(roster: Roster, acked: dict[str, frozenset[int]]) -> set[str]:
    """Judge each branch by the ledger's own rule; an author acks what it writes: both."""
    found = set()
    for branch in BRANCHES:
        row = dict.fromkeys(acked[branch] | {0}, 1)
        if states_of({(0, 0): row}, roster)[0, 0] == 1:
            found.add(branch)
    return found


def reachable(members: int, liars: frozenset[int]) -> Iterator[dict[str, frozenset[int]]]:
    """Walk every order in which branches reach members, and yield every state on the way.

    Author 0 is a liar: it wrote both branches.
    """
    start = (frozenset[int](), frozenset[int]())
    seen = {start}
    pending = [start]
    while pending:
        state = pending.pop()
        yield dict(zip(BRANCHES, state, strict=True))
        for member, branch in product(range(1, members), range(2)):
            other = state[1 - branch]
            if member in other and member not in liars:
                continue  # an honest member holds one record for a slot
            changed = list(state)
            changed[branch] = state[branch] | {member}
            after = (changed[0], changed[1])
            if after not in seen:
                seen.add(after)
                pending.append(after)


def conflicts(members: int, liars: frozenset[int]) -> int:
    roster = Federation(members).roster
    return sum(len(final_branches(roster, state)) == 2 for state in reachable(members, liars))


@pytest.mark.parametrize("members", [4, 5, 6, 7])
def test_no_two_conflicting_records_are_final_with_f_liars(members: int) -> None:
    tolerated = (members - 1) // 3
    assert conflicts(members, frozenset(range(tolerated))) == 0


@pytest.mark.parametrize("members", [4, 7])
def test_one_liar_more_than_f_breaks_it(members: int) -> None:
    """The bound is tight, and the model can see a conflict."""
    tolerated = (members - 1) // 3
    assert conflicts(members, frozenset(range(tolerated + 1))) > 0


def test_one_branch_does_become_final() -> None:
    roster = Federation(4).roster
    assert any(final_branches(roster, state) == {"A"} for state in reachable(4, frozenset({0})))


def test_with_n_4_and_f_1_there_is_no_conflict_and_with_2_liars_there_is() -> None:
    assert conflicts(4, frozenset({0})) == 0
    assert conflicts(4, frozenset({0, 1})) > 0
