"""What an auditor may be handed of evaluations and fork proofs: one attack for every code."""

from dataclasses import replace
from typing import Any

from ledger_cases import Case, bad, case, files_of, good
from ledger_factory import digest_of, sign_value
from reputation_records import Evaluated, opened

from ledger.bodies import Close, CloseReason, Codec, ForkProof
from ledger.fork import fork_proof
from ledger.frames import END_MARK
from ledger.record import NO_ID, Kind, Record, Verified


class Scored(Evaluated):
    """Four members; all have contributed to round 1, member 0 has committed to its scores."""

    def __init__(self) -> None:
        super().__init__(4)
        self.open_all()
        self.offered = {i: self.contribute(i, 1) for i in range(4)}
        self.rows = self.scores(self.offered, {1: 300, 2: 200, 3: -50})

    def opens(self, rows: Any = None, **changes: Any) -> Verified[Record]:
        rows = self.rows if rows is None else tuple(sorted(rows, key=lambda row: row.target_id))
        commit = self.commit(0, 1, rows)
        return self.reveal(0, 1, rows, commit.value.seq, **changes)


@case
def good_evaluations() -> Case:
    federation = opened(4)
    for round_ in (1, 2):
        federation.play_evaluated(round_)
    return good(federation)


@case
def good_reveal_before_its_targets_by_lamport() -> Case:
    """Member 0 has written nothing for long, so its numbers are lower than those it scores."""
    federation = opened(3)
    for author in (1, 2, 1, 2):
        federation.write(author, Kind.METRICS, 0, federation.metrics_body(0), with_acks=True)
    offered = {i: federation.contribute(i, 1) for i in (1, 2)}
    rows = federation.scores(offered, {1: 5, 2: 6})
    federation.reveal(0, 1, rows, federation.commit(0, 1, rows).value.seq)
    assert federation.logs[0][-1].value.lamport < offered[2].value.lamport
    return good(federation)


@case
def reveal_without_a_commit() -> Case:
    federation = Scored()
    federation.reveal(0, 1, federation.rows, 0)
    return bad(federation, codes="13 E_REVEAL_REF")


@case
def reveal_of_what_is_opened_already() -> Case:
    federation = Scored()
    first = federation.opens()
    federation.reveal(0, 1, federation.rows, first.value.seq - 1)
    return bad(federation, codes="13 E_REVEAL_REF")


@case
def reveal_of_a_second_commit() -> Case:
    federation = Scored()
    federation.commit(0, 1, federation.rows)
    federation.opens()
    return bad(federation, codes="13 E_REVEAL_REF")


@case
def reveal_of_other_scores_than_committed() -> Case:
    federation = Scored()
    commit = federation.commit(0, 1, federation.rows)
    other = tuple(replace(row, loss_with_micro=1) for row in federation.rows)
    federation.reveal(0, 1, other, commit.value.seq)
    return bad(federation, codes="13 E_REVEAL")


@case
def score_of_the_own_contribution() -> Case:
    federation = Scored()
    own = federation.scores(federation.offered, {0: 900})
    federation.opens([*federation.rows, *own])
    return bad(federation, codes="13 E_SELF_SCORE")


@case
def score_of_what_nobody_contributed() -> Case:
    federation = Scored()
    federation.opens([*federation.rows, replace(federation.rows[0], target_id=digest_of("x"))])
    return bad(federation, codes="13 E_SCORE_TARGET")


@case
def score_of_a_record_that_is_no_update() -> Case:
    federation = Scored()
    target = federation.logs[1][0].id
    federation.opens([*federation.rows[1:], replace(federation.rows[0], target_id=target)])
    return bad(federation, codes="13 E_SCORE_TARGET")


@case
def score_of_means_and_spreads() -> Case:
    federation = opened(2)
    body = federation.contribution_body(1, 0, codec=Codec.MOMENTS)
    moments = federation.write(1, Kind.CONTRIBUTION, 0, body, with_acks=True)
    rows = federation.scores({1: moments}, {1: 4})
    federation.reveal(0, 0, rows, federation.commit(0, 0, rows).value.seq)
    return bad(federation, codes="13 E_SCORE_TARGET")


@case
def score_of_another_round() -> Case:
    federation = Scored()
    later = federation.contribute(1, 2)
    rows = federation.scores({1: later}, {1: 3})
    federation.opens([*federation.rows[1:], *rows])
    return bad(federation, codes="13 E_SCORE_TARGET")


@case
def score_of_a_second_contribution_of_a_round() -> Case:
    federation = Scored()
    again = federation.contribute(1, 1, samples=9)
    rows = [row for row in federation.rows if row.target_id != federation.offered[1].id]
    federation.opens([*rows, *federation.scores({1: again}, {1: 3})])
    return bad(federation, codes="13 E_SCORE_TARGET")


@case
def a_reveal_is_not_refused_for_a_target_in_a_damaged_log() -> Case:
    federation = Scored()
    federation.opens()
    path = "logs/0003-0000.log"
    files = files_of(federation)
    files[path] = files[path][:-5] + bytes([files[path][-5] ^ 1]) + END_MARK
    return bad(federation, files, codes="8 E_SIGNATURE")


# --- step 14 ----------------------------------------------------------------------------------


def _forked() -> tuple[Evaluated, Verified[Record], Verified[Record]]:
    """Member 3 closes twice in one place; only one of the two is in its log."""
    federation = opened(4)
    head = federation.heads[3]
    one = federation.write(3, Kind.CLOSE, 1, Close(reason=CloseReason.DONE))
    federation.logs[3].pop()
    federation.heads[3] = head
    return federation, one, federation.write(3, Kind.CLOSE, 1, Close(reason=CloseReason.LEFT))


@case
def good_fork_proof() -> Case:
    federation, one, other = _forked()
    federation.write(0, Kind.FORK_PROOF, 1, fork_proof(one.signed, other.signed))
    return replace(good(federation), forks=[(3, 0, 1, 1, 1)])


def _proof_case(body: ForkProof, federation: Evaluated) -> Case:
    federation.write(0, Kind.FORK_PROOF, 1, body)
    return bad(federation, codes="14 E_FORK_PROOF")


@case
def fork_proof_with_one_record_twice() -> Case:
    federation, one, _ = _forked()
    return _proof_case(fork_proof(one.signed, one.signed), federation)


@case
def fork_proof_of_two_places() -> Case:
    federation, one, _ = _forked()
    return _proof_case(fork_proof(one.signed, federation.logs[3][0].signed), federation)


@case
def fork_proof_with_a_forged_half() -> Case:
    federation, one, other = _forked()
    forged = sign_value(other.value.to_value(), federation.signers[0])
    return _proof_case(fork_proof(one.signed, forged), federation)


@case
def fork_proof_with_a_half_that_is_no_record() -> Case:
    federation, one, _ = _forked()
    body = ForkProof(envelope_a=one.signed.envelope(), envelope_b=NO_ID)
    return _proof_case(body, federation)
