"""What the ledger says about every round: who offered, who voted for what, what is agreed.

A pure fold over records, in whatever order they arrive; the same records give the same book.
Knows no clock, no socket, no tensor. Spec: docs/wire.md §5.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from ledger.record import (
    Aggregation,
    Close,
    Contribution,
    Input,
    Metrics,
    Open,
    Record,
    Rejection,
    Verified,
)
from ledger.roster import Roster, quorum


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


@dataclass(frozen=True, slots=True)
class Agreed:
    """A proposal that at least q members published, bit for bit equal."""

    round: int
    proposal: Proposal
    voters: tuple[int, ...]


@final
class RoundBook:
    """Everything that the ledger knows about rounds. Feed it with `learn`, in any order."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster
        self.opened: set[int] = set()
        self.closed: set[int] = set()
        self.refused: dict[int, dict[bytes, int]] = defaultdict(dict)
        """author of the REJECTION → {record id that it refuses: reason}"""
        self._offers: dict[int, dict[int, Offer]] = defaultdict(dict)
        self._votes: dict[int, dict[int, Proposal]] = defaultdict(dict)
        self._vote_rosters: dict[int, dict[int, int]] = defaultdict(dict)
        """round → author → roster version that its vote names"""
        self._models: dict[int, dict[int, bytes]] = defaultdict(dict)
        self._results: dict[bytes, set[int]] = defaultdict(set)
        """result of an AGGREGATION → who published it"""
        self._offered: dict[bytes, set[tuple[int, int]]] = defaultdict(set)
        """payload of a CONTRIBUTION → (round, author)"""
        self._agreed: dict[int, Agreed] = {}
        self._last_offer: dict[int, int] = {}
        self._reached: dict[int, int] = {}

    def learn(self, checked: Verified[Record]) -> None:
        """Enter one verified record. Records about nothing that a round needs are ignored."""
        record = checked.value
        author, round_ = record.author, record.round
        self._reached[author] = max(round_, self._reached.get(author, 0))
        match record.body:
            case Open() | Close():
                # Who was removed is not here any more; who was rotated opens anew.
                if self.roster.is_active(author) and record.epoch == self.roster.epoch(author):
                    here = self.opened if isinstance(record.body, Open) else self.closed
                    here.add(author)
            case Contribution() as body:
                offer = Offer(
                    round=round_,
                    author=author,
                    epoch=record.epoch,
                    seq=record.seq,
                    id=checked.id,
                    digest=body.update_digest,
                    bytes_count=body.bytes_count,
                    codec=body.codec,
                    base=body.base_digest,
                    samples=body.samples,
                )
                self._offers[round_].setdefault(author, offer)
                self._offered[body.update_digest].add((round_, author))
                self._last_offer[author] = max(round_, self._last_offer.get(author, -1))
            case Aggregation() as body:
                proposal = Proposal(body.rule, body.inputs, body.result_digest)
                if author not in self._votes[round_]:
                    self._votes[round_][author] = proposal
                    self._vote_rosters[round_][author] = record.roster
                self._results[body.result_digest].add(author)
                self._count(round_, proposal, record.roster)
            case Metrics() as body:
                self._models[round_].setdefault(author, body.model_digest)
            case Rejection() as body:
                self.refused[author][body.target_id] = body.reason
            case _:
                pass

    def _count(self, round_: int, proposal: Proposal, version: int) -> None:
        """A quorum of equal votes under one roster agrees a round; later ones only add voters."""
        rosters = self._vote_rosters[round_]
        voters = tuple(sorted(a for a, vote in self._votes[round_].items() if vote == proposal))
        members = self.roster.active_at(version)
        under = [a for a in voters if rosters[a] == version and a in members]
        if len(under) >= quorum(len(members)):
            self._agreed[round_] = Agreed(round_, proposal, voters)

    def offers(self, round_: int) -> Mapping[int, Offer]:
        """CONTRIBUTIONs of a round by author (an author's first one counts)."""
        return self._offers.get(round_, {})

    def votes(self, round_: int) -> Mapping[int, Proposal]:
        """AGGREGATIONs of a round by author (an author's first one is its vote)."""
        return self._votes.get(round_, {})

    def models(self, round_: int) -> Mapping[int, bytes]:
        """Digest of the model that each author evaluated at the end of a round."""
        return self._models.get(round_, {})

    def agreed(self, round_: int) -> Agreed | None:
        """What q members agree on for a round, or None while it is open or provisional."""
        return self._agreed.get(round_)

    def agreed_rounds(self) -> tuple[int, ...]:
        """Every agreed round, in order."""
        return tuple(sorted(self._agreed))

    def latest_agreed(self, *, before: int | None = None) -> Agreed | None:
        """The newest agreed round (below ``before``)."""
        rounds = [r for r in self._agreed if before is None or r < before]
        return self._agreed[max(rounds)] if rounds else None

    def latest_model(self, author: int, *, before: int | None = None) -> tuple[int, bytes] | None:
        """The newest round (below ``before``) that ``author`` evaluated, and the model it used."""
        rounds = [
            r for r, by in self._models.items() if author in by and (before is None or r < before)
        ]
        return (max(rounds), self._models[max(rounds)][author]) if rounds else None

    def may_fetch(self, author: int, digest: bytes) -> bool:
        """Commit before you read: a round's payload is for those who contributed to that round.

        What nobody offered, and what more than f members (so an honest one) published as a result,
        is for every member. That ``author`` offered the digest himself opens nothing.
        """
        offered = self._offered.get(digest, set())
        if not offered or len(self._results.get(digest, ())) > self.roster.f:
            return True
        return any(by != author and author in self.offers(round_) for round_, by in offered)

    def is_result(self, digest: bytes) -> bool:
        """Tell whether anybody published ``digest`` as the result of a round."""
        return digest in self._results

    def last_offer_round(self, author: int) -> int:
        """The newest round that ``author`` contributed to; −1 before its first."""
        return self._last_offer.get(author, -1)

    def reached(self, author: int) -> int:
        """The newest round that any record of ``author`` belongs to: its log goes back no more."""
        return self._reached.get(author, 0)

    def active(self, round_: int, *, inactive_after: int, first_round: int) -> frozenset[int]:
        """Members worth waiting for: open, and heard from in the last ``inactive_after`` rounds."""
        here = self.opened - self.closed
        if round_ - first_round < inactive_after:
            return frozenset(here)
        recent = range(round_ - inactive_after, round_ + 1)
        return frozenset(a for a in here if any(a in self._offers.get(r, {}) for r in recent))

    def round_ahead(self, own: int) -> int:
        """The highest round that more than f others have reached, so at least one honest member."""
        rounds = sorted(
            (self.last_offer_round(m.index) for m in self.roster.active if m.index != own),
            reverse=True,
        )
        return rounds[self.roster.f] if len(rounds) > self.roster.f else -1
