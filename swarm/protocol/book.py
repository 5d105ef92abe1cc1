"""What the ledger says about every round: who offered, who voted for what, what is agreed.

A pure fold over records, in whatever order they arrive; the same records give the same book.
Knows no clock, no socket, no tensor. Spec: docs/wire.md §5.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, final

from ledger.electorate import NOBODY, is_quorum
from ledger.record import (
    Aggregation,
    Close,
    CloseReason,
    Contribution,
    Input,
    MetricId,
    Metrics,
    Open,
    Record,
    Rejection,
    Rule,
    Verified,
)
from ledger.roster import Roster
from swarm.protocol.ballots import is_confirmation

LOSSES: Final = frozenset({MetricId.LOG_LOSS, MetricId.MSE})
"""What training makes smaller: one of them for each kind of head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A CONTRIBUTION as a round sees it: a payload that its author promises to serve."""

    round: int
    author: int
    epoch: int
    seq: int
    id: bytes
    digest: bytes
    bytes_count: int
    codec: int
    base: bytes
    samples: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """What an AGGREGATION claims: these inputs, with these weights, give this result."""

    rule: int
    inputs: tuple[Input, ...]
    result: bytes


Ballot: TypeAlias = tuple[int, int]
"""Round and number; only round zero has more than number 0 (attempts.py)."""


@dataclass(frozen=True, slots=True)
class Agreed:
    """A proposal that at least q members published, bit for bit equal."""

    round: int
    proposal: Proposal
    voters: tuple[int, ...]


@final
class RoundBook:
    """Everything that the ledger knows about rounds. Feed it with `learn`, in any order."""

    def __init__(
        self,
        roster: Roster,
        *,
        contribution_first: bool = False,
        is_gossip: bool = False,
        commit_lag: int = 0,
    ) -> None:
        """Begin with nothing.

        contribution_first: models are for those only who have contributed (charter: newcomers).
        is_gossip: everybody averages with neighbours; equal results mean no agreement. commit_lag: how
        many rounds before a payload's own a contribution may be that gives a claim to it.
        """
        self.roster = roster
        self.is_gossip = is_gossip
        self.version = 0
        """Grows with everything that is learned: who has worked something out need not do it again."""
        self._contribution_first = contribution_first
        self._commit_lag = commit_lag
        self.opened: set[int] = set()
        self.closed: set[int] = set()
        self.left: set[int] = set()
        """Of the closed, who left before the end."""
        self.refused: dict[int, dict[bytes, int]] = defaultdict(dict)
        """author of the REJECTION → {record id that it refuses: reason}"""
        self._offers: dict[int, dict[int, Offer]] = defaultdict(dict)
        """round → author → its first offer in its first epoch that has one"""
        self._epochs_offers: dict[int, dict[tuple[int, int], Offer]] = defaultdict(dict)
        """round → (author, epoch) → its first offer"""
        self._votes: dict[Ballot, dict[int, Proposal]] = defaultdict(dict)
        self._backers: dict[Ballot, dict[Proposal, list[int]]] = defaultdict(dict)
        """ballot → what was voted for → by whom"""
        self._vote_rosters: dict[Ballot, dict[int, int]] = defaultdict(dict)
        """ballot → author → roster version that its vote names"""
        self._newest: dict[int, dict[int, int]] = defaultdict(dict)
        """round → author → newest ballot that it voted in"""
        self._cast: dict[tuple[int, int], list[int]] = defaultdict(list)
        """(author, epoch) → ballots of round zero that it voted in, in order"""
        self._turnouts: set[int] = set()
        """ballots of round zero in which more than f members have voted"""
        self._models: dict[int, dict[int, bytes]] = defaultdict(dict)
        self._losses: dict[int, dict[int, tuple[bytes, int]]] = defaultdict(dict)
        self._results: dict[bytes, set[int]] = defaultdict(set)
        """result of an AGGREGATION → who published it"""
        self._offered: dict[bytes, dict[int, int]] = defaultdict(dict)
        """payload of a CONTRIBUTION → author → its first round with it"""
        self._by_id: dict[bytes, Offer] = {}
        self._are_models: set[bytes] = set()
        """results that are models, not moments"""
        self._named: dict[bytes, int] = {}
        """payload → newest round in which it was offered or published"""
        self._uses: dict[bytes, set[int]] = defaultdict(set)
        """payload → rounds of records that name it, also as a base"""
        self._agreed: dict[int, Agreed] = {}
        self._newest_agreed, self._lag = -1, 0
        self._agreed_models: set[bytes] = set()
        self._last_offer: dict[int, int] = {}
        self._evaluated: dict[int, int] = {}
        self._reached: dict[int, int] = {}
        self._frozen: dict[tuple[int, int], int] = {}
        """(author, epoch) → first slot that its key has signed twice"""

    def freeze(self, author: int, epoch: int, seq: int) -> None:
        """A log forks at ``seq``: its author is not waited for until it has a new epoch."""
        self.version += 1
        self._frozen[author, epoch] = min(seq, self._frozen.get((author, epoch), seq))
        for ballot, backers in self._backers.items():
            for proposal in backers:
                self._count(ballot, proposal)

    def is_frozen(self, author: int) -> bool:
        """Tell whether the log that an author writes now is frozen."""
        return (author, self.roster.epoch(author)) in self._frozen

    def is_behind_fork(self, offer: Offer) -> bool:
        """Tell whether others may have been shown another record in an offer's place."""
        return offer.seq >= self._frozen.get((offer.author, offer.epoch), offer.seq + 1)

    def learn(self, checked: Verified[Record]) -> None:
        """Enter one verified record. Records about nothing that a round needs are ignored."""
        self.version += 1
        record = checked.value
        author, round_ = record.author, record.round
        self._reached[author] = max(round_, self._reached.get(author, 0))
        match record.body:
            case Open() | Close():
                # Who was removed is not here any more; who was rotated opens anew.
                if self.roster.is_active(author) and record.epoch == self.roster.epoch(author):
                    self._learn_presence(author, record.body)
            case Contribution() as body:
                self._learn_offer(checked, body)
            case Aggregation() as body:
                self._learn_vote(record, body)
            case Metrics() as body:
                self._models[round_].setdefault(author, body.model_digest)
                self._evaluated[author] = max(round_, self._evaluated.get(author, -1))
                self._learn_loss(author, round_, body)
            case Rejection() as body:
                self.refused[author][body.target_id] = body.reason
            case _:
                pass

    def _learn_offer(self, checked: Verified[Record], body: Contribution) -> None:
        author, round_ = checked.value.author, checked.value.round
        offer = Offer(
            round=round_,
            author=author,
            epoch=checked.value.epoch,
            seq=checked.value.seq,
            id=checked.id,
            digest=body.update_digest,
            bytes_count=body.bytes_count,
            codec=body.codec,
            base=body.base_digest,
            samples=body.samples,
        )
        first = self._epochs_offers[round_].setdefault((author, offer.epoch), offer)
        if first is offer:
            self._name(body.update_digest, round_)
            self._uses[body.base_digest].add(round_)
        before = self._offers[round_].get(author)
        if before is None or first.epoch < before.epoch:
            self._offers[round_][author] = first
        self._by_id[checked.id] = offer
        offered = self._offered[body.update_digest]
        offered[author] = min(round_, offered.get(author, round_))
        self._last_offer[author] = max(round_, self._last_offer.get(author, -1))

    def _learn_vote(self, record: Record, body: Aggregation) -> None:
        author, round_ = record.author, record.round
        proposal = Proposal(body.rule, body.inputs, body.result_digest)
        again = round_ == 0 and body.rule == Rule.MOMENTS and body.parameters
        number = body.parameters[0] if again else 0
        ballot = round_, number
        if round_ == 0:
            cast = self._cast[author, record.epoch]
            if cast and number <= cast[-1]:
                return  # an auditor refuses it
            cast.append(number)
        if author not in self._votes[ballot]:
            backers = self._backers[ballot]
            proposal = next((one for one in backers if one == proposal), proposal)  # kept once
            self._votes[ballot][author] = proposal
            backers.setdefault(proposal, []).append(author)
            self._vote_rosters[ballot][author] = record.roster
            self._name(body.result_digest, round_)
        newest = self._newest[round_]
        newest[author] = max(number, newest.get(author, 0))
        self._results[body.result_digest].add(author)
        if body.rule != Rule.MOMENTS:
            self._are_models.add(body.result_digest)
        if round_ == 0 and len(self._votes[ballot]) > self.roster.f:
            self._turnouts.add(number)
        self._count(ballot, proposal)

    def _learn_presence(self, author: int, body: Open | Close) -> None:
        if isinstance(body, Open):
            self.opened.add(author)
            return
        self.closed.add(author)
        if body.reason == CloseReason.LEFT:
            self.left.add(author)

    def _learn_loss(self, author: int, round_: int, body: Metrics) -> None:
        for one in body.values:
            if one.metric in LOSSES:
                self._losses[round_].setdefault(author, (body.model_digest, one.micro))

    def _count(self, ballot: Ballot, proposal: Proposal) -> None:
        """A quorum of equal votes of one electorate agrees a round; later ones only add voters.

        Proven liars count as neither members nor liars: q - k of the others are enough. Two results
        cannot both get that many, nor one that and the other q: 2·q > n + f. What removed ones
        change: ledger/electorate.py. In round zero confirmations agree, not votes.
        """
        round_, number = ballot
        if round_ == 0:
            agrees = is_confirmation(number) and self._wins(ballot, proposal)
        else:
            agrees = not self.is_gossip and self._wins(ballot, proposal)
        if agrees:
            voters = tuple(sorted(self._backers[ballot][proposal]))
            before = self._agreed.get(round_)
            if before is None or before.proposal == proposal:
                self._agreed[round_] = Agreed(round_, proposal, voters)
                self._newest_agreed = max(round_, self._newest_agreed)
            if proposal.rule != Rule.MOMENTS:
                self._agreed_models.add(proposal.result)

    def _wins(self, ballot: Ballot, proposal: Proposal) -> bool:
        """Whether the votes for a proposal in one ballot are a quorum's."""
        backers, rosters = self._backers[ballot].get(proposal, ()), self._vote_rosters[ballot]
        named = {author: rosters[author] for author in backers}
        return is_quorum(self.roster, named, proven=self.proven_in(ballot, named.values()))

    def proven_in(self, ballot: Ballot, versions: Collection[int]) -> frozenset[int]:
        """Proven liars of an electorate; versions: of the rosters that its votes name.

        In round zero whoever was one under any roster with these members.
        """
        if not self._frozen:
            return NOBODY
        if ballot[0] != 0:
            return self.proven_under(versions)
        electorates = {self.roster.active_at(version) for version in versions}
        every = range(self.roster.version + 1)
        return self.proven_under([v for v in every if self.roster.active_at(v) in electorates])

    def winner(self, round_: int, number: int) -> Proposal | None:
        """What a quorum voted for in one ballot."""
        ballot = round_, number
        backers = self._backers.get(ballot, {})
        return next((one for one in backers if self._wins(ballot, one)), None)

    def proven_under(self, versions: Collection[int]) -> frozenset[int]:
        """Whose log of the time of these rosters has two histories, whatever became of them since."""
        return frozenset(
            author
            for author, epoch in self._frozen
            if any(self.roster.term(author, epoch).covers(version) for version in versions)
        )

    def offers(self, round_: int) -> Mapping[int, Offer]:
        """CONTRIBUTIONs of a round by author (an author's first one counts).

        One behind a fork is none any more, unless somebody has voted for it already; a rotated author
        offers anew.
        """
        offers = self._offers.get(round_, {})
        if not self._frozen:
            return offers
        voted = {
            one.id
            for author, vote in self.votes(round_).items()
            if not self._is_hidden((round_, self._newest[round_][author]), author)
            for one in vote.inputs
        }
        found: dict[int, Offer] = {}
        for (author, _), offer in sorted(self._epochs_offers.get(round_, {}).items()):
            if offer.id in voted or not self.is_behind_fork(offer):
                found.setdefault(author, offer)
        return found

    def votes(self, round_: int) -> Mapping[int, Proposal]:
        """Every author's vote of a round: its first AGGREGATION, in round zero of its newest ballot."""
        if round_ != 0:
            return self._votes.get((round_, 0), {})
        newest = self._newest.get(round_, {})
        return {author: self._votes[round_, number][author] for author, number in newest.items()}

    def votes_most(self, round_: int) -> int:
        """How many votes the result of a round above zero has that has most."""
        return max(map(len, self._backers.get((round_, 0), {}).values()), default=0)

    def newest_ballots(self, round_: int) -> Mapping[int, int]:
        """The newest ballot of a round that each author has voted in (always 0 but in round zero)."""
        return self._newest.get(round_, {})

    def turnouts(self) -> tuple[int, ...]:
        """Round zero's ballots in which more than f members have voted, the last one first.

        Nothing wins in others: liars alone may sign as many as their logs may hold.
        """
        return tuple(sorted(self._turnouts, reverse=True))

    def cast(self, author: int) -> tuple[int, ...]:
        """Round zero's ballots in which a member has voted, the last one first."""
        numbers = {n for (of, _), cast in self._cast.items() if of == author for n in cast}
        return tuple(sorted(numbers, reverse=True))

    def ballot(self, round_: int, number: int) -> Mapping[int, Proposal]:
        """Votes of members in one ballot.

        Not of one whose log forks: others may have seen another vote of it, so nobody can say what it
        voted for.
        """
        return {
            author: vote
            for author, vote in self._votes.get((round_, number), {}).items()
            if self.roster.is_active(author) and not self._is_hidden((round_, number), author)
        }

    def _is_hidden(self, ballot: Ballot, author: int) -> bool:
        """Whether others may hold another vote: the log that it is in has two histories."""
        if not self._frozen:
            return False
        return author in self.proven_under((self._vote_rosters[ballot][author],))

    def vote(self, round_: int, number: int, author: int) -> Proposal | None:
        """What a member voted for in one ballot, as far as is known here."""
        return self._votes.get((round_, number), {}).get(author)

    def backers(self, round_: int, number: int, proposal: Proposal) -> frozenset[int]:
        """Who voted for a proposal in one ballot."""
        return frozenset(self._backers.get((round_, number), {}).get(proposal, ()))

    def electorates(self, round_: int, number: int) -> frozenset[frozenset[int]]:
        """The members of the rosters that the votes of one ballot name."""
        versions = self._vote_rosters.get((round_, number), {}).values()
        return frozenset(self.roster.active_at(version) for version in versions)

    def roster_of_vote(self, round_: int, number: int, author: int) -> int:
        """The roster version that a vote names."""
        return self._vote_rosters[round_, number][author]

    def offer(self, id_: bytes) -> Offer | None:
        """The CONTRIBUTION with this id."""
        return self._by_id.get(id_)

    def offerers(self, digest: bytes) -> frozenset[int]:
        """Who has ever offered a payload."""
        return frozenset(self._offered.get(digest, ()))

    def models(self, round_: int) -> Mapping[int, bytes]:
        """Digest of the model that each author evaluated at the end of a round."""
        return self._models.get(round_, {})

    def losses(self, round_: int) -> Mapping[int, tuple[bytes, int]]:
        """By author: the model that it evaluated at the end of a round, and its loss in millionths."""
        return self._losses.get(round_, {})

    def agreed(self, round_: int) -> Agreed | None:
        """What q members agree on for a round, or None while it is open or provisional."""
        return self._agreed.get(round_) if self._is_shown(round_) else None

    def agreed_rounds(self) -> tuple[int, ...]:
        """Every agreed round, in order."""
        return tuple(sorted(filter(self._is_shown, self._agreed)))

    def latest_agreed(self, *, before: int | None = None) -> Agreed | None:
        """The newest agreed round (below ``before``)."""
        rounds = [r for r in self.agreed_rounds() if before is None or r < before]
        return self._agreed[max(rounds)] if rounds else None

    def lag(self, rounds: int) -> None:
        """See the newest ``rounds`` agreed rounds as if they were still open: others withhold them."""
        if rounds != self._lag:
            self._lag = rounds
            self.version += 1

    def _is_shown(self, round_: int) -> bool:
        return not self._lag or round_ == 0 or round_ <= self._newest_agreed - self._lag

    def latest_model(self, author: int, *, before: int | None = None) -> tuple[int, bytes] | None:
        """The newest round (below ``before``) that ``author`` evaluated, and the model it used."""
        rounds = [
            r for r, by in self._models.items() if author in by and (before is None or r < before)
        ]
        return (max(rounds), self._models[max(rounds)][author]) if rounds else None

    def latest_merge(self, author: int) -> tuple[int, Proposal] | None:
        """The newest round above 0 that ``author`` has merged, and what it published."""
        rounds = [r for (r, _), votes in self._votes.items() if r > 0 and author in votes]
        return (max(rounds), self._votes[max(rounds), 0][author]) if rounds else None

    def may_fetch(self, author: int, digest: bytes, *, server: int | None = None) -> bool:
        """Commit before you read: a payload is for those who contributed to its round or a later one.

        Their contribution must be another payload: who offers what he has not got is given nothing
        for it. What nobody offered, and what more than f members (so an honest one) published as a
        result, is for every member; a model perhaps only for those who have contributed at all.

        server: who is asked. Where several offer one payload its own offer counts, else that of the
        latest round which it has contributed to itself: a copy under an earlier round opens nothing,
        and no copy keeps back what its author serves.
        """
        offered = self._offered.get(digest, {})
        if not offered or len(self._results.get(digest, ())) > self.roster.f:
            withheld = self._contribution_first and digest in self._are_models
            return not withheld or self.last_offer_round(author) > 0
        rounds = [round_ for by, round_ in offered.items() if by != author]
        if not rounds:
            return False
        reached = -1 if server is None else self.last_offer_round(server)
        latest = max((one for one in rounds if one <= reached), default=min(rounds))
        round_ = latest if server is None else offered.get(server, latest)
        return self._has_committed(author, round_, digest)

    def _has_committed(self, author: int, round_: int, digest: bytes) -> bool:
        """A log's rounds do not go back: who contributed later has nothing more to copy into this one."""
        rounds = {round_, self.last_offer_round(author)}
        own = [self._offers[r].get(author) for r in rounds if r >= round_ - self._commit_lag]
        return any(offer is not None and offer.digest != digest for offer in own)

    def _name(self, digest: bytes, round_: int) -> None:
        self._named[digest] = max(round_, self._named.get(digest, round_))
        self._uses[digest].add(round_)

    def newest_round_of(self, digest: bytes) -> int | None:
        """The newest round in which anybody offered ``digest`` or published it as a result."""
        return self._named.get(digest)

    def newest_use_of(self, digest: bytes, *, until: int) -> int | None:
        """The same, or in which anybody trained from it: a merge of that round may start there.

        until: no later round counts if an earlier one names it: a log may leap ahead, and would keep
        payloads for ever.
        """
        rounds = self._uses.get(digest)
        if not rounds:
            return None
        return max((one for one in rounds if one <= until), default=min(rounds))

    def is_agreed_result(self, digest: bytes) -> bool:
        """Tell whether a quorum ever agreed on ``digest`` as a model."""
        return digest in self._agreed_models

    def is_merged(self, offer: Offer) -> bool:
        """Tell whether an agreed result has a contribution among its inputs."""
        later = (agreed for round_, agreed in self._agreed.items() if round_ >= offer.round)
        return any(one.id == offer.id for agreed in later for one in agreed.proposal.inputs)

    def is_result(self, digest: bytes) -> bool:
        """Tell whether anybody published ``digest`` as the result of a round."""
        return digest in self._results

    def last_offer_round(self, author: int) -> int:
        """The newest round that ``author`` contributed to; −1 before its first."""
        return self._last_offer.get(author, -1)

    def reached(self, author: int) -> int:
        """The newest round that any record of ``author`` belongs to: its log goes back no more."""
        return self._reached.get(author, 0)

    def has_passed(self, author: int, round_: int) -> bool:
        """Whether nothing of a round can come from ``author`` any more that is not here already."""
        over = author in self.closed or self.is_frozen(author)
        return over or self.reached(author) > round_

    def here(self) -> frozenset[int]:
        """Members who have opened, have not closed, and whose log is not frozen."""
        return frozenset(one for one in self.opened - self.closed if not self.is_frozen(one))

    def active(self, round_: int, *, inactive_after: int, first_round: int) -> frozenset[int]:
        """Members worth waiting for: open, and heard from in the last ``inactive_after`` rounds."""
        here = self.here()
        if round_ - first_round < inactive_after:
            return here
        recent = range(round_ - inactive_after, round_ + 1)
        return frozenset(a for a in here if any(a in self._offers.get(r, {}) for r in recent))

    def round_ahead(self, own: int) -> int:
        """The highest round that more than f others have offered in, so at least one honest member."""
        return self._shared_by_others(own, self.last_offer_round)

    def round_begun(self, own: int) -> int:
        """The same, or the one after the highest that more than f others have evaluated."""
        return self._shared_by_others(
            own,
            lambda author: max(self.last_offer_round(author), self._evaluated.get(author, -1) + 1),
        )

    def _shared_by_others(self, own: int, round_of: Callable[[int], int]) -> int:
        others = (member.index for member in self.roster.active if member.index != own)
        rounds = sorted(map(round_of, others), reverse=True)
        return rounds[self.roster.f] if len(rounds) > self.roster.f else -1
