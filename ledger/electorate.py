"""Whose equal votes agree a round, also after members have gone. Room: ledger. Spec: docs/wire.md §5.1.

Pure functions of a roster and of what votes name, so that nodes and auditors count alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .roster import Roster, quorum, tolerated

NOBODY: Final[frozenset[int]] = frozenset()


def is_quorum(
    roster: Roster,
    named: Mapping[int, int],
    *,
    proven: frozenset[int] = NOBODY,
    after_removals: bool = True,
) -> bool:
    """Tell whether equal votes are a quorum's.

    named: author → the roster version that its vote names. Votes count together whose rosters had the
    same members. proven: members whose logs fork now; they stand by whatever the others vote for, if
    they are no more than are tolerated. after_removals: votes also count together whose rosters have the
    same members *left*, with the quorum of so many: what a removal cuts away opens no round again.
    """
    now = roster.active_at(roster.version)
    whole = {version: roster.active_at(version) for version in set(named.values())}
    if any(_reaches(named, whole, members, proven) for members in set(whole.values())):
        return True
    left = {version: members & now for version, members in whole.items()}
    return (
        after_removals
        and left != whole
        and any(
            _is_safe(members, left, whole) and _reaches(named, left, members, proven)
            for members in set(left.values())
        )
    )


def _reaches(
    named: Mapping[int, int],
    electorates: Mapping[int, frozenset[int]],
    members: frozenset[int],
    proven: frozenset[int],
) -> bool:
    voters = {a for a, v in named.items() if a in members and electorates[v] == members}
    gone = proven & members
    if len(gone) <= tolerated(len(members)):
        voters |= gone
    return len(voters) >= quorum(len(members))


def _is_safe(
    members: frozenset[int],
    left: Mapping[int, frozenset[int]],
    whole: Mapping[int, frozenset[int]],
) -> bool:
    """Whether a quorum of those left shares an honest member with every quorum from before they went."""
    before = max(len(whole[version]) for version, those in left.items() if those == members)
    return quorum(len(members)) + quorum(before) - before > tolerated(len(members))
