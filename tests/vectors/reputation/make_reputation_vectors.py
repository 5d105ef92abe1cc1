"""Write the golden vectors of evaluations, fork proofs and reputation, from fixed seeds.

Run it as a script after a change of the rules that is meant; the tests run it and compare.
"""

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "ledger"))

from ledger_factory import digest_of  # noqa: E402
from reputation_records import Evaluated  # noqa: E402
from reputation_simulation import Ballots, evidence_of  # noqa: E402
from test_reputation_fork import Forked  # noqa: E402
from test_reputation_replay import eventful  # noqa: E402

from ledger.bodies import EvaluationReveal, Score  # noqa: E402
from ledger.errors import VerificationError  # noqa: E402
from ledger.evaluation import commitment_of  # noqa: E402
from ledger.evidence import Ballot, RoundEvidence, Scored  # noqa: E402
from ledger.fork import check_fork_proof  # noqa: E402
from ledger.ranking import (  # noqa: E402
    agreement_micro,
    lower_weighted_median,
    ranks_micro,
    score_of,
    step_towards,
    weight_micro,
)
from ledger.record import ForkProof, SignedRecord  # noqa: E402
from ledger.reputation import (  # noqa: E402
    RULES,
    Reputation,
    RoundOutcome,
    advance,
    initial_state,
    replay,
)

FORMAT = 1


def commitment_vectors() -> list[dict[str, Any]]:
    targets = sorted(digest_of(f"target {number}") for number in range(3))
    rows = [
        Score(target_id=id_, loss_with_micro=at * 1_000, loss_without_micro=5_000, count=64)
        for at, id_ in enumerate(targets)
    ]
    vectors = []
    for author, round_, scores in ((0, 1, ()), (3, 1, rows[:1]), (3, 70_000, rows)):
        given = {
            "net": digest_of("net"), "salt": digest_of("salt"),
            "evaluation_commitment": digest_of("validation"),
        }  # fmt: skip
        commitment = commitment_of(
            **given, author=author, epoch=0, round=round_, scores=tuple(scores)
        )
        vectors.append(
            {
                **{name: value.hex() for name, value in given.items()},
                "author": author,
                "epoch": 0,
                "round": round_,
                "scores": [
                    [one.target_id.hex(), one.loss_with_micro, one.loss_without_micro, one.count]
                    for one in scores
                ],
                "commitment": commitment.hex(),
            }
        )
    return vectors


def fork_vectors() -> dict[str, Any]:
    forked = Forked()
    one, two = forked.one.signed, forked.two.signed
    later, elsewhere = forked.other(2, seq=2).signed, forked.other(1, author=3).signed
    forged = SignedRecord(two.record_bytes, one.signature)
    cases = {
        "a fork": (one, two), "identical halves": (one, one), "different seq": (one, later),
        "different author": (one, elsewhere), "forged half": (one, forged),
        "foreign half": (one, forked.other(2, net=digest_of("another network")).signed),
    }  # fmt: skip
    vectors = []
    for name, (a, b) in cases.items():
        body = ForkProof(envelope_a=a.envelope(), envelope_b=b.envelope())
        row: dict[str, Any] = {
            "name": name, "envelope_a": body.envelope_a.hex(), "envelope_b": body.envelope_b.hex(),
        }  # fmt: skip
        try:
            fork = check_fork_proof(body, forked.federation.roster)
        except VerificationError as error:
            row["code"] = error.code
        else:
            row["fork"] = [fork.author, fork.epoch, fork.seq, *(id_.hex() for id_ in fork.ids)]
        vectors.append(row)
    return {"charter": forked.federation.charter_bytes.hex(), "proofs": vectors}


def arithmetic_vectors() -> dict[str, Any]:
    scores: list[list[tuple[int, bytes]]] = [
        [(5, b"b"), (5, b"a")],
        [(-3, b"a"), (7, b"b"), (-3, b"c"), (0, b"d")],
        [(at * at % 7, bytes([at])) for at in range(8)],
    ]
    votes = [
        (0, [(400_000, 1)]),
        (0, [(0, 625_000), (1_000_000, 625_000)]),
        (0, [(0, 625_000), (1_000_000, 625_001)]),
        (1, [(0, 250_000), (500_000, 1_000_000), (1_000_000, 250_000)]),
        (1, [(0, 1_000_000), (333_333, 250_000), (666_666, 250_000), (1_000_000, 250_000)]),
        (1, [(0, 250_000), (333_333, 250_000), (666_666, 250_000), (1_000_000, 1_000_000)]),
    ]
    agreements = [(0, 0), (0, 5), (1, 3), (200_000, 3), (999_999, 3), (1_000_000, 3), (2**40, 7)]
    steps = [(500_000, 0), (500_000, 1_000_000), (0, 15), (0, 16), (1, 0), (17, 0), (7, 7)]
    rules = RULES
    return {
        "ranks": [
            {"scores": [[x, id_.hex()] for x, id_ in row], "ranks_micro": ranks_micro(row)}
            for row in scores
        ],
        "scores": [
            {
                "tolerated": tolerated,
                "votes": row,
                "lower_weighted_median": lower_weighted_median(row),
                "score_micro": score_of(row, tolerated=tolerated),
            }
            for tolerated, row in votes
        ],
        "weights": [
            {
                "distance": distance,
                "count": count,
                "agreement_micro": agreement,
                "weight_micro": weight_micro(agreement, floor=rules.weight_floor_micro),
            }
            for distance, count in agreements
            for agreement in [
                agreement_micro(
                    distance,
                    count,
                    slope=rules.agreement_slope,
                    unknown=rules.agreement_unknown_micro,
                )
            ]
        ],
        "steps": [
            {
                "reputation_micro": value,
                "score_micro": score,
                "step": step_towards(value, score, divisor=rules.step_divisor),
            }
            for value, score in steps
        ],
    }


# Hospital 4 lies: it praises hospital 3, whose update is worth nothing, and blames the others.
EXAMPLE: list[Ballots] = [
    {
        0: {1: 300, 2: 200, 3: -50, 4: 100},
        1: {0: 250, 2: 250, 3: 0, 4: 120},
        2: {0: 100, 1: 150, 3: -10, 4: 160},
        3: {0: 180, 1: 210, 2: 240, 4: 90},
        4: {0: -900, 1: -800, 2: -700, 3: 900},
    },
    {
        0: {1: 220, 2: 180, 3: 10, 4: 90},
        1: {0: 260, 2: 190, 3: -20, 4: 140},
        2: {0: 120, 1: 130, 3: 0, 4: 110},
        3: {0: 150, 1: 170, 2: 160, 4: 80},
        4: {0: -900, 1: -800, 2: -700, 3: 900},
    },
]


def example() -> list[RoundOutcome]:
    """Return the worked example of docs/reputation.md: five members, two rounds.

    Contribution ids are 32 bytes, all equal to the round's number times 16 plus the member's.
    """
    state = initial_state(range(5))
    outcomes = []
    for round_, ballots in enumerate(EXAMPLE, start=1):
        evidence = evidence_of(round_, list(range(5)), ballots)
        ids = {member: bytes([16 * round_ + member]) * 32 for member in range(5)}
        evidence = RoundEvidence(
            round_,
            tuple(ids.items()),
            tuple(
                Ballot(
                    one.evaluator, one.commit_id, one.reveal_id,
                    tuple(Scored(s.member, ids[s.member], s.change_micro) for s in one.scores),
                )
                for one in evidence.ballots
            ),
            (),
        )  # fmt: skip
        outcome = advance(state, evidence, members=range(5), tolerated=1)
        state = outcome.state
        outcomes.append(outcome)
    return outcomes


def example_vectors() -> dict[str, Any]:
    return {
        "members": 5,
        "tolerated": 1,
        "rounds": [
            {
                "contribution_ids": {member: f"{16 * at + member:02x}" * 32 for member in range(5)},
                "changes_micro": ballots,
                "outcome": shown(outcome),
            }
            for at, (ballots, outcome) in enumerate(zip(EXAMPLE, example(), strict=True), start=1)
        ],
    }


def shown(outcome: RoundOutcome) -> dict[str, Any]:
    return {
        "round": outcome.round,
        "votes_needed": outcome.votes_needed,
        "evaluators": [
            [e.evaluator, int(e.counted), e.agreement_micro, e.weight_micro, e.distance, e.count]
            for e in outcome.evaluators
        ],
        "members": [
            {
                "member": line.member,
                "before_micro": line.before_micro,
                "votes": [[v.evaluator, v.rank_micro, v.weight_micro] for v in line.votes],
                "score_micro": line.score_micro,
                "step_micro": line.step_micro,
                "penalties": [
                    [p.proof.offence.name, p.micro, *(id_.hex() for id_ in p.proof.records)]
                    for p in line.penalties
                ],
                "after_micro": line.after_micro,
            }
            for line in outcome.members
        ],
        "state_digest": outcome.state.digest().hex(),
    }


def replay_vectors() -> dict[str, Any]:
    federation: Evaluated = eventful()
    reputation: Reputation = replay(federation.records(), federation.roster)
    reveals = sum(isinstance(r.value.body, EvaluationReveal) for r in federation.records())
    return {
        "charter": federation.charter_bytes.hex(),
        "reveals": reveals,
        "envelopes": [one.signed.envelope().hex() for one in federation.records()],
        "rounds": [shown(outcome) for outcome in reputation.rounds],
        "reputation_micro": list(reputation.state.values_micro().values()),
        "state_digest": reputation.state.digest().hex(),
    }


def vectors() -> dict[str, str]:
    """File name → text of every vector file."""
    made = {
        "arithmetic.json": arithmetic_vectors(),
        "commitments.json": commitment_vectors(),
        "example.json": example_vectors(),
        "fork_proofs.json": fork_vectors(),
        "replay.json": replay_vectors(),
    }
    return {
        name: json.dumps({"format": FORMAT, "vectors": value}, indent=1) + "\n"
        for name, value in made.items()
    }


if __name__ == "__main__":
    for name, text in vectors().items():
        (HERE / name).write_text(text)
