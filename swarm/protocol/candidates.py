"""Which contributions may be inputs of a round, late ones too, and why others are not. Spec: docs/wire.md §5.6.

A contribution that missed its own round may join a later one, once: what an agreed result or an own
vote has named is spent. Knows no clock, no socket, no tensor.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final, final

from ledger.charter import AggregationPolicy, RoundPolicy
from ledger.record import Reason
from ledger.rules import origin_of
from ledger.weights import discount_micro
from swarm.protocol.book import Offer, Proposal, RoundBook
from swarm.protocol.ranking import ranked

MOMENTS_ROUND: Final = 0
"""Round zero sums up the hospitals' counts, means and squares; training starts with round one."""


def is_unchanged(offer: Offer) -> bool:
    """Whether training changed nothing: the base is everybody's, and nobody's to copy."""
    return offer.digest == offer.base


@dataclass(frozen=True, slots=True)
class _Spent:
    """What this node may not merge again: it voted for it, or a quorum did."""

    newest: dict[int, tuple[int, int]]
    """author → (epoch, seq) of its newest contribution that is merged"""
    digests: dict[bytes, frozenset[int]]
    """payloads that are merged, and in whose name"""

    def has(self, offer: Offer) -> bool:
        merged = self.newest.get(offer.author, (-1, -1))
        by = self.digests.get(offer.digest)
        is_copy = by is not None and offer.author not in by and not is_unchanged(offer)
        return (offer.epoch, offer.seq) <= merged or is_copy


@final
class Candidates:
    """One node's view of what may be merged."""

    def __init__(
        self,
        book: RoundBook,
        *,
        own: int,
        rounds: RoundPolicy,
        aggregation: AggregationPolicy,
        initial: bytes,
        has: Callable[[Offer], bool],
        near: Callable[[int], frozenset[int]] | None = None,
    ) -> None:
        """Begin with nothing.

        has: whether an offer's payload is held, as what it is offered. near: whose offers count in a
        round beside the own one, if not everybody's.
        """
        self._near = near
        self._book = book
        self._own = own
        self._policy = rounds
        self._halves = aggregation.staleness_halves
        self._needs_base = aggregation.needs_base
        self._is_buffered = aggregation.is_buffered
        self._initial = initial
        self._has = has
        self._version = -1
        self._usable: dict[int, tuple[Offer, ...]] = {}
        self._held: dict[int, tuple[Offer, ...]] = {}

    def holdings_changed(self) -> None:
        """Something else is held now."""
        self._held.clear()

    def window(self, round_: int) -> range:
        """Rounds whose contributions may be inputs of ``round_``."""
        if round_ == MOMENTS_ROUND:
            return range(MOMENTS_ROUND, MOMENTS_ROUND + 1)
        return range(max(round_ - self._policy.staleness_max, MOMENTS_ROUND + 1), round_ + 1)

    def usable(self, round_: int) -> tuple[Offer, ...]:
        """Contributions that could be inputs: not refused, in bounds, from a known base, not spent."""
        if self._version != self._book.version:
            self._version = self._book.version
            self._usable.clear()
            self._held.clear()
        if round_ not in self._usable:
            self._usable[round_] = self._find_usable(round_)
        return self._usable[round_]

    def _find_usable(self, round_: int) -> tuple[Offer, ...]:
        refused = self._book.refused[self._own]
        near = self._neighbours(round_)
        # Who averages with neighbours averages models, not what is new in them: twice does no harm.
        again = near is not None and not self._is_buffered
        spent = _Spent({}, {}) if again else self._spent(round_)
        return tuple(
            offer
            for by in self.window(round_)
            for offer in self._offers(by, near)
            if (not again or offer.author != self._own or by == round_)
            and offer.id not in refused
            and offer.bytes_count <= self._policy.payload_bytes_max
            and self.base_is_known(offer, round_)
            and not spent.has(offer)
        )

    def _offers(self, round_: int, near: frozenset[int] | None) -> Iterable[Offer]:
        offers = self._book.offers(round_)
        return offers.values() if near is None else (offers[a] for a in sorted(near & set(offers)))

    def _neighbours(self, round_: int) -> frozenset[int] | None:
        """Whose contributions may be inputs of ``round_``; None: everybody's."""
        if self._near is None or round_ == MOMENTS_ROUND:
            return None
        return self._near(round_) | {self._own}

    def wanted(self, round_: int) -> tuple[Offer, ...]:
        """What is worth fetching: usable, not held, and nothing newer of its author is."""
        offers = self.usable(round_)
        newest = {offer.author: offer.round for offer in offers if self._has(offer)}
        if self._neighbours(round_) is not None:  # one is enough
            latest = {offer.author: offer for offer in offers}
            offers = tuple(latest.values())
        return tuple(
            offer
            for offer in offers
            if not self._has(offer) and offer.round > newest.get(offer.author, -1)
        )

    def held(self, round_: int) -> tuple[Offer, ...]:
        """What this node would merge now: of every author the newest that is held, each payload once."""
        usable = self.usable(round_)
        if round_ not in self._held:
            self._held[round_] = self._find_held(round_, usable)
        return self._held[round_]

    def _find_held(self, round_: int, usable: Iterable[Offer]) -> tuple[Offer, ...]:
        newest: dict[int, Offer] = {}
        for offer in filter(self._has, usable):  # older rounds come first
            newest[offer.author] = offer
        rank = ranked(self._book.roster.net, round_, newest)
        # Two who offer one payload: nobody can prove who was first, so the heavier claim counts (a
        # copy made to make the original count for less is worth nothing), and only one of them.
        heaviest = sorted(rank, key=lambda author: -self._weight(newest[author], round_))
        if self._neighbours(round_) is not None:  # the own one is always an input
            heaviest.sort(key=lambda author: author != self._own)
        chosen: dict[bytes, Offer] = {}
        for author in heaviest:
            offer = newest[author]
            chosen.setdefault(offer.id if is_unchanged(offer) else offer.digest, offer)
        return tuple(sorted(chosen.values(), key=lambda offer: offer.author))

    def on_time(self, inputs: Iterable[Offer], round_: int) -> frozenset[int]:
        """Who has offered, in this round, one of these payloads: an input stands for its copies too.

        So hospitals with the same data, or a model that does not learn, hold up no round.
        """
        digests = {offer.digest for offer in inputs}
        return frozenset(
            offer.author
            for offer in self.usable(round_)
            if offer.round == round_ and offer.digest in digests
        )

    def named(self, votes: Iterable[Proposal], round_: int) -> list[tuple[Offer, ...]]:
        """The contributions that each vote names; none unless all are usable and no payload counts twice."""
        known = {(o.author, o.epoch, o.seq, o.id): o for o in self.usable(round_)}

        def inputs(vote: Proposal) -> tuple[Offer, ...]:
            found = [known.get((i.author, i.epoch, i.seq, i.id)) for i in vote.inputs]
            offers = tuple(offer for offer in found if offer is not None)
            authors = {offer.author for offer in offers}
            payloads = {one.id if is_unchanged(one) else one.digest for one in offers}
            return offers if len(payloads) == len(authors) == len(found) else ()

        return [inputs(vote) for vote in votes]

    def left_out(
        self, round_: int, chosen: Iterable[Offer], awaited: Collection[int]
    ) -> tuple[tuple[int, int], ...]:
        """Every member that is not an input, and why; and who is, but not with all that it offered.

        Of those only whose contributions may be inputs at all.
        """
        inside = {offer.author: offer for offer in chosen}
        digests = {offer.digest for offer in inside.values()}
        pending = self.usable(round_)
        reasons: dict[int, int] = {}
        near = self._neighbours(round_)
        for member in self._book.roster.active:
            author = member.index
            if near is not None and author not in near:
                continue
            if author not in inside:
                reasons[author] = self._reason(author, round_, digests, awaited)
            elif near is None and any(
                one.author == author and one.round < inside[author].round for one in pending
            ):
                reasons[author] = Reason.SUPERSEDED
        return tuple(sorted(reasons.items()))

    def _reason(
        self, author: int, round_: int, digests: Collection[bytes], awaited: Collection[int]
    ) -> int:
        offer = self._book.offers(round_).get(author)
        if offer is None:
            if author not in awaited:
                return Reason.INACTIVE
            last = self._book.last_offer_round(author)
            late = 0 < last < self.window(round_).start and not self._was_merged(last, author)
            return Reason.LATE if late else Reason.NOT_RECEIVED
        refused = self._book.refused[self._own]
        if offer.id in refused:
            return refused[offer.id]
        if offer.bytes_count > self._policy.payload_bytes_max:
            return Reason.TOO_LARGE
        if not self.base_is_known(offer, round_):
            return Reason.WRONG_BASE
        is_copy = offer.digest in digests and not is_unchanged(offer)
        spent = self._neighbours(round_) is None and self._spent(round_).has(offer)
        is_copy = is_copy or spent
        return Reason.COPIED if is_copy else Reason.NOT_RECEIVED

    def base_is_known(self, offer: Offer, round_: int) -> bool:
        """Whether an offer started from a model that the ledger knows (round zero has none).

        Where merges start from the round's base, an offer of the round itself names what may become
        that: so only an agreed model, or the first one. A later round only adds what is new in it.
        """
        if offer.round == MOMENTS_ROUND or offer.base == self._initial:
            return True
        if self._needs_base and self._near is None and offer.round == round_:
            return self._book.is_agreed_result(offer.base)
        return self._book.is_result(offer.base)

    def stray(self, round_: int) -> tuple[Offer, ...]:
        """Offers to a round that start from a model on which nobody may merge in it."""
        offers = self._book.offers(round_).values()
        return tuple(one for one in offers if not self.base_is_known(one, round_))

    def origin(self, inputs: Iterable[Offer], round_: int) -> bytes | None:
        """The base that a merge starts from; None if it starts from none, or no input is of the round.

        What most of the round's own inputs were trained from; with neighbours the own base.
        """
        if round_ == MOMENTS_ROUND or not self._needs_base:
            return None
        of_round = [offer for offer in inputs if offer.round == round_]
        if self._near is not None:
            of_round = [offer for offer in of_round if offer.author == self._own]
        return origin_of([offer.base for offer in of_round]) if of_round else None

    def _spent(self, round_: int) -> _Spent:
        return self._spent_in(range(self.window(round_).start, round_))

    def _spent_in(self, rounds: range) -> _Spent:
        newest: dict[int, tuple[int, int]] = {}
        digests: dict[bytes, set[int]] = {}
        for before in rounds:
            agreed = self._book.agreed(before)
            own = self._book.votes(before).get(self._own)
            for vote in (agreed.proposal if agreed else None, own):
                for one in vote.inputs if vote else ():
                    merged = newest.get(one.author, (-1, -1))
                    newest[one.author] = max(merged, (one.epoch, one.seq))
                    offer = self._book.offer(one.id)
                    if offer is not None:
                        digests.setdefault(offer.digest, set()).add(offer.author)
        return _Spent(newest, {digest: frozenset(by) for digest, by in digests.items()})

    def _was_merged(self, round_: int, author: int) -> bool:
        """Whether a contribution that is past use was used in its time."""
        offer = self._book.offers(round_).get(author)
        spent = self._spent_in(range(round_, round_ + self._policy.staleness_max + 1))
        return offer is None or spent.has(offer)

    def _weight(self, offer: Offer, round_: int) -> int:
        return offer.samples * discount_micro(round_ - offer.round, self._halves)
