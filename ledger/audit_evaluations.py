"""Step 13 and the fork proofs of step 14, over all logs. Room: ledger. Spec: docs/reputation.md §2, §3.

What may be scored is looked up in the index that the audit keeps anyway; of each log it remembers
one commit more.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias, final

from .audit_log import LogAudit
from .bodies import Codec, EvaluationCommit, EvaluationReveal, ForkProof, Kind
from .errors import VerificationError
from .evaluation import LATE_MAX, Target, check_opening, check_targets, no_target
from .fork import Fork, check_fork_proof
from .record import Record, RecordId
from .report import Finding
from .roster import Roster

Log: TypeAlias = tuple[int, int]
_SWEEP_MIN: Final = 1_024


@final
class EvaluationSteps:
    """Reveals open their commits and score what may be scored; fork proofs prove a fork."""

    def __init__(
        self, logs: Mapping[Log, LogAudit], roster: Roster, *, is_forked: bool = False
    ) -> None:
        self._logs = logs
        self._roster = roster
        self._is_forked = is_forked  # a target that nobody shows may be on a void branch
        self.proven: list[tuple[Fork, ForkProof, tuple[int, int, int]]] = []
        self._commits: dict[Log, Record] = {}  # first of its log's newest round
        self._opened: dict[Log, int] = {}  # seq of the commit that was opened last
        self._waiting: list[tuple[LogAudit, Record]] = []
        self._sweep_at = _SWEEP_MIN
        self._round = -1  # of the targets looked up last
        self._targets: dict[RecordId, Target] = {}

    def step_13(self, log: LogAudit, value: list[Any]) -> None:
        """A COMMIT or REVEAL. E_REVEAL_REF, E_REVEAL; E_SCORE_TARGET, E_SELF_SCORE if certain."""
        record = Record.from_value(value)
        key = (log.author, log.epoch)
        if isinstance(record.body, EvaluationCommit):
            known = self._commits.get(key)
            # A second commit of a round is never opened: nobody chooses among several afterwards.
            if known is None or known.round < record.round:
                self._commits[key] = record
        elif isinstance(record.body, EvaluationReveal):
            commit = self._commits.get(key)
            if self._opened.get(key) == record.body.commit_seq:
                commit = None
            check_opening(commit, record)
            self._opened[key] = record.body.commit_seq
            if not self._judge(record):
                self._waiting.append((log, record))
                self._sweep()

    def step_14(self, value: list[Any]) -> None:
        """A FORK_PROOF proves what it says. E_FORK_PROOF."""
        body = ForkProof.from_value(value[12])
        fork = check_fork_proof(body, self._roster)
        self.proven.append((fork, body, (value[2], value[3], value[4])))

    def settle(self) -> None:
        """Decide what waits once every log is over."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        # Where something is gone, a target that nobody shows may be honest.
        present = {author for author, _ in self._logs}
        complete = (
            all(one.index in present for one in self._roster.members)
            and not any(log.damaged for log in self._logs.values())
            and not any(True for _ in self._roster.cuts())
            and not self._is_forked
        )
        everything = {
            id_: target for log in self._logs.values() for id_, target in _first_updates(log)
        }
        for log, record in waiting:
            try:
                unknown = check_targets(record, everything)
                if unknown is not None and complete:
                    raise no_target(unknown)
            except VerificationError as error:
                log.refuse(Finding(13, error), record.seq)

    def _judge(self, record: Record) -> bool:
        """Return True if every target is known and right, False if one is still to come."""
        # What is there by now; another round's is looked for when all have been seen.
        if self._round != record.round or not self._knows(record):
            self._round = record.round
            self._targets = {
                id_: target
                for log in self._logs.values()
                for late in range(min(LATE_MAX, record.round) + 1)
                for id_, target in _first_updates(log, record.round - late)
            }
        if not self._knows(record):
            return False
        check_targets(record, self._targets)
        return True

    def _knows(self, record: Record) -> bool:
        body = record.body
        return isinstance(body, EvaluationReveal) and all(
            score.target_id in self._targets for score in body.scores
        )

    def _sweep(self) -> None:
        if len(self._waiting) < self._sweep_at:
            return
        waiting, self._waiting = self._waiting, []
        for log, record in waiting:
            try:
                if not self._judge(record):
                    self._waiting.append((log, record))
            except VerificationError as error:
                log.refuse(Finding(13, error), record.seq)
        # Doubling what is left keeps the sweeps together linear.
        self._sweep_at = 2 * len(self._waiting) + _SWEEP_MIN


def _first_updates(log: LogAudit, round_: int | None = None) -> Iterator[tuple[RecordId, Target]]:
    """Yield the first update of each round of a log, or of one round."""
    start = 0 if round_ is None else bisect_left(log.rounds, round_)
    last = -1
    for seq in range(start, log.accepted):
        number = log.rounds[seq]
        if round_ is not None and number != round_:
            return
        is_update = log.kinds[seq] == Kind.CONTRIBUTION and log.codecs[seq] != Codec.MOMENTS
        if is_update and number != last:
            last = number
            yield bytes(log.ids[seq * 32 : seq * 32 + 32]), Target(log.author, number)
