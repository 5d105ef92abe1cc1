"""What the records of each round say about its members. Room: ledger. Spec: docs/reputation.md §5.

A pure fold over a set of records: any order gives the same evidence, and records of later rounds
change nothing about an earlier one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate, pairwise
from typing import Final, Protocol, TypeAlias

from .bodies import (
    Codec,
    Contribution,
    EvaluationCommit,
    EvaluationReveal,
    ForkProof,
    Reason,
    Rejection,
    Sketch,
)
from .charter import MEMBERS_MAX
from .errors import VerificationError
from .evaluation import EvaluationAudit
from .fork import check_fork_proof
from .panel import agreed_inputs, evaluators, seed_of_round
from .record import Record, RecordId
from .roster import Roster, quorum, tolerated

_CODES_OF_OPENING: Final = ("E_REVEAL_REF", "E_REVEAL")
Log: TypeAlias = tuple[int, int]  # (author, epoch)


class Checked(Protocol):
    """A record that has been verified, and its id."""

    @property
    def value(self) -> Record:
        """The record."""

    @property
    def id(self) -> RecordId:
        """Its id."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One that is kept without its bytes."""

    value: Record
    id: RecordId


class Offence(IntEnum):
    """What costs a fixed penalty."""

    FORK = 1  # two records for one slot
    UNREVEALED = 2  # a commit whose author went on to a later round without opening it
    BASE = 3  # an update equal to the model it started from
    COPY = 4  # an update equal to another's that its author provably had
    FALSE_SKETCH = 5  # a sketch that more members than may lie have found false


@dataclass(frozen=True, slots=True, order=True)
class Proof:
    """One offence of one member and the records that prove it."""

    member: int
    offence: Offence
    records: tuple[RecordId, ...]


@dataclass(frozen=True, slots=True)
class Scored:
    """One score: by how much the loss is lower with the contribution than without."""

    member: int
    target_id: RecordId
    change_micro: int


@dataclass(frozen=True, slots=True)
class Ballot:
    """One evaluator's opened scores of one round."""

    evaluator: int
    commit_id: RecordId
    reveal_id: RecordId
    scores: tuple[Scored, ...]
    offers: tuple[int, ...] | None = None
    """Who contributed to the round that it scores, by member; None: the ballot's own round."""


@dataclass(frozen=True, slots=True)
class RoundEvidence:
    """All that the arithmetic of one round needs."""

    round: int
    offers: tuple[tuple[int, RecordId], ...]  # (member, its contribution), by member
    ballots: tuple[Ballot, ...]  # by evaluator
    proofs: tuple[Proof, ...]  # sorted
    roster: int = 0  # newest roster version named by a record of this round or an earlier one


class _Round:
    def __init__(self) -> None:
        self.offers: dict[int, tuple[Checked, Contribution]] = {}
        self.ballots: dict[int, Ballot] = {}
        self.proofs: list[Proof] = []


def gather(
    records: Collection[Checked],
    roster: Roster,
    *,
    strict: bool = True,
    evaluators_max: int | None = None,
) -> tuple[RoundEvidence, ...]:
    """Return the evidence of every round that has any, in the order of rounds.

    records: what has passed steps 1 to 12; the same one may come twice. Raises VerificationError
    with the codes of steps 13 and 14, and E_FORK if the set holds both branches of a fork.
    strict: False for a node, which may hold what an auditor refuses, or not yet all that is
    referred to: such a REVEAL opens nothing, or says nothing; such a FORK_PROOF proves nothing.
    evaluators_max: the charter's; None: everybody evaluates.
    """
    ordered = _in_order(records)
    forked = _forked(ordered, roster, strict=strict)
    audit, closed, blank = _judge(ordered, strict=strict, complete=strict and not forked)
    rounds: defaultdict[int, _Round] = defaultdict(_Round)
    versions = _versions(ordered)
    panels = _Panels(ordered, roster, versions, evaluators_max)
    _collect(ordered, audit, closed | blank, rounds, panels)
    for (member, _), (number, id_) in forked.items():
        rounds[number].proofs.append(Proof(member, Offence.FORK, (id_,)))
    _find_unrevealed(ordered, closed, rounds)
    _find_false_sketches(ordered, roster, versions, rounds)
    members = {r: roster.active_at(versions[r]) for r in rounds}
    _find_equal_updates(ordered, members, rounds, forked)
    return tuple(
        RoundEvidence(
            round=number,
            offers=tuple((member, found.offers[member][0].id) for member in sorted(found.offers)),
            ballots=tuple(ballot for _, ballot in sorted(found.ballots.items())),
            proofs=tuple(sorted(found.proofs)),
            roster=versions[number],
        )
        for number, found in sorted(rounds.items())
    )


def _judge(
    ordered: list[Checked], *, strict: bool, complete: bool
) -> tuple[EvaluationAudit, set[RecordId], set[RecordId]]:
    """Step 13. Returns what may be scored, and the reveals that open nothing, or say nothing.

    There are none of these where ``strict``: it raises instead.
    """
    audit = EvaluationAudit()
    for one in ordered:  # targets first, so that no reveal has to wait
        if isinstance(one.value.body, Contribution):
            audit.learn(one.value, one.id)
    closed: set[RecordId] = set()
    blank: set[RecordId] = set()
    for one in ordered:
        if not isinstance(one.value.body, Contribution):
            try:
                audit.learn(one.value, one.id)
            except VerificationError as error:
                if strict:
                    raise
                (closed if error.code in _CODES_OF_OPENING else blank).add(one.id)
    by_slot = {slot_of(one): one.id for one in ordered}
    for reveal, refusal in audit.settle(complete=complete):
        if strict:
            raise refusal
        blank.add(by_slot[reveal.author, reveal.epoch, reveal.seq])
    return audit, closed, blank


def _in_order(records: Collection[Checked]) -> list[Checked]:
    ordered = sorted(
        {one.id: one for one in records}.values(),
        key=slot_of,
    )
    for one, after in pairwise(ordered):
        slot = slot_of(one)
        if slot == slot_of(after):
            raise VerificationError(
                "E_FORK", "the set holds two records for one slot; one branch stands at most",
                author=slot[0], epoch=slot[1], seq=slot[2],
            )  # fmt: skip
    return ordered


def _versions(ordered: list[Checked]) -> dict[int, int]:
    """Return the roster version of every round; like a log's, it never goes back."""
    named: defaultdict[int, int] = defaultdict(int)
    for one in ordered:
        named[one.value.round] = max(named[one.value.round], one.value.roster)
    rounds = sorted(named)
    return dict(zip(rounds, accumulate((named[one] for one in rounds), max), strict=True))


def _collect(
    ordered: list[Checked],
    audit: EvaluationAudit,
    void: Collection[RecordId],
    rounds: defaultdict[int, _Round],
    panels: _Panels,
) -> None:
    """Contributions and ballots; of several by one member the earliest counts."""
    by_slot = {slot_of(one): one for one in ordered}
    for one in ordered:
        body = one.value.body
        if isinstance(body, Contribution) and body.codec != Codec.MOMENTS:
            rounds[one.value.round].offers.setdefault(one.value.author, (one, body))
    for one in ordered:
        record, body = one.value, one.value.body
        if isinstance(body, EvaluationReveal) and one.id not in void:
            commit = by_slot[record.author, record.epoch, body.commit_seq]
            # Others are of a branch that does not stand, or not here yet.
            scores = [score for score in body.scores if score.target_id in audit.targets]
            of_round = next((audit.targets[one.target_id].round for one in scores), record.round)
            if record.author not in panels.of(of_round):
                continue
            ballot = Ballot(
                record.author,
                commit.id,
                one.id,
                tuple(
                    Scored(
                        audit.targets[score.target_id].author,
                        score.target_id,
                        score.loss_without_micro - score.loss_with_micro,
                    )
                    for score in scores
                ),
                None if of_round == record.round else tuple(sorted(rounds[of_round].offers)),
            )
            rounds[record.round].ballots.setdefault(record.author, ballot)


class _Panels:
    """Who evaluates which round."""

    def __init__(
        self,
        ordered: list[Checked],
        roster: Roster,
        versions: Mapping[int, int],
        evaluators_max: int | None,
    ) -> None:
        self._roster = roster
        self._versions = versions
        self._most = evaluators_max
        is_drawn = evaluators_max is not None and any(
            len(roster.active_at(version)) > evaluators_max for version in set(versions.values())
        )
        self._agreed = agreed_inputs(ordered, roster) if is_drawn else {}
        self._known: dict[int, Collection[int]] = {}

    def of(self, round_: int) -> Collection[int]:
        """Return the members whose ballots about ``round_`` count."""
        if self._most is None:
            return range(MEMBERS_MAX)
        if round_ not in self._known:
            seed = seed_of_round(self._roster.net, round_, self._agreed.get(round_))
            members = self._roster.active_at(self._versions.get(round_, 0))
            self._known[round_] = evaluators(seed, members, self._most)
        return self._known[round_]


def _forked(
    ordered: list[Checked], roster: Roster, *, strict: bool
) -> dict[Log, tuple[int, RecordId]]:
    """Return every log that a FORK_PROOF proves to fork: round and id of the first such record."""
    first: dict[Log, tuple[int, RecordId]] = {}
    for one in ordered:
        if isinstance(one.value.body, ForkProof):
            try:
                fork = check_fork_proof(one.value.body, roster)
            except VerificationError as error:
                if not strict:
                    continue
                record = one.value
                raise error.locate(
                    author=record.author, epoch=record.epoch, seq=record.seq
                ) from None
            log, found = (fork.author, fork.epoch), (one.value.round, one.id)
            first[log] = min(first.get(log, found), found)
    return first


def _find_unrevealed(
    ordered: list[Checked], closed: Collection[RecordId], rounds: defaultdict[int, _Round]
) -> None:
    """Rounds never go back in a log, so its first record of a later round closes the commits."""
    log: Log | None = None
    pending: dict[int, Checked] = {}
    for one in ordered:
        record = one.value
        if (record.author, record.epoch) != log:
            log, pending = (record.author, record.epoch), {}
        for seq, commit in list(pending.items()):
            if record.round > commit.value.round:
                proof = Proof(record.author, Offence.UNREVEALED, (commit.id, one.id))
                rounds[record.round].proofs.append(proof)
                del pending[seq]
        if isinstance(record.body, EvaluationCommit):
            pending[record.seq] = one
        elif isinstance(record.body, EvaluationReveal) and one.id not in closed:
            pending.pop(record.body.commit_seq, None)


def _find_false_sketches(
    ordered: list[Checked],
    roster: Roster,
    versions: Mapping[int, int],
    rounds: defaultdict[int, _Round],
) -> None:
    """A sketch that more than f other members, and at least two, have refused as false.

    In the round of the first refusal that makes them so many. An honest one is among them.
    """
    sketches = {one.id: one for one in ordered if isinstance(one.value.body, Sketch)}
    refusals: defaultdict[RecordId, dict[int, Checked]] = defaultdict(dict)
    for one in sorted(ordered, key=lambda one: (one.value.round, one.id)):
        body = one.value.body
        if not isinstance(body, Rejection) or body.reason != Reason.FALSE_SKETCH:
            continue
        sketch, found = sketches.get(body.target_id), refusals[body.target_id]
        members = roster.active_at(versions[one.value.round])
        needed = max(tolerated(len(members)) + 1, 2)
        if sketch is None or one.value.author not in members - {sketch.value.author, *found}:
            continue
        found[one.value.author] = one
        if len(found) == needed:
            proof = (sketch.id, *(refusal.id for refusal in found.values()))
            rounds[one.value.round].proofs.append(
                Proof(sketch.value.author, Offence.FALSE_SKETCH, proof)
            )


def _find_equal_updates(
    ordered: list[Checked],
    members: Mapping[int, frozenset[int]],
    rounds: defaultdict[int, _Round],
    forked: Collection[Log],
) -> None:
    """An update that is its own base, or another's that its author provably had."""
    by_digest: defaultdict[bytes, list[Checked]] = defaultdict(list)
    for found in list(rounds.values()):
        for member, (one, body) in found.offers.items():
            if body.update_digest == body.base_digest:
                found.proofs.append(Proof(member, Offence.BASE, (one.id,)))
            else:
                by_digest[body.update_digest].append(one)
    groups = [group for group in by_digest.values() if len(group) > 1]
    if not groups:
        return
    covers = _Covers(ordered, forked)
    for group in groups:
        # Whoever held a later one of a log held its first: one original an author is enough.
        firsts: dict[int, Checked] = {}
        for one in sorted(group, key=slot_of):
            firsts.setdefault(one.value.author, one)
        originals = sorted(firsts.values(), key=lambda one: (one.value.round, one.id))
        for copy in group:
            proofs = (
                _copied(copy, original, covers, members[copy.value.round])
                for original in originals
                if original.value.author != copy.value.author
            )
            proof = next((one for one in proofs if one is not None), None)
            if proof is not None:
                rounds[copy.value.round].proofs.append(proof)


def _copied(
    copy: Checked, original: Checked, covers: _Covers, members: frozenset[int]
) -> Proof | None:
    """Return what proves that ``copy`` came after another member's equal update."""
    record = copy.value
    held = covers.held_by(record.author, original)
    if held is not None and slot_of(held) <= slot_of(copy):
        return Proof(record.author, Offence.COPY, (copy.id, original.id, held.id))
    before = covers.held_before(original, record.round, members)
    needed = quorum(len(members))
    if len(before) < needed:
        return None
    witnesses = tuple(one.id for one in before[:needed])
    return Proof(record.author, Offence.COPY, (copy.id, original.id, *witnesses))


def slot_of(one: Checked) -> tuple[int, int, int]:
    """Return where a record stands: author, epoch, seq."""
    return one.value.author, one.value.epoch, one.value.seq


class _Covers:
    """Who shows in which record first that it holds a given one."""

    def __init__(self, ordered: list[Checked], forked: Collection[Log]) -> None:
        # Who has acked another branch of a forked log held no record of this one.
        ids = {slot_of(one): one.id for one in ordered if slot_of(one)[:2] in forked}
        # (log, member) → the member's records that ack more of the log than any before, and how far
        self._records: defaultdict[tuple[Log, int], list[Checked]] = defaultdict(list)
        self._reached: defaultdict[tuple[Log, int], list[int]] = defaultdict(list)
        for one in ordered:
            for ack in one.value.acks:
                slot = (ack.author, ack.epoch, ack.seq)
                if slot[:2] in forked and ids.get(slot) != ack.id:
                    continue
                key = (ack.author, ack.epoch), one.value.author
                reached = self._reached[key]
                if not reached or ack.seq > reached[-1]:
                    reached.append(ack.seq)
                    self._records[key].append(one)

    def held_by(self, member: int, held: Checked) -> Checked | None:
        """Return the first record of ``member`` that acks ``held`` or a later one of its log."""
        author, epoch, seq = slot_of(held)
        key = (author, epoch), member
        at = bisect_left(self._reached[key], seq)
        return self._records[key][at] if at < len(self._records[key]) else None

    def held_before(self, held: Checked, round_: int, members: frozenset[int]) -> list[Checked]:
        """Return the first such record of every member where it is of a round below ``round_``.

        The author shows it by the record itself and comes first, the others by number.
        """
        others = [self.held_by(one, held) for one in sorted(members - {held.value.author})]
        shown = [held, *(one for one in others if one is not None)]
        return [one for one in shown if one.value.round < round_]
