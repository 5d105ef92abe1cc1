"""Reputation, replayed from the records to the last integer. Room: ledger. Spec: docs/reputation.md.

State in, state out, round by round; a pure function of the set of records. It never evicts: it
feeds alerts and bounded weights, and removal is a roster update that humans sign.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from .errors import VerificationError
from .evidence import Ballot, Checked, Offence, RoundEvidence, gather
from .ranking import agreement_micro, ranks_micro, score_of, step_towards, weight_micro
from .record import RecordId
from .reputation_types import (
    RULES,
    Agreement,
    EvaluatorLine,
    MemberLine,
    Penalty,
    Reputation,
    ReputationRules,
    RoundOutcome,
    Standing,
    State,
    Vote,
)
from .roster import Roster
from .roster import tolerated as tolerated_of


def replay(
    records: Collection[Checked],
    roster: Roster,
    rules: ReputationRules = RULES,
    *,
    strict: bool = True,
    evaluators_max: int | None = None,
) -> Reputation:
    """Return the reputation that a set of verified records gives, in any order of them.

    roster: at the newest version that a record names, or any later one.
    strict: as of :func:`gather`: raise VerificationError (steps 13 and 14) if the set is not one
    to rely on, or pass over what an auditor would refuse. E_FORK is raised in any case.
    evaluators_max: the charter's; None: everybody evaluates.
    """
    rounds = gather(records, roster, strict=strict, evaluators_max=evaluators_max)
    outcomes = tuple(replay_rounds(rounds, roster, rules, evaluators_max=evaluators_max))
    state = outcomes[-1].state if outcomes else initial_state(roster.active_at(0), rules)
    return Reputation(state, outcomes)


def replay_rounds(
    rounds: Sequence[RoundEvidence],
    roster: Roster,
    rules: ReputationRules = RULES,
    *,
    evaluators_max: int | None = None,
) -> Iterator[RoundOutcome]:
    """Yield one round after the other, for whoever does not want to keep them all."""
    state = initial_state(roster.active_at(0), rules)
    for evidence in rounds:
        members = roster.active_at(evidence.roster)
        voters = min(len(members), evaluators_max or len(members))
        outcome = advance(
            state, evidence, members=members, tolerated=tolerated_of(voters), rules=rules
        )
        state = outcome.state
        yield outcome


def initial_state(members: Collection[int], rules: ReputationRules = RULES) -> State:
    """Return the state before the first round."""
    return State(0, tuple(Standing(one, rules.initial_micro, ()) for one in sorted(members)))


def advance(
    state: State,
    evidence: RoundEvidence,
    *,
    members: Collection[int],
    tolerated: int,
    rules: ReputationRules = RULES,
) -> RoundOutcome:
    """Return what one round makes of the state.

    members: who is on the roster in this round; one that is new starts at the initial value, one
    that has left keeps its standing. tolerated: the roster's f. Raises ValueError for a round
    that is not after the state's (the first may be 0).
    """
    if evidence.round < state.round or (evidence.round == state.round and state.round > 0):
        raise ValueError(f"round {evidence.round} after round {state.round}")
    needed = 2 * tolerated + 1
    before = {one.member: one for one in state.standings}
    active = frozenset(members)
    for member in active - before.keys():
        before[member] = Standing(member, rules.initial_micro, ())
    present = {member: before[member] for member in active}
    offers = {member: id_ for member, id_ in evidence.offers if member in active}
    votes = _votes(evidence, offers, present, rules)
    scores = {
        member: score_of(
            [(vote.rank_micro, vote.weight_micro) for vote in cast], tolerated=tolerated
        )
        for member, cast in votes.items()
        if len(cast) >= needed
    }
    evaluators = _evaluators(evidence, votes, scores, present, rules)
    lines = []
    standings = []
    for member, standing in sorted(before.items()):
        kept = _window(standing, evidence.round + 1, rules)
        fresh = evaluators.get(member)
        if fresh is not None and fresh.count:
            kept = (*kept, Agreement(evidence.round, fresh.distance, fresh.count))
        if member not in active:
            standings.append(Standing(member, standing.value_micro, kept))
            continue
        penalties = tuple(
            Penalty(proof, rules.penalty_micro(proof.offence))
            for proof in evidence.proofs
            if proof.member == member
        )
        line = _line(standing, offers, votes, scores, penalties, rules)
        lines.append(line)
        standings.append(Standing(member, line.after_micro, kept))
    return RoundOutcome(
        round=evidence.round,
        votes_needed=needed,
        evaluators=tuple(line for _, line in sorted(evaluators.items())),
        members=tuple(lines),
        state=State(evidence.round, tuple(standings)),
    )


def _window(standing: Standing, round_: int, rules: ReputationRules) -> tuple[Agreement, ...]:
    """The agreements of the ``window_rounds`` rounds before ``round_``."""
    return tuple(one for one in standing.agreements if one.round >= round_ - rules.window_rounds)


def _agreement(standing: Standing, round_: int, rules: ReputationRules) -> int:
    window = _window(standing, round_, rules)
    return agreement_micro(
        sum(one.distance for one in window),
        sum(one.count for one in window),
        slope=rules.agreement_slope,
        unknown=rules.agreement_unknown_micro,
    )


def _counts(
    ballot: Ballot, offers: Mapping[int, RecordId], present: Mapping[int, Standing]
) -> bool:
    """A ballot counts if it ranks two or more, and half or more of the others' contributions."""
    offered = offers.keys() if ballot.offers is None else present.keys() & set(ballot.offers)
    others = len(offered - {ballot.evaluator})
    return len(ballot.scores) >= 2 and 2 * len(ballot.scores) >= others


def _votes(
    evidence: RoundEvidence,
    offers: Mapping[int, RecordId],
    present: Mapping[int, Standing],
    rules: ReputationRules,
) -> dict[int, list[Vote]]:
    votes: dict[int, list[Vote]] = {}
    for ballot in evidence.ballots:
        if ballot.evaluator not in present or not _counts(ballot, offers, present):
            continue
        agreement = _agreement(present[ballot.evaluator], evidence.round, rules)
        weight = weight_micro(agreement, floor=rules.weight_floor_micro)
        ranks = ranks_micro([(one.change_micro, one.target_id) for one in ballot.scores])
        for one, rank in zip(ballot.scores, ranks, strict=True):
            vote = Vote(
                ballot.evaluator, ballot.reveal_id, one.target_id, one.change_micro, rank, weight
            )
            votes.setdefault(one.member, []).append(vote)
    return votes


def _evaluators(
    evidence: RoundEvidence,
    votes: Mapping[int, Sequence[Vote]],
    scores: Mapping[int, int],
    present: Mapping[int, Standing],
    rules: ReputationRules,
) -> dict[int, EvaluatorLine]:
    distances: dict[int, list[int]] = {}
    for member, cast in votes.items():
        for vote in cast:
            apart = distances.setdefault(vote.evaluator, [])
            if member in scores:
                apart.append(abs(vote.rank_micro - scores[member]))
    lines = {}
    for ballot in evidence.ballots:
        if ballot.evaluator in present:
            agreement = _agreement(present[ballot.evaluator], evidence.round, rules)
            apart = distances.get(ballot.evaluator, [])
            lines[ballot.evaluator] = EvaluatorLine(
                evaluator=ballot.evaluator,
                commit_id=ballot.commit_id,
                reveal_id=ballot.reveal_id,
                counted=ballot.evaluator in distances,
                agreement_micro=agreement,
                weight_micro=weight_micro(agreement, floor=rules.weight_floor_micro),
                distance=sum(apart),
                count=len(apart),
            )
    return lines


def _line(
    standing: Standing,
    offers: Mapping[int, RecordId],
    votes: Mapping[int, Sequence[Vote]],
    scores: Mapping[int, int],
    penalties: tuple[Penalty, ...],
    rules: ReputationRules,
) -> MemberLine:
    member, value = standing.member, standing.value_micro
    score = scores.get(member)
    step = 0 if score is None else step_towards(value, score, divisor=rules.step_divisor)
    if any(one.proof.offence in (Offence.BASE, Offence.COPY) for one in penalties):
        step = min(step, 0)  # nobody is credited for an update that is not his
    return MemberLine(
        member=member,
        before_micro=value,
        contribution_id=offers.get(member),
        votes=tuple(votes.get(member, ())),
        score_micro=score,
        step_micro=step,
        penalties=penalties,
        after_micro=max(0, value + step - sum(one.micro for one in penalties)),
    )


def check_reputation(claimed: Mapping[int, int], state: State) -> None:
    """Step 19: the claimed values are the replayed ones, member by member. E_REPUTATION."""
    values = state.values_micro()
    for member in sorted(claimed.keys() | values.keys()):
        if claimed.get(member) != values.get(member):
            raise VerificationError(
                "E_REPUTATION",
                f"member {member} is claimed to have {claimed.get(member, 'no value')} "
                f"after round {state.round}",
                author=member,
                expected=str(values.get(member, "no value")),
            )
