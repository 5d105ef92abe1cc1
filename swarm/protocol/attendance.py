"""Whom a round waits for, and how long: nobody is waited for in vain for ever. Spec: docs/wire.md §5.4.

Three things end the waiting for a member: its time is up (deadline.py), it has been silent for too many
rounds, or what it offered cannot be fetched. Each heals by itself: a contribution brings it back.
Holds what this process has seen; a restart forgets it, which costs one more wait each.
"""

from collections.abc import Callable
from typing import Final, final

from ledger.charter import RoundPolicy
from swarm.protocol.book import Offer, RoundBook
from swarm.protocol.deadline import AdaptiveDeadline

STARTS_REMEMBERED: Final = 64
"""Rounds whose beginning is remembered, to measure who came late for them."""


@final
class Attendance:
    """One node's experience with the others."""

    def __init__(self, book: RoundBook, policy: RoundPolicy, *, first_round: int) -> None:
        self._book = book
        self._policy = policy
        self._first_round = first_round
        self._deadline = AdaptiveDeadline(policy)
        self._started_s: dict[int, float] = {}
        self._measured: dict[int, int] = {}
        """author → newest round of a contribution that was measured"""
        self._heard: dict[int, int] = {}
        """author → the round here when its newest contribution came"""
        self._given_up: set[int] = set()
        """Members whose last offer did not come in time, and has not come since."""

    def begin(self, round_: int, *, now_s: float) -> None:
        """A round begins here."""
        self._started_s[round_] = now_s
        if len(self._started_s) > STARTS_REMEMBERED:
            del self._started_s[min(self._started_s)]
        self._deadline.begin_round()

    def started_s(self, round_: int) -> float:
        """When a round began here."""
        return self._started_s[round_]

    def due_s(self, author: int, round_: int) -> float:
        """Until when ``author`` is waited for in a round that has begun here."""
        return self._started_s[round_] + self._deadline.wait_s(author)

    def heard(self, author: int, *, round_: int) -> None:
        """``author`` has contributed, for whichever round, while ``round_`` ran here: it is back."""
        self._heard[author] = round_

    def measure(self, offer: Offer, *, now_s: float) -> None:
        """A contribution is held here (or is past use): remember how long its author took.

        Not for round zero: summing up says nothing about how long training takes.
        """
        if offer.round > max(self._measured.get(offer.author, 0), 0):
            self._measured[offer.author] = offer.round
            if self._started_s:
                oldest = min(self._started_s)
                since_s = self._started_s.get(offer.round)
                if since_s is None and offer.round < oldest:
                    since_s = self._started_s[oldest]
                if since_s is not None:
                    self._deadline.observe(offer.author, now_s - since_s)

    def give_up(self, author: int) -> None:
        """A round closed without what ``author`` has offered, since it did not come."""
        self._given_up.add(author)

    def has_given_up(self, author: int) -> bool:
        """Whether ``author`` is not waited for, since what it offered last did not come."""
        return author in self._given_up

    def served(self, author: int) -> None:
        """Something that ``author`` has offered is here."""
        self._given_up.discard(author)

    def active(self, round_: int) -> frozenset[int]:
        """Members who take part: open, and heard from in the last rounds, theirs or ours."""
        here = self._book.active(
            round_,
            inactive_after=self._policy.inactive_after_rounds,
            first_round=self._first_round,
        )
        back = {
            author
            for author, heard in self._heard.items()
            if heard >= round_ - self._policy.inactive_after_rounds
        }
        return here | (back & self._book.here())

    def reliable(self, round_: int) -> frozenset[int]:
        """Active members whose turn to propose is waited for."""
        return self.active(round_) - self._given_up

    def awaited(
        self,
        round_: int,
        settled: frozenset[int],
        passed: Callable[[float], bool],
        *,
        download_stretch: int = 1,
    ) -> frozenset[int]:
        """Active members whose contribution may still come and is waited for.

        settled: whose contribution is held, refused or served by nobody. passed: whether a moment has
        come. download_stretch: how many times longer a contribution is waited for that has been
        offered and is coming in.
        """
        started_s, offers = self._started_s[round_], self._book.offers(round_)
        return frozenset(
            author
            for author in self.active(round_) - settled - self._given_up
            if (author in offers or not self._book.has_passed(author, round_))
            and not passed(
                started_s
                + self._deadline.wait_s(author) * (download_stretch if author in offers else 1)
            )
        )
