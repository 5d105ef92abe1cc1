"""The words of reputation: rules, state, and the evidence behind every number.

Room: ledger. Spec: docs/reputation.md §6 and §7. Plain values; the arithmetic is in
:mod:`ledger.ranking`, the rounds in :mod:`ledger.reputation`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from .canonical import Value, encode
from .evidence import Offence, Proof
from .ranking import MICRO
from .record import RecordId

STATE_DOMAIN: Final = b"swarm-ledger/reputation/v1\n"


@dataclass(frozen=True, kw_only=True)
class ReputationRules:
    """The numbers of version 1. A federation that changes one has another reputation."""

    initial_micro: int = 500_000  # the middle: a newcomer is neither praised nor blamed
    step_divisor: int = 16  # raise it for a longer memory, lower it to react sooner
    window_rounds: int = 8  # how long an evaluator's agreement is remembered
    agreement_slope: int = 3  # 3: ranks at random agree 0 with medians spread evenly
    agreement_unknown_micro: int = 500_000  # of an evaluator without ranks in the window
    weight_floor_micro: int = 250_000  # raise it to trust all evaluators alike
    fork_micro: int = 500_000
    unrevealed_micro: int = 50_000
    base_micro: int = 100_000  # above MICRO // step_divisor, so that nobody can live with one
    copy_micro: int = 100_000
    false_sketch_micro: int = 100_000

    def __post_init__(self) -> None:
        shares = (
            self.initial_micro, self.agreement_unknown_micro, self.fork_micro,
            self.unrevealed_micro, self.base_micro, self.copy_micro, self.false_sketch_micro,
        )  # fmt: skip
        if not all(0 <= share <= MICRO for share in shares):
            raise ValueError(f"initial value, unknown agreement and penalties are 0 to {MICRO}")
        if not 0 < self.weight_floor_micro <= MICRO:
            raise ValueError(f"weight_floor_micro is 1 to {MICRO}")
        if min(self.step_divisor, self.window_rounds, self.agreement_slope) < 1:
            raise ValueError("step_divisor, window_rounds and agreement_slope are at least 1")

    def penalty_micro(self, offence: Offence) -> int:
        """Return what one offence costs."""
        return {
            Offence.FORK: self.fork_micro,
            Offence.UNREVEALED: self.unrevealed_micro,
            Offence.BASE: self.base_micro,
            Offence.COPY: self.copy_micro,
            Offence.FALSE_SKETCH: self.false_sketch_micro,
        }[offence]


RULES: Final = ReputationRules()


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far one evaluator's ranks lay from the medians of one round, summed."""

    round: int
    distance: int
    count: int


@dataclass(frozen=True, slots=True)
class Standing:
    """One member's reputation, and its agreements of the window."""

    member: int
    value_micro: int
    agreements: tuple[Agreement, ...]


@dataclass(frozen=True, slots=True)
class State:
    """Everything that the next round needs; ``standings`` by member."""

    round: int
    standings: tuple[Standing, ...]

    def digest(self) -> bytes:
        """SHA-256(domain ‖ canonical encoding): two that agree on it agree on every integer."""
        rows: list[Value] = [
            [one.member, one.value_micro, [[a.round, a.distance, a.count] for a in one.agreements]]
            for one in self.standings
        ]
        return hashlib.sha256(STATE_DOMAIN + encode([self.round, rows])).digest()

    def values_micro(self) -> dict[int, int]:
        """Return every member's reputation."""
        return {one.member: one.value_micro for one in self.standings}


@dataclass(frozen=True, slots=True)
class Vote:
    """What one evaluator said of one member, and what it weighed."""

    evaluator: int
    reveal_id: RecordId
    target_id: RecordId
    change_micro: int
    rank_micro: int
    weight_micro: int


@dataclass(frozen=True, slots=True)
class EvaluatorLine:
    """One evaluator in one round. ``counted`` False: it scored too few."""

    evaluator: int
    commit_id: RecordId
    reveal_id: RecordId
    counted: bool
    agreement_micro: int
    weight_micro: int
    distance: int
    count: int


@dataclass(frozen=True, slots=True)
class Penalty:
    """What was subtracted, and the records that prove why."""

    proof: Proof
    micro: int


@dataclass(frozen=True, slots=True)
class MemberLine:
    """One member in one round: after = max(0, before + step - penalties)."""

    member: int
    before_micro: int
    contribution_id: RecordId | None
    votes: tuple[Vote, ...]
    score_micro: int | None  # None: no contribution, or fewer votes than needed
    step_micro: int
    penalties: tuple[Penalty, ...]
    after_micro: int


@dataclass(frozen=True, slots=True)
class RoundOutcome:
    """One round with the evidence behind every number, and the state after it."""

    round: int
    votes_needed: int
    evaluators: tuple[EvaluatorLine, ...]
    members: tuple[MemberLine, ...]
    state: State


@dataclass(frozen=True, slots=True)
class Reputation:
    """The whole replay; ``state`` is that after the last round."""

    state: State
    rounds: tuple[RoundOutcome, ...]
