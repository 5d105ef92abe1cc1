"""Evaluations: committed before anyone reveals. Room: ledger. Spec: docs/reputation.md §2.

Who knows the others' scores can copy them. So every evaluator first publishes a hash of its own,
and opens it when the hashes are out. Step 13 of the verification list; integers and bytes only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, final

from .bodies import Codec, Contribution, EvaluationCommit, EvaluationReveal, Score
from .canonical import Value, encode
from .errors import VerificationError
from .record import Record, RecordId

COMMITMENT_DOMAIN: Final = b"swarm-ledger/evaluation/v1\n"
LATE_MAX: Final = 1
"""Rounds that an evaluation may be later than what it scores: nobody's next training waits for it."""
Log: TypeAlias = tuple[int, int]  # (author, epoch)


def commitment_of(
    *,
    net: bytes,
    author: int,
    epoch: int,
    round: int,  # noqa: A002 - the field's name
    salt: bytes,
    scores: Sequence[Score],
    evaluation_commitment: bytes,
) -> bytes:
    """Return what an EVALUATION_COMMIT holds for these scores.

    SHA-256(domain ‖ canonical encoding of [net, author, epoch, round, salt, scores as in the
    REVEAL, evaluation_commitment]). Author and epoch are inside so that nobody can commit to what
    another has committed to; the 32-byte salt must be fresh and secret until the reveal.
    """
    rows: list[Value] = [score.to_value() for score in scores]
    value = encode([net, author, epoch, round, salt, rows, evaluation_commitment])
    return hashlib.sha256(COMMITMENT_DOMAIN + value).digest()


@dataclass(frozen=True, slots=True)
class Target:
    """A contribution that may be scored: the first update of its log in its round."""

    author: int
    round: int


def check_reveal(commit: Record | None, reveal: Record, targets: Mapping[RecordId, Target]) -> None:
    """Step 13 for one EVALUATION_REVEAL. Raises VerificationError.

    commit: what stands at (author, epoch, commit_seq) of the reveal, None if nothing does.
    targets: every contribution that may be scored, by record id.
    E_REVEAL_REF, E_REVEAL, then for each score in its order E_SCORE_TARGET or E_SELF_SCORE.
    """
    try:
        check_opening(commit, reveal)
        unknown = check_targets(reveal, targets)
        if unknown is not None:
            raise no_target(unknown)
    except VerificationError as error:
        raise _at(reveal, error) from None


def check_opening(commit: Record | None, reveal: Record) -> None:
    """The first half: the reveal opens its author's own earlier commit. E_REVEAL_REF, E_REVEAL."""
    body = _body(reveal)
    own = None if commit is None else (commit.net, commit.author, commit.epoch, commit.seq)
    if (
        commit is None
        or not isinstance(commit.body, EvaluationCommit)
        or own != (reveal.net, reveal.author, reveal.epoch, body.commit_seq)
        or commit.seq >= reveal.seq
        or commit.round != reveal.round
    ):
        raise VerificationError(
            "E_REVEAL_REF",
            f"record {body.commit_seq} is not an EVALUATION_COMMIT that this can open",
            expected=f"an earlier one of the same log, of round {reveal.round}, not opened yet",
        )
    opened = commitment_of(
        net=reveal.net,
        author=reveal.author,
        epoch=reveal.epoch,
        round=reveal.round,
        salt=body.salt,
        scores=body.scores,
        evaluation_commitment=body.evaluation_commitment,
    )
    if opened != commit.body.commitment:
        raise VerificationError(
            "E_REVEAL", "other scores than were committed to", expected=commit.body.commitment.hex()
        )


def check_targets(reveal: Record, targets: Mapping[RecordId, Target]) -> RecordId | None:
    """The second half: what is scored. E_SCORE_TARGET, E_SELF_SCORE.

    Returns the first target that is in no record seen so far, None if there is none.
    """
    scored: set[int] = set()
    unknown: RecordId | None = None
    of_round: int | None = None
    for score in _body(reveal).scores:
        target = targets.get(score.target_id)
        if target is None:
            unknown = unknown or score.target_id
            continue
        name = score.target_id.hex()[:16]
        of_round = target.round if of_round is None else of_round
        if target.round != of_round or not 0 <= reveal.round - target.round <= LATE_MAX:
            raise VerificationError(
                "E_SCORE_TARGET",
                f"contribution {name} is of round {target.round}",
                expected=f"all of round {reveal.round}, or all of the one before",
            )
        if target.author == reveal.author:
            raise VerificationError("E_SELF_SCORE", f"contribution {name} is the evaluator's own")
        if target.author in scored:
            raise VerificationError(
                "E_SCORE_TARGET", f"author {target.author} is scored twice", expected="once"
            )
        scored.add(target.author)
    return unknown


def _body(reveal: Record) -> EvaluationReveal:
    if not isinstance(reveal.body, EvaluationReveal):
        raise TypeError("only an EVALUATION_REVEAL can be checked as one")
    return reveal.body


def no_target(target_id: RecordId) -> VerificationError:
    """Return the refusal of a target that is in no record. E_SCORE_TARGET."""
    return VerificationError(
        "E_SCORE_TARGET",
        f"nothing that can be scored has the id {target_id.hex()[:16]}",
        expected="the first update CONTRIBUTION of a member's log in its round",
    )


def _at(record: Record, error: VerificationError) -> VerificationError:
    return error.locate(author=record.author, epoch=record.epoch, seq=record.seq)


@final
class EvaluationAudit:
    """Step 13 over a stream: each log in its own order, logs interleaved in any way.

    Of a log it keeps its round's first commit; of the contributions an id and two numbers.
    """

    def __init__(self) -> None:
        self.targets: dict[RecordId, Target] = {}
        self._offered: dict[Log, int] = {}  # newest round in which a log offered an update
        self._commits: dict[Log, Record] = {}  # first of its log's newest round
        self._opened: dict[Log, int] = {}  # seq of the commit that was opened last
        self._waiting: list[Record] = []

    def learn(self, record: Record, id_: RecordId) -> None:
        """Enter one record that has passed the steps before. Raises with a code of step 13.

        A reveal whose targets are still to come waits for :meth:`settle`.
        """
        body = record.body
        log = record.author, record.epoch
        if isinstance(body, Contribution):
            self.learn_contribution(id_, log, record.round, body.codec)
        elif isinstance(body, EvaluationCommit):
            known = self._commits.get(log)
            # A second commit of a round is never opened: nobody chooses among several afterwards.
            if known is None or known.round < record.round:
                self._commits[log] = record
        elif isinstance(body, EvaluationReveal):
            try:
                self._learn_reveal(log, record, body)
            except VerificationError as error:
                raise _at(record, error) from None

    def learn_contribution(self, id_: RecordId, log: Log, round_: int, codec: int) -> None:
        """Enter a CONTRIBUTION by its numbers alone."""
        if codec == Codec.MOMENTS or self._offered.get(log, -1) >= round_:
            return
        self._offered[log] = round_
        self.targets[id_] = Target(log[0], round_)

    def _learn_reveal(self, log: Log, record: Record, body: EvaluationReveal) -> None:
        commit = self._commits.get(log)
        if self._opened.get(log) == body.commit_seq:
            commit = None
        check_opening(commit, record)
        self._opened[log] = body.commit_seq
        if all(score.target_id in self.targets for score in body.scores):
            check_targets(record, self.targets)
        else:  # as a whole, so that the first failure is the same in any order
            self._waiting.append(record)

    def settle(self, *, complete: bool = True) -> list[tuple[Record, VerificationError]]:
        """Judge the reveals that wait; nothing more will come.

        ``complete`` False: a log is missing or damaged, so a target that is in no file may be
        honest and is not judged.
        """
        refused = []
        waiting, self._waiting = self._waiting, []
        for reveal in waiting:
            try:
                unknown = check_targets(reveal, self.targets)
                if unknown is not None and complete:
                    raise no_target(unknown)
            except VerificationError as error:
                refused.append((reveal, _at(reveal, error)))
        return refused
