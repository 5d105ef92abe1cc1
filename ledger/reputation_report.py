"""Reputation in words and as JSON, with the records behind every number. Room: ledger.

Spec: docs/reputation.md §8. Knows no file and no terminal: values in, values out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .evidence import Offence
from .reputation_types import EvaluatorLine, MemberLine, Reputation, RoundOutcome

OFFENCES = {
    Offence.FORK: "signed two records for one place in its log",
    Offence.UNREVEALED: "committed to an evaluation and never opened it",
    Offence.BASE: "sent back the model that it was given",
    Offence.COPY: "sent an update that another had published before",
    Offence.FALSE_SKETCH: "published a sketch that is not its update's",
}


def as_json(reputation: Reputation) -> dict[str, Any]:
    """Return everything as values that ``json`` writes; ids in hex."""
    return {
        "round": reputation.state.round,
        "digest": reputation.state.digest().hex(),
        "members": [
            {"member": one.member, "reputation_micro": one.value_micro}
            for one in reputation.state.standings
        ],
        "rounds": [_round_json(outcome) for outcome in reputation.rounds],
    }


def _round_json(outcome: RoundOutcome) -> dict[str, Any]:
    return {
        "round": outcome.round,
        "votes_needed": outcome.votes_needed,
        "digest": outcome.state.digest().hex(),
        "evaluators": [_evaluator_json(line) for line in outcome.evaluators],
        "members": [_member_json(line) for line in outcome.members],
    }


def _evaluator_json(line: EvaluatorLine) -> dict[str, Any]:
    return {
        "evaluator": line.evaluator,
        "commit": line.commit_id.hex(),
        "reveal": line.reveal_id.hex(),
        "counted": line.counted,
        "agreement_micro": line.agreement_micro,
        "weight_micro": line.weight_micro,
        "distance": line.distance,
        "count": line.count,
    }


def _member_json(line: MemberLine) -> dict[str, Any]:
    return {
        "member": line.member,
        "before_micro": line.before_micro,
        "contribution": None if line.contribution_id is None else line.contribution_id.hex(),
        "votes": [
            {
                "evaluator": vote.evaluator,
                "reveal": vote.reveal_id.hex(),
                "target": vote.target_id.hex(),
                "change_micro": vote.change_micro,
                "rank_micro": vote.rank_micro,
                "weight_micro": vote.weight_micro,
            }
            for vote in line.votes
        ],
        "score_micro": line.score_micro,
        "step_micro": line.step_micro,
        "penalties": [
            {
                "offence": one.proof.offence.name,
                "micro": one.micro,
                "records": [id_.hex() for id_ in one.proof.records],
            }
            for one in line.penalties
        ],
        "after_micro": line.after_micro,
    }


def as_lines(
    reputation: Reputation, names: Mapping[int, str], *, member: int | None = None
) -> Iterator[str]:
    """Yield the standings, or with ``member`` every round of one with what stands behind it."""
    if member is None:
        yield f"reputation after round {reputation.state.round}, in millionths"
        for one in reputation.state.standings:
            yield f"{one.value_micro:>9,}  {one.member}  {names[one.member]}"
        return
    yield f"{names[member]}, round by round, in millionths"
    for outcome in reputation.rounds:
        for line in outcome.members:
            if line.member == member:
                yield from _member_lines(outcome, line)


def _member_lines(outcome: RoundOutcome, line: MemberLine) -> Iterator[str]:
    yield (
        f"round {outcome.round}: {line.before_micro:,} → {line.after_micro:,}"
        f" ({_why(outcome, line)})"
    )
    for vote in line.votes:
        yield (
            f"    evaluator {vote.evaluator}: rank {vote.rank_micro:,}, weight "
            f"{vote.weight_micro:,}, loss change {vote.change_micro:+,} "
            f"in {vote.reveal_id.hex()[:16]}"
        )
    for penalty in line.penalties:
        shown = ", ".join(id_.hex()[:16] for id_ in penalty.proof.records)
        yield f"    −{penalty.micro:,}: {OFFENCES[penalty.proof.offence]}: {shown}"


def _why(outcome: RoundOutcome, line: MemberLine) -> str:
    if line.score_micro is not None:
        return f"score {line.score_micro:,}, step {line.step_micro:+,}"
    if line.contribution_id is None:
        return "no contribution, so no score"
    return f"{len(line.votes)} votes of the {outcome.votes_needed} needed, so no score"
