"""Step 12 in `gossip` mode: who may be an input of whose merge, and what it weighs. Room: ledger.

Spec: docs/ledger.md §7. Pure functions of the charter, the roster and the record that is judged, so
that an auditor needs nothing that a node only knew at the time.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, final

from .errors import VerificationError
from .roster import Roster
from .topology import Topology

ROSTERS_REMEMBERED: Final = 16


@final
class GossipAudit:
    """The graph of a federation, as every version of its roster spans it."""

    def __init__(self, topology: Topology, roster: Roster) -> None:
        self._topology = topology
        self._members = lru_cache(maxsize=ROSTERS_REMEMBERED)(
            lambda version: tuple(sorted(roster.active_at(version)))
        )

    def mixing(
        self, author: int, round_: int, version: int, inputs: list[int], *, has_own: bool
    ) -> list[int]:
        """Return what the graph gives each input of ``author``, in millionths. E_AGG_INPUT.

        inputs: their authors. has_own: whether the author's own contribution of this round is among
        them. version: of the roster that the record names.
        """
        members = self._members(version)
        if author not in members:
            raise VerificationError("E_AGG_INPUT", f"author {author} is not in roster {version}")
        weights = dict(self._topology.mixing_micro(members, author, round_))
        for one in inputs:
            if one not in weights:
                raise VerificationError(
                    "E_AGG_INPUT",
                    f"author {one} is no neighbour of author {author} in round {round_}",
                    expected="of " + ", ".join(map(str, sorted(weights))),
                )
        if not has_own:
            raise VerificationError(
                "E_AGG_INPUT", f"the own contribution of round {round_} is no input"
            )
        return [weights[one] for one in inputs]
