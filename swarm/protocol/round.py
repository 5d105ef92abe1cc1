"""The round machine of one node. Knows no clock, no socket, no tensor. Spec: docs/wire.md §5.

Its state is a fold over the ledger, the payloads that are held, and the time. So a crash is a restart:
a machine that is fed the same records stands where the dead one stood. Events go in, and out comes the
whole set of work that is wanted now (`effects.py`). What it has seen of the others' pace is kept beside
(`attendance.py`); which inputs it may merge and votes for is asked of `candidates.py` and `choice.py`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import final

from ledger.charter import AggregationPolicy, RoundPolicy
from ledger.record import Contribution, Record, Verified
from ledger.rules import codec_of_round
from ledger.topology import Topology
from swarm.protocol.attendance import Attendance
from swarm.protocol.book import Agreed, Offer, RoundBook
from swarm.protocol.candidates import MOMENTS_ROUND, Candidates
from swarm.protocol.choice import Choice, Inputs
from swarm.protocol.effects import (
    Effect,
    Evaluate,
    Fetch,
    GiveUp,
    Merge,
    SignClose,
    SignOpen,
    Train,
)
from swarm.protocol.neighbours import Neighbours
from swarm.protocol.patience import Patience
from swarm.protocol.phases import TRANSITIONS, Event, Phase

__all__ = ["MOMENTS_ROUND", "TRANSITIONS", "Event", "Phase", "Place", "RoundMachine", "Wanted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Who runs this machine, under which policy, and how long it stays for stragglers at the end."""

    own: int
    policy: RoundPolicy
    aggregation: AggregationPolicy
    has_moments: bool
    initial: bytes
    """Digest of the charter's initial model."""
    linger_s: float
    topology: Topology | None = None
    """Who averages with whom; None: everybody with everybody, by agreement."""


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
        self._held: dict[bytes, tuple[int, int]] = {}
        """digest → the codec and the length that it commits to"""
        self._stalled: frozenset[bytes] = frozenset()
        self._news: list[tuple[int, int]] = []
        """(author, round) of contributions that came since the last look"""
        self._near: Neighbours | None = None
        if place.topology is not None:
            self._near = Neighbours(place.topology, book, place.policy, own=place.own)
        self._merging: Inputs = ()
        """what this node merges with its neighbours'"""
        self._candidates = Candidates(
            book,
            own=place.own,
            rounds=place.policy,
            aggregation=place.aggregation,
            initial=place.initial,
            has=self.has,
            near=self._near.of if self._near else None,
        )
        self._choice = Choice(
            book, self._candidates, place.policy, place.aggregation, own=place.own
        )
        self._attendance = Attendance(book, place.policy, first_round=self.round)
        self._patience = Patience(book, place.policy)
        self._synced: set[int] = set()
        self._attempt = 0
        self._is_outpaced = False
        """others went on while a result was on its way here"""
        self._has_chased = False
        self._base_is_own = False
        self._base: bytes | None = None
        self._began = self.round
        """the round in which the training of now began"""
        self._model = place.initial
        self._entered_s = now_s
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
        if self._near is not None:
            self._steps[Phase.COLLECT] = self._collect_near
            self._steps[Phase.AGREE] = self._agree_near
            self._steps[Phase.SETTLE] = self._settle_near

    @staticmethod
    def first_round(place: Place) -> int:
        """Round zero exists only where the charter standardises over the swarm."""
        return MOMENTS_ROUND if place.has_moments else MOMENTS_ROUND + 1

    # What happened

    def learn(self, record: Verified[Record]) -> None:
        """A record is on the ledger (stored, so it may be acted upon)."""
        self.book.learn(record)
        if isinstance(record.value.body, Contribution):
            self._news.append((record.value.author, record.value.round))

    def hold(self, digest: bytes, *, codec: int, bytes_count: int) -> None:
        """A payload is stored and checked."""
        self._held[digest] = (codec, bytes_count)
        self._candidates.holdings_changed()
        for author in self.book.offerers(digest):
            self._attendance.served(author)

    def release(self, digest: bytes) -> None:
        """A payload is not stored any more."""
        self._held.pop(digest, None)
        self._candidates.holdings_changed()

    def stalled(self, digests: frozenset[bytes]) -> bool:
        """Take note of which payloads nobody serves now; tell whether that is news (`stalls.py`)."""
        before, self._stalled = self._stalled, digests
        return before != digests

    def synced(self, peer: int) -> None:
        """A comparison of heads with ``peer`` has ended: what it had, I have."""
        self._synced.add(peer)

    def advance(self, *, now_s: float) -> Wanted:
        """Move as far as the evidence and the time allow; return all work that is wanted now."""
        self._measure(now_s)
        while True:
            self._wake_s = None
            event, effects = self._steps[self.phase](now_s)
            if event is None:
                return Wanted(effects, self._wake_s)
            self._enter(TRANSITIONS[self.phase, event], now_s)

    def _enter(self, phase: Phase, now_s: float) -> None:
        if phase is Phase.AGREE and self.phase is Phase.COLLECT:
            self._attempt = 0
        self.phase = phase
        self._entered_s = now_s
        if phase is Phase.TRAIN:
            self._attendance.begin(self.round, now_s=now_s)
            self._base = self._base_of(self.round)
            self._base_is_own = self._is_outpaced = self._has_chased = False
            self._began, self._merging = self.round, ()

    def _passed(self, due_s: float, now_s: float) -> bool:
        """Whether a moment has come; if not, remember to wake up then."""
        if now_s >= due_s:
            return True
        self._wake_s = due_s if self._wake_s is None else min(self._wake_s, due_s)
        return False

    def _is_late(self, now_s: float) -> bool:
        """Whether patience with the votes of this round is over."""
        return self._passed(self._entered_s + self._patience.vote_s(self.round), now_s)

    @property
    def grace_s(self) -> float:
        """Patience with the member whose turn it is in this round: the charter's grace, or more."""
        return self._patience.grace_s(self.round)

    def _measure(self, now_s: float) -> None:
        """Learn everybody's pace from what has come, also from what came too late to be of use."""
        news, self._news = self._news, []
        if self.phase is Phase.JOIN:
            return  # what is replayed says nothing about anybody's pace
        window = self._candidates.window(self.round)
        for author, round_ in news:
            if author != self._place.own and round_ <= self.round:
                self._attendance.heard(author, round_=self.round)
                if self._near is not None:
                    self._near.heard(author, now_s=now_s)
                offer = self.book.offers(round_).get(author)
                if offer is not None and round_ not in window:
                    self._attendance.measure(offer, now_s=now_s)
        near = self.near
        for round_ in window:
            offers = self.book.offers(round_)
            for author in offers if near is None else near.intersection(offers):
                if author != self._place.own and self.has(offers[author]):
                    self._attendance.measure(offers[author], now_s=now_s)

    # What the node stands on

    @property
    def members_min(self) -> int:
        """Fewest contributions that close this round."""
        near = self._mixes()
        if near is not None:
            return near.inputs_min(self.round)
        return self._choice.members_min(self.round)

    @property
    def model(self) -> bytes:
        """Digest of the newest model that this node stands on."""
        return self._model

    @property
    def initial(self) -> bytes:
        """Digest of the charter's initial model."""
        return self._place.initial

    def has(self, offer: Offer) -> bool:
        """Whether an offer's payload is stored here and is what its round merges.

        A digest that is held under another codec or length does not count: it never passed the
        check as what it is offered as.
        """
        held = self._held.get(offer.digest)
        codec = codec_of_round(self._place.aggregation, offer.round)
        return held == (offer.codec, offer.bytes_count) and offer.codec == codec

    def active(self) -> frozenset[int]:
        """Members that take part in this round."""
        return self._attendance.active(self.round)

    def moments(self) -> bytes | None:
        """Digest of the agreed moments, once round zero is agreed."""
        agreed = self.book.agreed(MOMENTS_ROUND)
        return agreed.proposal.result if self._place.has_moments and agreed else None

    def usable(self) -> Inputs:
        """Contributions that could be inputs of this round, late ones included."""
        return self._candidates.usable(self.round)

    def missing_required(self) -> tuple[str, ...]:
        """Members without whom the charter lets this round not close, and of whom nothing is held."""
        held = self._candidates.held(self.round)
        have = self._candidates.on_time(held, self.round).union(offer.author for offer in held)
        return self._choice.missing_required(have)

    def _base_of(self, round_: int) -> bytes | None:
        """The model that training in ``round_`` starts from: the newest agreed, else my own newest."""
        if round_ == MOMENTS_ROUND or self._is_new():
            return None
        if self._near is not None:
            return self._base_near(self._near)
        if self._place.aggregation.needs_base:
            return self._base_agreed(round_)
        agreed = self.book.latest_agreed(before=round_)
        own = self.book.latest_model(self._place.own, before=round_)
        if own and self._base_is_own:
            return own[1]
        if agreed and agreed.round != MOMENTS_ROUND and (own is None or agreed.round >= own[0]):
            return agreed.proposal.result
        return own[1] if own else None

    def _base_agreed(self, round_: int) -> bytes | None:
        """The newest agreed model: what others merge on, so that nothing else would be of use.

        Where the line is too slow for that one, the newest that is here.
        """
        for before in reversed(
            [r for r in self.book.agreed_rounds() if MOMENTS_ROUND < r < round_]
        ):
            agreed = self.book.agreed(before)
            if agreed and (not self._base_is_own or agreed.proposal.result in self._held):
                return agreed.proposal.result
        return None

    def _is_new(self) -> bool:
        """Whether the charter gives this node no model yet: it has not contributed to any."""
        first = self._policy.newcomers == "contribution_first"
        return first and self.book.last_offer_round(self._place.own) <= MOMENTS_ROUND

    # Averaging with neighbours (docs/wire.md §5.8)

    def _mixes(self) -> Neighbours | None:
        """Whom this node averages with in this round; None where a quorum agrees."""
        return None if self.round == MOMENTS_ROUND else self._near

    def _base_near(self, near: Neighbours) -> bytes | None:
        """The own newest model; for a newcomer the newest of a neighbour that can be had."""
        own = self.book.latest_model(self._place.own)
        if own:
            return own[1]
        return next(
            (
                digest
                for _, digest in near.sources()
                if digest in self._held
                or (digest not in self._stalled and self.book.may_fetch(self._place.own, digest))
            ),
            None,
        )

    def offer_round(self, round_: int) -> int:
        """Say in which round to offer what was trained in ``round_``: where the others are by now.

        Only who averages with neighbours and was left further behind than late updates count skips
        rounds like that; otherwise nothing that a slow site trains would ever be used.
        """
        if self._mixes() is not None and self.phase is Phase.TRAIN and round_ == self._began:
            self.round = self._next_after(self.round - 1)
            return self.round
        return round_

    @property
    def near(self) -> frozenset[int] | None:
        """Whom this node averages with in this round; None where a quorum agrees."""
        near = self._mixes()
        return None if near is None else near.of(self.round)

    def mixing_micro(self, round_: int) -> dict[int, int]:
        """What the graph gives this node and each neighbour; nothing where all average with all."""
        return self._near.mixing_micro(round_) if self._near else {}

    def _collect_near(self, now_s: float) -> Step:
        """Collect from neighbours: nobody is waited for long."""
        near = self._mixes()
        if near is None:
            return self._collect(now_s)
        if self._place.own in self.book.votes(self.round):
            return Event.CLOSED, ()
        held = self._candidates.held(self.round)
        awaited = self.awaited(now_s)
        enough = len(held) >= near.inputs_min(self.round)
        over_s = self._attendance.started_s(self._began) + self._policy.deadline_max_s
        if not awaited and (enough or self._passed(over_s, now_s)):
            near.merged(self.round, [one.author for one in held if one.round == self.round])
            self._merging = held
            return Event.CLOSED, ()
        ahead = self._next_after(self.round)
        if not awaited and ahead > self.round + 1:
            self.round = ahead
            return Event.OUTRUN, ()
        return None, self._fetches(self._candidates.wanted(self.round))

    def _agree_near(self, now_s: float) -> Step:
        """Merge what was collected: nobody is asked."""
        if self._mixes() is None:
            return self._agree(now_s)
        if self._place.own in self.book.votes(self.round):
            return Event.VOTED, ()
        if not (self._merging and all(map(self.has, self._merging))):
            self._merging = self._candidates.held(self.round)
        return None, self._merge(self._merging)

    def _settle_near(self, now_s: float) -> Step:
        """The own result stands: there is no vote."""
        if self._mixes() is None:
            return self._settle(now_s)
        self._model = self.book.votes(self.round)[self._place.own].result
        return Event.SETTLED, ()

    def _fetches(self, offers: Iterable[Offer]) -> tuple[Effect, ...]:
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
        everyone = len(self.book.opened) == self.book.roster.n
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
            if self._is_new() and latest.round != MOMENTS_ROUND:
                if latest.round >= self._policy.rounds:
                    return Event.FINISHED, ()
                self.round = self._next_after(latest.round)
                return Event.STARTED, ()
            self.round = latest.round
            return Event.OVERTAKEN, ()
        if self._mixes() is not None:
            self.round = self._next_after(self.round - 1)
        return Event.STARTED, ()

    def _train(self, _now_s: float) -> Step:
        if self._place.own in self.book.offers(self.round):
            return Event.CONTRIBUTED, ()
        if self._base in self._stalled and self._near is not None:
            self._base = self._base_of(self.round)
        missing = [d for d in (self._base, self.moments()) if d and d not in self._held]
        if missing:
            return None, tuple(Fetch(digest, self._voters(digest)) for digest in missing)
        return None, (Train(self._began, self._base, self.moments()),)

    def _collect(self, now_s: float) -> Step:
        if self._is_overtaken():
            return Event.OVERTAKEN, ()
        voted = self._place.own in self.book.votes(self.round)
        if voted or self.book.agreed(self.round):
            return Event.CLOSED, ()
        held = self._candidates.held(self.round)
        awaited = self.awaited(now_s)
        wanted = self._candidates.wanted(self.round)
        if not awaited and self._choice.closes(held, self.round):
            for offer in wanted:  # not waited for again until it comes
                self._attendance.give_up(offer.author)
            return Event.CLOSED, ()
        started_s = self._attendance.started_s(self.round)
        missing = self.missing_required()
        if missing and self._passed(started_s + self._policy.deadline_max_s, now_s):
            return None, (GiveUp(self.round, missing),)
        ahead = self.book.round_ahead(self._place.own)
        if not awaited and ahead > self.round and self.round != MOMENTS_ROUND:
            self.round = min(ahead, self._policy.rounds)
            return Event.OUTRUN, ()
        return None, self._fetches(wanted)

    def awaited(self, now_s: float) -> frozenset[int]:
        """Whose contribution to this round is still waited for.

        An offer that can be no input is an answer too: nothing else will come from its author.
        """
        usable = {offer.id for offer in self.usable()}
        offers = self.book.offers(self.round)
        settled = {
            author
            for author, offer in offers.items()
            if self.has(offer) or offer.id not in usable or offer.digest in self._stalled
        }
        near = self._mixes()
        if near is not None:
            return near.awaited(
                self.round,
                settled,
                since_s=self._entered_s,
                passed=lambda due_s: self._passed(due_s, now_s),
                due_s=lambda author: self._attendance.due_s(author, self._began),
            )
        return self._attendance.awaited(
            self.round,
            frozenset(settled),
            lambda due_s: self._passed(due_s, now_s),
            download_stretch=self._patience.download_stretch(self.round),
        )

    def _is_overtaken(self) -> bool:
        """A later round is agreed: it becomes this node's."""
        latest = self.book.latest_agreed()
        if latest is None or latest.round <= self.round:
            return False
        self.round = latest.round
        return True

    def _agree(self, now_s: float) -> Step:
        if self.book.attempts(self.round).get(self._place.own, -1) >= self._attempt:
            return Event.VOTED, ()
        late = self._is_late(now_s)
        if self._is_overtaken() or (self.book.agreed(self.round) and (late or self._attempt)):
            return Event.OVERTAKEN, ()
        if self._attempt:
            chosen = self._choice.again(self._attempt, self._is_lost)
        else:
            chosen = self._choose(now_s, late=late)
        if not chosen:
            return None, self._fetches(self._candidates.wanted(self.round))
        if not all(map(self.has, chosen)):
            return None, self._fetches(chosen)
        return None, self._merge(chosen, self._attempt)

    def _merge(self, chosen: Inputs, attempt: int = 0) -> tuple[Effect, ...]:
        """Merge what was chosen, once the base that it starts from is here."""
        origin = self._candidates.origin(chosen, self.round)
        if origin is None and self.round != MOMENTS_ROUND and self._place.aggregation.needs_base:
            return ()  # nothing of the round itself: others will agree, or more will come
        if origin is not None and origin not in self._held:
            return (Fetch(origin, self._voters(origin)),)
        left_out = self._candidates.left_out(self.round, chosen, self.active())
        return (Merge(self.round, chosen, left_out, attempt, origin),)

    def _settle(self, now_s: float) -> Step:
        own_vote = self.book.votes(self.round)[self._place.own]
        agreed = self.book.agreed(self.round)
        if self._is_overtaken():
            return Event.OVERTAKEN, ()
        if agreed:
            if agreed.proposal != own_vote:
                return Event.OVERTAKEN, ()
            self._model = own_vote.result
            return Event.SETTLED, ()
        if self.round == self._policy.rounds:
            patience_s = max(self._patience.vote_s(self.round), self._policy.deadline_max_s)
            due = self._passed(self._entered_s + patience_s, now_s)
        else:
            due = self._is_late(now_s)
        if due and self.round != MOMENTS_ROUND:
            self._model = own_vote.result
            return Event.SETTLED, ()
        if due:
            own_attempt = self.book.attempts(self.round)[self._place.own]
            attempt = self._choice.newer_attempt(own_attempt)
            if attempt is not None:
                self._attempt = attempt
                return Event.SPLIT, ()
        wanted = self._candidates.wanted(self.round) if self.round == MOMENTS_ROUND else ()
        return None, self._fetches(wanted)  # the next attempt may be about these

    def _catch_up(self, _now_s: float) -> Step:
        """Take over an agreed result: one download at a time, so that a slow line gets there.

        A newer one takes its place only if it is here already, or nobody serves the older any more.
        """
        target = self.book.agreed(self.round)
        latest = self.book.latest_agreed()
        if target is None or latest is None:
            raise AssertionError("caught up with a round that nobody agreed on")
        if latest.round > self.round:
            gone = target.proposal.result in self._stalled
            if gone or latest.proposal.result in self._held:
                self.round = latest.round
                return Event.OVERTAKEN, ()
        needed = [target, self.book.agreed(MOMENTS_ROUND) if self._place.has_moments else None]
        missing = [a for a in needed if a and a.proposal.result not in self._held]
        if missing:
            return None, tuple(Fetch(a.proposal.result, self._others(a)) for a in missing)
        if self.round != MOMENTS_ROUND:
            self._model = target.proposal.result
        self._is_outpaced = latest.round > self.round
        return Event.HELD, ()

    def _evaluate(self, _now_s: float) -> Step:
        if self.round != MOMENTS_ROUND and self._place.own not in self.book.models(self.round):
            return None, (Evaluate(self.round, self._model, self.moments()),)
        if self.round >= self._policy.rounds:
            return Event.FINISHED, ()
        latest = self.book.latest_agreed()
        if self._is_outpaced and latest and latest.proposal.result not in self._held:
            behind = latest.round - self.round
            if behind > self._policy.staleness_max and not self._has_chased:
                self._has_chased = True
                self.round = latest.round
                return Event.OVERTAKEN, ()
            # The line is too slow for every round's model. Train from the one that is here, and say
            # how old it is: contribute to a round as far back as still counts.
            back = max(self._policy.staleness_max - 1, 0)
            self.round = max(self.round + 1, self._next_after(self.round) - back)
            self._base_is_own = True
            return Event.EVALUATED, ()
        self.round = self._next_after(self.round)
        return Event.EVALUATED, ()

    def _next_after(self, round_: int) -> int:
        """The next round, or the one that enough others to believe it have reached."""
        ahead = min(self.book.round_ahead(self._place.own), self._policy.rounds)
        if self._near is not None and ahead <= round_ + 1 + self._policy.staleness_max:
            return round_ + 1  # what it offers there still counts for the others
        return max(round_ + 1, ahead)

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
            patient = not self._passed(self._entered_s + self._patience.goodbye_s, now_s)
            if patient and not self.active() <= set(models):
                return None, wanted
            return None, (*wanted, SignClose(self._policy.rounds + 1))
        # Who evaluated another model went on without a quorum: he may still come for this one.
        served = all(
            m.index in self.book.closed
            and (models.get(m.index) == self._model or self._near is not None)
            for m in self.book.roster.active
            if not self.book.is_frozen(m.index)
        )
        if over or (served and not wanted):
            return Event.LEFT, ()
        return None, wanted

    # Agreeing on the set

    def _choose(self, now_s: float, *, late: bool) -> Inputs:
        """The inputs to vote for: what others voted for, else all, else mine when it is my turn."""
        proposal = self._choice.proposal(self.round, self._is_lost)
        if proposal and not late:
            return proposal
        held = self._candidates.held(self.round)
        if late or self._choice.is_complete(held, self.round):
            return held
        turn = self._choice.turn(self.round, self._attendance.reliable(self.round))
        if self._passed(self._entered_s + turn * self.grace_s, now_s):
            return held
        return ()

    def _is_lost(self, offer: Offer) -> bool:
        """Nobody serves it to this node, or did not in time."""
        given_up = offer.digest in self._stalled or self._attendance.has_given_up(offer.author)
        return given_up and not self.has(offer)

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
