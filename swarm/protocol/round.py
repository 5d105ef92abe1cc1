"""The round machine of one node. Knows no clock, no socket, no tensor. Spec: docs/wire.md §5.

Its state is a fold over the ledger, the payloads that are held, and the time. So a crash is a restart:
a machine that is fed the same records stands where the dead one stood. Events go in, and out comes the
whole set of work that is wanted now (`effects.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, auto
from typing import Final, final

from ledger.charter import RoundPolicy
from ledger.record import Codec, Reason, Record, Rule, Verified
from swarm.protocol.book import Agreed, Offer, Proposal, RoundBook
from swarm.protocol.deadline import AdaptiveDeadline
from swarm.protocol.effects import Effect, Evaluate, Fetch, Merge, SignClose, SignOpen, Train
from swarm.protocol.ranking import ranked

PATIENCE_GRACES: Final = 3
"""Graces that a node waits for somebody's proposal, and again for a quorum, before it goes on alone."""
MOMENTS_ROUND: Final = 0
"""Round zero sums up the hospitals' counts, means and squares; training starts with round one."""


class Phase(IntEnum):
    """Where a node stands in its round."""

    JOIN = 0
    TRAIN = 1
    COLLECT = 2
    AGREE = 3
    SETTLE = 4
    CATCH_UP = 5
    EVALUATE = 6
    LINGER = 7
    DONE = 8


class Event(IntEnum):
    """Why a node moves from one phase to the next."""

    STARTED = auto()
    CONTRIBUTED = auto()
    CLOSED = auto()
    VOTED = auto()
    SETTLED = auto()
    OVERTAKEN = auto()
    OUTRUN = auto()
    HELD = auto()
    EVALUATED = auto()
    FINISHED = auto()
    LEFT = auto()


TRANSITIONS: Final[dict[tuple[Phase, Event], Phase]] = {
    (Phase.JOIN, Event.STARTED): Phase.TRAIN,
    (Phase.JOIN, Event.OVERTAKEN): Phase.CATCH_UP,
    (Phase.JOIN, Event.FINISHED): Phase.LINGER,
    (Phase.TRAIN, Event.CONTRIBUTED): Phase.COLLECT,
    (Phase.COLLECT, Event.CLOSED): Phase.AGREE,
    (Phase.COLLECT, Event.OVERTAKEN): Phase.CATCH_UP,
    (Phase.COLLECT, Event.OUTRUN): Phase.TRAIN,
    (Phase.AGREE, Event.VOTED): Phase.SETTLE,
    (Phase.AGREE, Event.OVERTAKEN): Phase.CATCH_UP,
    (Phase.SETTLE, Event.SETTLED): Phase.EVALUATE,
    (Phase.SETTLE, Event.OVERTAKEN): Phase.CATCH_UP,
    (Phase.CATCH_UP, Event.HELD): Phase.EVALUATE,
    (Phase.CATCH_UP, Event.OVERTAKEN): Phase.CATCH_UP,
    (Phase.EVALUATE, Event.EVALUATED): Phase.TRAIN,
    (Phase.EVALUATE, Event.FINISHED): Phase.LINGER,
    (Phase.LINGER, Event.LEFT): Phase.DONE,
}
"""Every move a node can make; whatever is not here cannot happen. A test walks all pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Who runs this machine, under which policy, and how long it stays for stragglers at the end."""

    own: int
    policy: RoundPolicy
    has_moments: bool
    initial: bytes
    """Digest of the charter's initial model."""
    linger_s: float


@dataclass(frozen=True, slots=True)
class Wanted:
    """Everything a node wants done now, most urgent first; ``wake_s``: when to ask again."""

    effects: tuple[Effect, ...]
    wake_s: float | None


Step = tuple[Event | None, tuple[Effect, ...]]
"""Either an event that moves the machine on, or the work that is wanted in this phase."""


@final
class RoundMachine:
    """One node's rounds, from joining to leaving."""

    def __init__(self, place: Place, book: RoundBook, *, now_s: float) -> None:
        self.phase = Phase.JOIN
        self.round = self.first_round(place)
        self.book = book
        self._place = place
        self._policy = place.policy
        self._deadline = AdaptiveDeadline(place.policy)
        self._held: dict[bytes, tuple[int, int]] = {}
        """digest → the codec and the length that it commits to"""
        self._synced: set[int] = set()
        self._base: bytes | None = None
        self._model = place.initial
        self._entered_s = now_s
        self._round_started_s = now_s
        self._last_held_s = now_s
        self._wake_s: float | None = None
        self._steps: dict[Phase, Callable[[float], Step]] = {
            Phase.JOIN: self._join,
            Phase.TRAIN: self._train,
            Phase.COLLECT: self._collect,
            Phase.AGREE: self._agree,
            Phase.SETTLE: self._settle,
            Phase.CATCH_UP: self._catch_up,
            Phase.EVALUATE: self._evaluate,
            Phase.LINGER: self._linger,
            Phase.DONE: lambda _now_s: (None, ()),
        }

    @staticmethod
    def first_round(place: Place) -> int:
        """Round zero exists only where the charter standardises over the swarm."""
        return MOMENTS_ROUND if place.has_moments else MOMENTS_ROUND + 1

    # What happened

    def learn(self, record: Verified[Record]) -> None:
        """A record is on the ledger (stored, so it may be acted upon)."""
        self.book.learn(record)

    def hold(self, digest: bytes, *, codec: int, bytes_count: int, now_s: float) -> None:
        """A payload is stored and checked."""
        self._held[digest] = (codec, bytes_count)
        self._last_held_s = now_s

    def release(self, digest: bytes) -> None:
        """A payload is not stored any more."""
        self._held.pop(digest, None)

    def synced(self, peer: int) -> None:
        """A comparison of heads with ``peer`` has ended: what it had, I have."""
        self._synced.add(peer)

    def advance(self, *, now_s: float) -> Wanted:
        """Move as far as the evidence and the time allow; return all work that is wanted now."""
        while True:
            self._wake_s = None
            event, effects = self._steps[self.phase](now_s)
            if event is None:
                return Wanted(effects, self._wake_s)
            self._enter(TRANSITIONS[self.phase, event], now_s)

    def _enter(self, phase: Phase, now_s: float) -> None:
        self.phase = phase
        self._entered_s = now_s
        if phase is Phase.TRAIN:
            self._round_started_s = self._last_held_s = now_s
            self._base = self._base_of(self.round)

    def _passed(self, due_s: float, now_s: float) -> bool:
        """Whether a moment has come; if not, remember to wake up then."""
        if now_s >= due_s:
            return True
        self._wake_s = due_s if self._wake_s is None else min(self._wake_s, due_s)
        return False

    # What the node stands on

    @property
    def roster_size(self) -> int:
        """N."""
        return self.book.roster.n

    @property
    def members_min(self) -> int:
        """Fewest contributions that close this round.

        Round zero cannot go on without a quorum of equal votes, so a few who are cut off must not
        spend theirs on a set that the others never heard of; whoever votes has contributed.
        """
        if self.round == MOMENTS_ROUND:
            return max(self._policy.members_min, self.book.roster.q)
        return self._policy.members_min

    @property
    def model(self) -> bytes:
        """Digest of the newest model that this node stands on."""
        return self._model

    def has(self, offer: Offer) -> bool:
        """Whether an offer's payload is stored here and is what this round merges.

        A digest that is held under another codec or length does not count: it never passed the
        check as what it is offered as.
        """
        held = self._held.get(offer.digest)
        return held == (offer.codec, offer.bytes_count) and offer.codec == self.codec()

    def active(self) -> frozenset[int]:
        """Members that this round waits for."""
        return self.book.active(
            self.round,
            inactive_after=self._policy.inactive_after_rounds,
            first_round=self.first_round(self._place),
        )

    def moments(self) -> bytes | None:
        """Digest of the agreed moments, once round zero is agreed."""
        agreed = self.book.agreed(MOMENTS_ROUND)
        return agreed.proposal.result if self._place.has_moments and agreed else None

    def usable(self) -> tuple[Offer, ...]:
        """Contributions of this round that could be inputs: not refused, in bounds, from a known base."""
        refused = self.book.refused[self._place.own]
        return tuple(
            offer
            for offer in self.book.offers(self.round).values()
            if offer.id not in refused
            and offer.bytes_count <= self._policy.payload_bytes_max
            and self.base_is_known(offer)
        )

    def base_is_known(self, offer: Offer) -> bool:
        """Whether an offer started from a model that the ledger knows (round zero has none)."""
        return (
            offer.round == MOMENTS_ROUND
            or offer.base == self._place.initial
            or self.book.is_result(offer.base)
        )

    def _base_of(self, round_: int) -> bytes | None:
        """The model that training in ``round_`` starts from: the newest agreed, else my own newest."""
        if round_ == MOMENTS_ROUND:
            return None
        agreed = self.book.latest_agreed(before=round_)
        own = self.book.latest_model(self._place.own, before=round_)
        if agreed and agreed.round != MOMENTS_ROUND and (own is None or agreed.round >= own[0]):
            return agreed.proposal.result
        return own[1] if own else None

    def _held_offers(self) -> tuple[Offer, ...]:
        return tuple(filter(self.has, self.usable()))

    def _fetches(self, offers: tuple[Offer, ...]) -> tuple[Effect, ...]:
        return tuple(Fetch(o.digest, (o.author,), o) for o in offers if not self.has(o))

    # One function a phase: what happened, or what is wanted

    def _join(self, now_s: float) -> Step:
        own, policy = self._place.own, self._policy
        if own in self.book.closed:  # nothing is left to sign: it only lingers
            return self._resume()
        patient = not self._passed(self._entered_s + policy.start_wait_s, now_s)
        others = self.book.roster.q - 1
        # Whoever restored a backup learns only from others where his log ends: he signs nothing
        # before at least one has told him.
        if len(self._synced) < (others if patient else min(others, 1)):
            return None, ()
        if own not in self.book.opened:
            return None, (SignOpen(),)
        everyone = len(self.book.opened) == self.roster_size
        under_way = bool(self.book.latest_model(own) or self.book.latest_agreed())
        if not (everyone or under_way) and (patient or len(self.book.opened) < policy.members_min):
            return None, ()
        return self._resume()

    def _resume(self) -> Step:
        """Start where the ledger says that this node stands: a crash is a restart."""
        own = self._place.own
        mine = self.book.latest_model(own)
        latest = self.book.latest_agreed()
        if mine:
            self.round, self._model = mine
            if self.round >= self._policy.rounds or own in self.book.closed:
                return Event.FINISHED, ()
            self.round += 1
        # The own log goes back no more: a round that was skipped to before a crash is where it stands.
        self.round = max(self.round, self.book.reached(own))
        if latest and latest.round >= self.round:
            self.round = latest.round
            return Event.OVERTAKEN, ()
        return Event.STARTED, ()

    def _train(self, _now_s: float) -> Step:
        if self._place.own in self.book.offers(self.round):
            return Event.CONTRIBUTED, ()
        missing = [d for d in (self._base, self.moments()) if d and d not in self._held]
        if missing:
            return None, tuple(Fetch(digest, self._voters(digest)) for digest in missing)
        return None, (Train(self.round, self._base, self.moments()),)

    def _collect(self, now_s: float) -> Step:
        latest = self.book.latest_agreed()
        if latest and latest.round > self.round:
            self.round = latest.round
            return Event.OVERTAKEN, ()
        held = self._held_offers()
        have = {offer.author for offer in held}
        complete = have >= self.active() and len(have) >= self.members_min
        due = self._passed(self._round_started_s + self._deadline.duration_s(), now_s)
        enough = len(have) >= self.members_min and not self.missing_required(have)
        voted = self._place.own in self.book.votes(self.round)
        if voted or self.book.agreed(self.round) or (enough and (complete or due)):
            if complete:
                self._deadline.observe(max(self._last_held_s - self._round_started_s, 0.0))
            return Event.CLOSED, ()
        ahead = self.book.round_ahead(self._place.own)
        if due and ahead > self.round and self.round != MOMENTS_ROUND:
            self.round = min(ahead, self._policy.rounds)
            return Event.OUTRUN, ()
        return None, self._fetches(self.usable())

    def _agree(self, now_s: float) -> Step:
        if self._place.own in self.book.votes(self.round):
            return Event.VOTED, ()
        latest = self.book.latest_agreed()
        late = self._passed(self._entered_s + PATIENCE_GRACES * self._policy.grace_s, now_s)
        if latest and (latest.round > self.round or (latest.round == self.round and late)):
            self.round = latest.round
            return Event.OVERTAKEN, ()
        chosen = self._choose(now_s, late=late)
        if chosen is None:
            return None, self._fetches(self.usable())
        if not all(map(self.has, chosen)):
            return None, self._fetches(chosen)
        return None, (Merge(self.round, chosen, self._left_out(chosen)),)

    def _settle(self, now_s: float) -> Step:
        own_vote = self.book.votes(self.round)[self._place.own]
        latest = self.book.latest_agreed()
        if latest and latest.round >= self.round:
            if latest.round == self.round and latest.proposal == own_vote:
                self._model = own_vote.result
                return Event.SETTLED, ()
            self.round = latest.round
            return Event.OVERTAKEN, ()
        last = self.round == self._policy.rounds
        patience_s = PATIENCE_GRACES * self._policy.grace_s
        if last:
            patience_s = max(patience_s, self._policy.deadline_max_s)
        due = self._passed(self._entered_s + patience_s, now_s)
        if due and self.round != MOMENTS_ROUND:
            self._model = own_vote.result
            return Event.SETTLED, ()
        return None, ()

    def _catch_up(self, _now_s: float) -> Step:
        latest = self.book.latest_agreed()
        if latest and latest.round > self.round:
            self.round = latest.round
            return Event.OVERTAKEN, ()
        target = self.book.agreed(self.round)
        if target is None:
            raise AssertionError("caught up with a round that nobody agreed on")
        needed = [target, self.book.agreed(MOMENTS_ROUND) if self._place.has_moments else None]
        missing = [a for a in needed if a and a.proposal.result not in self._held]
        if missing:
            return None, tuple(Fetch(a.proposal.result, self._others(a)) for a in missing)
        if self.round != MOMENTS_ROUND:
            self._model = target.proposal.result
        return Event.HELD, ()

    def _evaluate(self, _now_s: float) -> Step:
        if self.round != MOMENTS_ROUND and self._place.own not in self.book.models(self.round):
            return None, (Evaluate(self.round, self._model, self.moments()),)
        if self.round >= self._policy.rounds:
            return Event.FINISHED, ()
        ahead = min(self.book.round_ahead(self._place.own), self._policy.rounds)
        self.round = max(self.round + 1, ahead)
        return Event.EVALUATED, ()

    def _linger(self, now_s: float) -> Step:
        over = self._passed(self._entered_s + self._place.linger_s, now_s)
        latest = self.book.latest_agreed()
        wanted: tuple[Effect, ...] = ()
        if latest and latest.round >= self.round and latest.proposal.result != self._model:
            if latest.proposal.result in self._held:
                self._model = latest.proposal.result
            elif not over:
                wanted = (Fetch(latest.proposal.result, self._others(latest)),)
        models = self.book.models(self.round)
        if self._place.own not in self.book.closed:
            patience_s = PATIENCE_GRACES * self._policy.grace_s
            patient = not self._passed(self._entered_s + patience_s, now_s)
            if patient and not self.active() <= set(models):
                return None, wanted
            return None, (*wanted, SignClose(self._policy.rounds + 1))
        # Who evaluated another model went on without a quorum: he may still come for this one.
        served = all(
            m.index in self.book.closed and models.get(m.index) == self._model
            for m in self.book.roster.active
            if not self.book.is_frozen(m.index)
        )
        if over or (served and not wanted):
            return Event.LEFT, ()
        return None, wanted

    # Agreeing on the set

    def _choose(self, now_s: float, *, late: bool) -> tuple[Offer, ...] | None:
        """The inputs to vote for: what others voted for, else all, else mine when it is my turn."""
        proposal = self._best_proposal()
        if proposal is not None and not late:
            return proposal
        held = self._held_offers()
        if len(held) == self.roster_size or late:
            return held
        candidates = ranked(self.book.roster.net, self.round, self.active() | {self._place.own})
        turn = candidates.index(self._place.own)
        if self._passed(self._entered_s + turn * self._policy.grace_s, now_s):
            return held
        return None

    def _best_proposal(self) -> tuple[Offer, ...] | None:
        """The published set with most votes that I may vote for too."""
        votes = self.book.votes(self.round)
        tally: dict[tuple[Offer, ...], int] = {}
        for author in ranked(self.book.roster.net, self.round, votes):
            inputs = self._inputs_of(votes[author])
            if inputs:
                tally[inputs] = tally.get(inputs, 0) + 1
        mine = [inputs for inputs, count in tally.items() if self._is_fair(inputs, count)]
        return max(mine, key=lambda inputs: tally[inputs], default=None)

    def _inputs_of(self, vote: Proposal) -> tuple[Offer, ...]:
        """The contributions that a vote names; none unless they could close the round here too."""
        usable = {(o.author, o.epoch, o.seq, o.id): o for o in self.usable()}
        offers = [usable.get((i.author, i.epoch, i.seq, i.id)) for i in vote.inputs]
        known = tuple(offer for offer in offers if offer is not None)
        closes = len(known) >= self.members_min and not self.missing_required(
            {offer.author for offer in known}
        )
        return known if closes and len(known) == len(offers) and vote.rule == self.rule() else ()

    def _is_fair(self, inputs: tuple[Offer, ...], votes: int) -> bool:
        """Whether a proposal leaves out no more of what I hold than a quorum can do without.

        Otherwise the first to publish, a liar, would decide whose patients count. What more than f
        members voted for, an honest one has found to be all that there was.
        """
        inside = {offer.author for offer in inputs}
        ignored = [offer for offer in self._held_offers() if offer.author not in inside]
        roster = self.book.roster
        return votes > roster.f or len(ignored) <= roster.n - roster.q

    def rule(self) -> int:
        """How this round's inputs become one."""
        return Rule.MOMENTS if self.round == MOMENTS_ROUND else Rule.MEAN

    def codec(self) -> int:
        """How this round's contributions are written."""
        return Codec.MOMENTS if self.round == MOMENTS_ROUND else Codec.FLOAT32

    def _left_out(self, chosen: tuple[Offer, ...]) -> tuple[tuple[int, int], ...]:
        """Every member that is not an input, and why."""
        inside = {offer.author for offer in chosen}
        refused = self.book.refused[self._place.own]
        offers, active = self.book.offers(self.round), self.active()

        def reason(author: int) -> int:
            offer = offers.get(author)
            if offer is None:
                return Reason.NOT_RECEIVED if author in active else Reason.INACTIVE
            if offer.id in refused:
                return refused[offer.id]
            if offer.bytes_count > self._policy.payload_bytes_max:
                return Reason.TOO_LARGE
            return Reason.NOT_RECEIVED if self.base_is_known(offer) else Reason.WRONG_BASE

        members = (member.index for member in self.book.roster.active)
        return tuple((author, reason(author)) for author in members if author not in inside)

    def missing_required(self, have: set[int]) -> tuple[str, ...]:
        """Members without whom the charter lets no round close."""
        return tuple(
            m.name
            for m in self.book.roster.active
            if m.name in self._policy.required and m.index not in have
        )

    def _others(self, agreed: Agreed) -> tuple[int, ...]:
        return tuple(author for author in agreed.voters if author != self._place.own)

    def _voters(self, result: bytes) -> tuple[int, ...]:
        """Members that published ``result``, newest round first: they can serve it."""
        for round_ in range(self.round, -1, -1):
            votes = self.book.votes(round_)
            voters = [a for a, v in votes.items() if v.result == result and a != self._place.own]
            if voters:
                return tuple(sorted(voters))
        return ()
