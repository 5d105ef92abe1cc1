"""When a node judges the others: beside its rounds, never in their way. Spec: docs/wire.md §5.10.

Round e is scored once the own contribution to e + 1 is out, in records of round e + 1: a COMMIT, and when
the others' are out, or a grace has passed, the REVEAL. An agreed round's SKETCH comes then too, and what
others show is checked by whoever holds the payloads. Knows no clock, no socket, no tensor.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Final, final

from ledger.charter import ReputationPolicy
from ledger.panel import evaluators, seed_of_round
from ledger.record import Codec, EvaluationCommit, EvaluationReveal, Record, Sketch, Verified
from ledger.sketch import ROWS_MAX, rows_max, seed_of
from swarm.protocol.book import Offer, Proposal, RoundBook
from swarm.protocol.effects import CheckSketch, Effect, OpenScores, Score, ShowSketch

TARGETS_MIN: Final = 2
"""Fewer contributions of others cannot be ranked."""
ROUNDS_KEPT: Final = ROWS_MAX + 2
"""Finished rounds whose payloads stay: the sketch of a round is shown, and checked, up to two rounds later."""
CHECKS_WAITING_MAX: Final = 1_024
"""Sketches that wait to be checked; the oldest give way."""


@final
class Scoring:
    """One node's part in judging the others; a fold over records, like the book."""

    def __init__(
        self,
        book: RoundBook,
        policy: ReputationPolicy,
        *,
        own: int,
        grace_s: float,
        has: Callable[[Offer], bool],
        holds: Callable[[bytes], bool],
    ) -> None:
        """Begin with nothing.

        has: whether an offer's payload is held as what it is. holds: whether a payload is held at all.
        """
        self._book = book
        self._policy = policy
        self._own = own
        self._grace_s = grace_s
        self._has = has
        self._holds = holds
        self._committed: defaultdict[int, set[int]] = defaultdict(set)
        """record round → who has committed in it; of the newest rounds"""
        self._own_newest = -1
        """record round of the own newest commit: there is one a round"""
        self._pending: tuple[int, int] | None = None
        """record round and place of the own commit that is not opened"""
        self._since_s: float | None = None
        """when that was seen first"""
        self._shown = 0
        """newest round of an own sketch"""
        self._unchecked: OrderedDict[bytes, CheckSketch] = OrderedDict()
        self._seen: set[tuple[int, int]] = set()
        """(author, round) of sketches: the first of each counts"""
        self._given_up: set[Effect] = set()

    @property
    def is_on(self) -> bool:
        """Whether the charter wants any of this."""
        return self._policy.mode != "off"

    @property
    def rounds_kept(self) -> int:
        """How many finished rounds' payloads are needed for it."""
        return ROUNDS_KEPT if self.is_on else 0

    def learn(self, record: Verified[Record]) -> None:
        """A record is on the ledger."""
        value, body = record.value, record.value.body
        is_own = value.author == self._own and value.epoch == self._book.roster.epoch(self._own)
        if isinstance(body, EvaluationCommit):
            self._committed[value.round].add(value.author)
            if len(self._committed) > ROWS_MAX + 1:
                del self._committed[min(self._committed)]
            if value.author == self._own:
                self._own_newest = max(self._own_newest, value.round)
            if is_own:
                self._pending, self._since_s = (value.round, value.seq), None
        elif isinstance(body, EvaluationReveal):
            if is_own:
                self._pending = None
        elif isinstance(body, Sketch) and body.round <= value.round:
            self._learn_sketch(record, body)

    def _learn_sketch(self, record: Verified[Record], sketch: Sketch) -> None:
        author = record.value.author
        if (author, sketch.round) in self._seen:
            return
        self._seen.add((author, sketch.round))
        if author == self._own:
            self._shown = max(self._shown, sketch.round)
        else:
            self._unchecked[record.id] = CheckSketch(record.id, author, sketch)
            if len(self._unchecked) > CHECKS_WAITING_MAX:
                self._unchecked.popitem(last=False)

    def done(self, effect: Effect) -> None:
        """An effect has ended, well or not: it is not wanted again."""
        if isinstance(effect, CheckSketch):
            self._unchecked.pop(effect.id, None)
        else:
            self._given_up.add(effect)

    def advance(self, *, now_s: float) -> tuple[tuple[Effect, ...], float | None]:
        """Return the work that is wanted beside the round, and when to ask again."""
        if not self.is_on or self._book.is_gossip:
            return (), None
        effects: list[Effect] = []
        wake_s = None
        if self._pending is not None:
            due_s = self._due_s(self._pending[0], now_s)
            if now_s >= due_s:
                effects.append(OpenScores(*self._pending))
            else:
                wake_s = due_s
        scored = self._score()
        shown = self._show()
        effects += [one for one in (scored, shown) if one is not None]
        if scored is None:
            effects += self._check()
        return tuple(one for one in effects if one not in self._given_up), wake_s

    def _due_s(self, round_: int, now_s: float) -> float:
        """Return when the own scores may be opened: with a quorum of commits, or after a grace."""
        if self._since_s is None:
            self._since_s = now_s
        if len(self._committed[round_]) >= self._book.roster.q:
            return now_s
        return self._since_s + self._grace_s

    def _score(self) -> Effect | None:
        round_ = self._book.reached(self._own)  # of the own newest record: what comes next is in it
        if (
            round_ < 2
            or self._book.last_offer_round(self._own) < round_
            or self._own_newest >= round_
        ):
            return None
        scored = round_ - 1
        proposal = self._proposal(scored)
        if proposal is None or self._own not in self._evaluators(scored):
            return None
        offers = [self._book.offer(one.id) for one in proposal.inputs]
        inputs = tuple(
            (offer, one.weight_micro)
            for offer, one in zip(offers, proposal.inputs, strict=True)
            if offer is not None and self._has(offer)
        )
        on_time = self._book.offers(scored)
        targets = tuple(
            sorted(
                offer.id
                for offer, _ in inputs
                if offer.author != self._own and on_time.get(offer.author) == offer
            )
        )
        origin = next((offer.base for offer, _ in inputs if offer.round == scored), None)
        if (
            len(inputs) < len(proposal.inputs)
            or len(targets) < TARGETS_MIN
            or origin is None
            or not self._holds(origin)
        ):
            return None
        return Score(round_, inputs, targets, origin)

    def _proposal(self, round_: int) -> Proposal | None:
        """What was merged: what is agreed, else the own vote."""
        agreed = self._book.agreed(round_)
        return agreed.proposal if agreed else self._book.votes(round_).get(self._own)

    def _evaluators(self, round_: int) -> frozenset[int]:
        agreed = self._book.agreed(round_)
        inputs = [one.id for one in agreed.proposal.inputs] if agreed else None
        roster = self._book.roster
        return evaluators(
            seed_of_round(roster.net, round_, inputs),
            [member.index for member in roster.active],
            self._policy.evaluators_max,
        )

    def _show(self) -> Effect | None:
        """The newest agreed round, once the own contribution to the next is out."""
        reached = self._book.last_offer_round(self._own)
        agreed = self._book.latest_agreed(before=reached)
        if agreed is None or agreed.round < 1 or agreed.round <= self._shown:
            return None
        most = rows_max(self._policy.sketch_dimensions)
        rounds = range(agreed.round, max(agreed.round - ROWS_MAX, 0), -1)
        own = [self._book.offers(round_).get(self._own) for round_ in rounds]
        rows = tuple(one for one in own if one is not None and self._is_sketchable(one))[:most]
        seed = seed_of(
            self._book.roster.net, agreed.round, [one.id for one in agreed.proposal.inputs]
        )
        return ShowSketch(agreed.round, seed, rows) if rows else None

    def _check(self) -> list[Effect]:
        """One sketch at a time, if its payloads are here; the others of the round are as good."""
        while self._unchecked:
            check = next(iter(self._unchecked.values()))
            shown = check.sketch.round
            is_recent = shown > self._book.reached(self._own) - ROUNDS_KEPT
            offers = [self._book.offer(row.target_id) for row in check.sketch.rows]
            here = tuple(
                offer
                for offer in offers
                if offer is not None
                and offer.author == check.author
                and shown - ROWS_MAX < offer.round <= shown
                and self._is_sketchable(offer)
            )
            is_mine = self._own in self._evaluators(shown)
            if here and is_mine and is_recent and check.id not in self._book.refused[self._own]:
                return [check]
            del self._unchecked[check.id]
        return []

    def _is_sketchable(self, offer: Offer) -> bool:
        return offer.codec != Codec.MOMENTS and self._has(offer) and self._holds(offer.base)
