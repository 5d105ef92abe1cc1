"""Who evaluates a round where not everybody can, and what a round's seed is. Room: ledger.

Spec: docs/reputation.md §2.5 and §12.1. Pure functions of a set of records, so that nodes and
auditors name the same members.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Protocol

from .bodies import Aggregation, Input, Rule
from .electorate import is_quorum
from .record import Record, RecordId
from .roster import Roster
from .sketch import seed_of


class Checked(Protocol):
    """A record that has been verified."""

    @property
    def value(self) -> Record:
        """The record."""


def agreed_inputs(ordered: Iterable[Checked], roster: Roster) -> dict[int, tuple[RecordId, ...]]:
    """Return the input ids of every agreed round above 0: what q members voted for, bit for bit equal.

    ordered: by (author, epoch, seq); a member's first AGGREGATION of a round is its vote. Which votes
    count together: electorate.py. ``after_removals=False``: what was not agreed under the rosters that the
    votes name becomes so under none of the reader's, or replays of the same records would differ.
    """
    votes: defaultdict[int, dict[int, tuple[int, Aggregation]]] = defaultdict(dict)
    for one in ordered:
        body = one.value.body
        if isinstance(body, Aggregation) and body.rule != Rule.MOMENTS:
            votes[one.value.round].setdefault(one.value.author, (one.value.roster, body))
    agreed = {}
    for round_, by_author in votes.items():
        equal: defaultdict[tuple[int, tuple[Input, ...], bytes], dict[int, int]] = defaultdict(dict)
        for author, (version, body) in sorted(by_author.items()):
            equal[body.rule, body.inputs, body.result_digest][author] = version
        for (_, inputs, _), named in equal.items():
            if is_quorum(roster, named, after_removals=False):
                agreed[round_] = tuple(sorted(one.id for one in inputs))
    return agreed


def seed_of_round(net: bytes, round_: int, inputs: Collection[RecordId] | None) -> bytes:
    """Return the seed that a round's evaluators are drawn with; ``inputs`` None: it is not agreed."""
    return seed_of(net, round_, inputs or ())


def evaluators(seed: bytes, members: Collection[int], most: int) -> frozenset[int]:
    """Return who evaluates: everybody, or ``most`` members by ascending SHA-256(seed ‖ u16be(member))."""
    if len(members) <= most:
        return frozenset(members)
    drawn = sorted(members, key=lambda one: hashlib.sha256(seed + one.to_bytes(2, "big")).digest())
    return frozenset(drawn[:most])
