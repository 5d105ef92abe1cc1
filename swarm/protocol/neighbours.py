"""Averaging with neighbours: who they are in a round, and how long they are waited for.

Knows no clock, no socket, no tensor. Spec: docs/wire.md §5.8. Nobody is waited for long: a neighbour that
needs longer than a grace is merged as old as it is, and one that did not come is passed over until it
is heard again. Holds what this process has seen; a restart forgets it.
"""

from collections import deque
from collections.abc import Callable, Collection
from functools import lru_cache
from statistics import median
from typing import Final, final

from ledger.charter import RoundPolicy
from ledger.topology import Topology
from swarm.protocol.book import RoundBook

INTERVALS_REMEMBERED: Final = 3
ROUNDS_REMEMBERED: Final = 256


@final
class Neighbours:
    """One node's neighbours, by the charter's graph over the members of its roster."""

    def __init__(
        self, topology: Topology, book: RoundBook, policy: RoundPolicy, *, own: int
    ) -> None:
        self._book = book
        self._policy = policy
        self._members = tuple(sorted(member.index for member in book.roster.active))
        self._senders = lru_cache(maxsize=ROUNDS_REMEMBERED)(
            lambda round_: frozenset(topology.senders(self._members, own, round_))
        )
        self._topology = topology
        self._own = own
        self._came_s: dict[int, float] = {}
        """author → when its newest contribution came"""
        self._intervals_s: dict[int, deque[float]] = {}
        self._passed_over: dict[int, int] = {}
        """author → newest round that it had offered when it was waited for in vain"""

    def of(self, round_: int) -> frozenset[int]:
        """Whose contributions this node merges with its own in ``round_``."""
        return self._senders(round_)

    def mixing_micro(self, round_: int) -> dict[int, int]:
        """What the graph gives this node and each neighbour, in millionths."""
        return dict(self._topology.mixing_micro(self._members, self._own, round_))

    def inputs_min(self, round_: int) -> int:
        """Fewest inputs of a merge, the own one among them: less than that is no federation."""
        return min(self._policy.members_min, 1 + len(self.of(round_)))

    def coming(self, round_: int, have: Collection[int]) -> frozenset[int]:
        """Neighbours whose contribution to ``round_`` is not among ``have`` and may still come."""
        return frozenset(
            author
            for author in (self.of(round_) & self._book.here()).difference(have)
            if self._passed_over.get(author) != self._book.last_offer_round(author)
        )

    def is_reached_by_others(self, round_: int) -> bool:
        """Whether more than f others have come to ``round_``, so an honest one: this node is not cut off."""
        others = set(self._members) - {self._own}
        there = sum(self._book.last_offer_round(author) >= round_ for author in others)
        return there > self._book.roster.f

    def heard(self, author: int, *, now_s: float) -> None:
        """A contribution of ``author`` has come, for whichever round."""
        before_s = self._came_s.get(author)
        if before_s is not None:
            intervals_s = self._intervals_s.setdefault(author, deque(maxlen=INTERVALS_REMEMBERED))
            intervals_s.append(now_s - before_s)
        self._came_s[author] = now_s

    def awaited(
        self,
        round_: int,
        settled: Collection[int],
        *,
        since_s: float,
        passed: Callable[[float], bool],
        due_s: Callable[[int], float],
    ) -> frozenset[int]:
        """Neighbours whose contribution to ``round_`` is worth waiting for.

        settled: whose is held, refused or served by nobody. since_s: when the own one was ready.
        due_s: until when a download of somebody's contribution is waited for. passed: whether a
        moment has come.
        """
        patience_s = since_s + self._policy.grace_s
        offers = self._book.offers(round_)
        awaited = set()
        for author in self.of(round_) & self._book.here():
            newest = self._book.last_offer_round(author)
            if author in settled or self._passed_over.get(author) == newest:
                continue
            if author in offers:  # on its way
                is_awaited = not passed(max(patience_s, due_s(author)))
            else:
                is_awaited = (
                    newest < round_
                    and self._expected_s(author) <= patience_s
                    and not passed(patience_s)
                )
            if is_awaited:
                awaited.add(author)
        return frozenset(awaited)

    def merged(self, round_: int, held: Collection[int]) -> None:
        """A round closes: who is not among ``held`` with an offer of it is passed over."""
        for author in self.of(round_) - set(held):
            self._passed_over[author] = self._book.last_offer_round(author)

    def sources(self) -> tuple[tuple[int, bytes], ...]:
        """Newest models of neighbours, as (publisher, digest), newest first: what a newcomer starts from."""
        found = []
        for author in self._members:
            newest = self._book.latest_model(author)
            if author != self._own and newest is not None:
                near = author in self.of(newest[0])
                found.append((not near, -newest[0], author, newest[1]))
        return tuple((author, digest) for _, _, author, digest in sorted(found))

    def _expected_s(self, author: int) -> float:
        """When the next contribution of ``author`` will come, by the pace of its last ones."""
        intervals_s = self._intervals_s.get(author)
        return self._came_s[author] + median(intervals_s) if intervals_s else 0.0
