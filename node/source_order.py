"""Whom to ask for a payload, and whom not again so soon. Room: node. Time and randomness are arguments."""

from collections.abc import Collection, Mapping
from random import Random
from typing import Final, final

RETRY_MIN_S: Final = 0.1
RETRY_MAX_S: Final = 5.0
RETRY_FACTOR: Final = 1.5


@final
class SourceOrder:
    """The peers that one payload can come from: who is asked first, who rests, who is distrusted."""

    def __init__(
        self, first: Collection[int], corrupted: Mapping[int, int], *, random: Random
    ) -> None:
        """first: who presumably has it. corrupted: peer → wrong answers so far, to any fetch."""
        self._first = first
        self._corrupted = corrupted
        self._random = random
        self._distrusted: set[int] = set()
        self._not_before_s: dict[int, float] = {}
        self._rests_s: dict[int, float] = {}

    def able(self, peers: frozenset[int], now_s: float) -> list[int]:
        """Whom of ``peers`` to ask now, best first.

        In any order otherwise, so that one that stalls is not first every time.
        """
        order = sorted(peers - self._distrusted)
        self._random.shuffle(order)
        order.sort(key=lambda peer: (self._corrupted.get(peer, 0) > 0, peer not in self._first))
        return [peer for peer in order if self._not_before_s.get(peer, now_s) <= now_s]

    def wake_s(self, peers: frozenset[int], now_s: float) -> float:
        """When the first of ``peers`` that rests now has rested."""
        waits = [self._not_before_s.get(peer, now_s) for peer in peers - self._distrusted]
        return min((wait for wait in waits if wait > now_s), default=float("inf"))

    def rest(self, peer: int, now_s: float, *, least_s: float = RETRY_MIN_S) -> None:
        """Ask ``peer`` again only after a while, which grows as long as nothing comes from it."""
        rest_s = max(self._rests_s.get(peer, RETRY_MIN_S), least_s)
        self._rests_s[peer] = min(rest_s * RETRY_FACTOR, RETRY_MAX_S)
        self._not_before_s[peer] = now_s + rest_s * self._random.uniform(0.75, 1.25)

    def brought(self, peer: int) -> None:
        """Something came from ``peer``: its rests are short again."""
        self._rests_s.pop(peer, None)

    def distrust(self, peer: int) -> None:
        """Ask ``peer`` no more, unless nobody else is left."""
        self._distrusted.add(peer)

    def forgive(self, connected: frozenset[int], now_s: float) -> None:
        """If nobody else is left, everybody gets another chance after the longest rest."""
        if connected and self._distrusted >= connected:
            for peer in sorted(connected):
                self.rest(peer, now_s, least_s=RETRY_MAX_S)
            self._distrusted.clear()
