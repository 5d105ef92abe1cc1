"""Which payloads a node needs no more. Knows no clock, no file. Spec: docs/wire.md §4.2.

Only what the ledger names, and names in old rounds only, is ever given up: of anything else nobody can
say here what it is for.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from swarm.protocol.book import RoundBook

KEEP_ROUNDS: Final = 2
"""Finished rounds whose payloads stay, unless a site says otherwise: for hospitals that are behind."""
MODELS_KEPT: Final = 2
"""Newest agreed models that stay whatever their rounds: newcomers ask for the last, and a fork for one more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """How far back payloads are kept.

    rounds: finished rounds before the open one; None: all, for auditors that recompute. Raise it if
    hospitals restart slowly. staleness_max: rounds for which a late update may still be merged.
    judged: rounds for which updates are still compared with newer ones.
    """

    rounds: int | None
    staleness_max: int = 0
    judged: int = 0

    def first_round(self, standing: int) -> int:
        """The oldest round of which everything is kept by a node that stands in round ``standing``."""
        if self.rounds is None:
            return 0
        return standing - max(self.rounds, self.staleness_max, self.judged)


def needless(
    book: RoundBook, keep: Keep, stored: Iterable[bytes], *, own: int, standing: int
) -> frozenset[bytes]:
    """Payloads among ``stored`` that no round, no peer and no newcomer will ask for.

    own: this node's index. standing: the round that it stands in.
    """
    first = keep.first_round(standing)
    mine = book.latest_model(own)
    pinned = newest_models(book) | ({mine[1]} if mine else set())
    named = {digest: book.newest_use_of(digest, until=standing + 1) for digest in stored}
    return frozenset(
        digest
        for digest, round_ in named.items()
        if round_ is not None and round_ < first and digest not in pinned
    )


def unnamed(book: RoundBook, stored: Iterable[bytes]) -> frozenset[bytes]:
    """Payloads that no record names: made just before a crash, and made again after it."""
    return frozenset(digest for digest in stored if book.newest_use_of(digest, until=0) is None)


def newest_models(book: RoundBook) -> frozenset[bytes]:
    """Results of the newest agreed rounds, and of the first: it may be the moments."""
    rounds = book.agreed_rounds()
    agreed = [book.agreed(round_) for round_ in {*rounds[-MODELS_KEPT:], *rounds[:1]}]
    return frozenset(one.proposal.result for one in agreed if one)
