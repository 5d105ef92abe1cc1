"""Reputation is a function of the set of records; every penalty has its proof and its price."""

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_factory import digest_of
from reputation_records import Evaluated, opened, usual
from reputation_simulation import Ballots, evidence_of, id_of

from ledger.bodies import Close, CloseReason, Codec, ForkProof, Kind
from ledger.errors import VerificationError
from ledger.evidence import Offence, Proof, RoundEvidence
from ledger.fork import fork_proof
from ledger.ranking import MICRO
from ledger.record import Record, Verified, sign_record
from ledger.reputation import (
    RULES,
    MemberLine,
    Reputation,
    ReputationRules,
    advance,
    check_reputation,
    initial_state,
    replay,
)

Records = Sequence[Verified[Record]]


def replayed(federation: Evaluated, records: Records | None = None) -> Reputation:
    return replay(federation.records() if records is None else records, federation.roster)


def line_of(reputation: Reputation, round_: int, member: int) -> MemberLine:
    outcome = next(one for one in reputation.rounds if one.round == round_)
    return next(line for line in outcome.members if line.member == member)


def offences(line: MemberLine) -> list[Offence]:
    return [one.proof.offence for one in line.penalties]


@cache
def eventful() -> Evaluated:
    """Five hospitals, four rounds, each offence once."""
    federation = opened(5)
    federation.play_evaluated(1)
    base = digest_of("model 1")
    federation.play_evaluated(
        2, a0={"update_digest": base, "base_digest": base}, a3={"update_digest": digest_of("x")}
    )
    federation.commit(1, 2, ())  # a second one, never opened
    federation.play_evaluated(3, a4={"update_digest": digest_of("x")})
    rival = federation.draft(2, Kind.CLOSE, 3, Close(reason=CloseReason.LEFT))
    rival = replace(rival, seq=3, prev=federation.logs[2][2].id)
    other = sign_record(rival, federation.signers[2]).signed
    proof = fork_proof(federation.logs[2][3].signed, other)
    federation.write(0, Kind.FORK_PROOF, 4, proof)
    federation.play_evaluated(4)
    return federation


def test_each_offence_is_found_once_in_its_round() -> None:
    reputation = replayed(eventful())
    found = [
        (outcome.round, line.member, offence)
        for outcome in reputation.rounds
        for line in outcome.members
        for offence in offences(line)
    ]
    assert found == [
        (2, 0, Offence.BASE), (3, 1, Offence.UNREVEALED), (3, 4, Offence.COPY),
        (4, 2, Offence.FORK),
    ]  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False), st.lists(st.integers(0, 60), max_size=8))
def test_any_order_and_any_repetition_gives_the_same_integers(
    rng: random.Random, again: list[int]
) -> None:
    federation = eventful()
    records = federation.records()
    shuffled = [*records, *(records[at] for at in again)]
    rng.shuffle(shuffled)
    assert replayed(federation, shuffled) == replayed(federation)


def test_later_rounds_change_nothing_about_earlier_ones() -> None:
    federation = eventful()
    whole = replayed(federation)
    for last in range(5):
        past = [one for one in federation.records() if one.value.round <= last]
        rounds = tuple(outcome for outcome in whole.rounds if outcome.round <= last)
        assert replayed(federation, past).rounds == rounds


def test_the_evidence_of_a_number_gives_the_number_again() -> None:
    reputation = replayed(eventful())
    ids = {one.id for one in eventful().records()}
    value = dict.fromkeys(range(5), RULES.initial_micro)
    for outcome in reputation.rounds:
        for line in outcome.members:
            assert line.before_micro == value[line.member]
            paid = sum(one.micro for one in line.penalties)
            assert line.after_micro == max(0, line.before_micro + line.step_micro - paid)
            value[line.member] = line.after_micro
            assert {vote.reveal_id for vote in line.votes} <= ids
            assert {vote.target_id for vote in line.votes} <= {line.contribution_id}
            assert {id_ for one in line.penalties for id_ in one.proof.records} <= ids
        weights = {one.evaluator: one.weight_micro for one in outcome.evaluators if one.counted}
        assert all(v.weight_micro == weights[v.evaluator] for m in outcome.members for v in m.votes)
    assert value == reputation.state.values_micro()


def test_nothing_happened_means_the_initial_value_for_everyone() -> None:
    federation = opened(4)
    reputation = replayed(federation)
    assert reputation.rounds == ()
    assert reputation.state.values_micro() == dict.fromkeys(range(4), 500_000)
    assert replayed(federation, []).state == reputation.state


def test_changing_one_score_changes_the_digest() -> None:
    def digest(change: int) -> bytes:
        federation = opened(4)
        scores = {i: {j: usual(i, j, 1) for j in range(4) if j != i} for i in range(4)}
        scores[2][0] += change
        federation.play_evaluated(1, scores)
        return replayed(federation).state.digest()

    assert digest(0) == digest(0)
    assert digest(0) != digest(100_000)


# What costs what.


def test_an_update_equal_to_its_base_costs_and_earns_nothing() -> None:
    federation = opened(5)
    base = digest_of("base")
    offered = federation.play_evaluated(1, a4={"update_digest": base, "base_digest": base})
    line = line_of(replayed(federation), 1, 4)
    assert line.score_micro == MICRO  # as the evaluators saw it
    assert line.step_micro == 0
    assert line.after_micro == 400_000
    assert line.penalties[0].proof == Proof(4, Offence.BASE, (offered[4].id,))


def test_a_bad_score_counts_on_top_of_a_penalty() -> None:
    federation = opened(5)
    base = digest_of("base")
    federation.play_evaluated(1, a0={"update_digest": base, "base_digest": base})
    assert line_of(replayed(federation), 1, 0).after_micro == 500_000 - 31_250 - 100_000


def test_moments_equal_to_their_base_cost_nothing() -> None:
    federation = opened(4)
    federation.contribute(0, 0, codec=Codec.MOMENTS, update_digest=bytes(32), base_digest=bytes(32))
    assert replayed(federation).rounds == ()


def test_a_copy_by_one_who_acked_the_original_costs() -> None:
    federation = opened(5)
    digest = digest_of("worked hard")
    offered = {
        0: federation.contribute(0, 1, update_digest=digest),
        1: federation.contribute(1, 1, update_digest=digest),  # acks 0's head in this very record
    }
    reputation = replayed(federation)
    assert offences(line_of(reputation, 1, 0)) == []
    assert line_of(reputation, 1, 0).after_micro == 500_000
    line = line_of(reputation, 1, 1)
    proof = Proof(1, Offence.COPY, (offered[1].id, offered[0].id, offered[1].id))
    assert line.penalties[0].proof == proof
    assert line.after_micro == 400_000


def unacked(federation: Evaluated, author: int, round_: int, digest: bytes) -> Verified[Record]:
    body = federation.contribution_body(author, round_, update_digest=digest)
    return federation.write(author, Kind.CONTRIBUTION, round_, body)


def test_of_equal_updates_without_proof_of_order_nobody_is_blamed() -> None:
    federation = opened(5)
    for author in (0, 1):
        unacked(federation, author, 1, digest_of("x"))
    reputation = replayed(federation)
    assert [offences(line) for line in reputation.rounds[0].members] == [[]] * 5


def test_a_laggard_cannot_frame_the_author_of_a_later_round() -> None:
    """1 sees 0's update of round 2 and signs the same digest into its own round 1."""
    federation = opened(5)
    unacked(federation, 0, 2, digest_of("x"))
    unacked(federation, 1, 1, digest_of("x"))
    for author in (2, 3, 4):
        federation.contribute(author, 2)  # all ack both, but in round 2
    reputation = replayed(federation)
    found = [o for out in reputation.rounds for line in out.members for o in offences(line)]
    assert found == []


def test_a_replay_of_what_a_quorum_held_in_an_earlier_round_costs_without_an_own_ack() -> None:
    federation = opened(5)
    original = unacked(federation, 0, 1, digest_of("x"))
    witnesses = [federation.contribute(author, 1) for author in (2, 3)]
    early = replayed(federation)
    copy = unacked(federation, 1, 2, digest_of("x"))
    line = line_of(replayed(federation), 2, 1)
    assert offences(line) == []  # three hold it, four are a quorum
    assert early.rounds[0] == replayed(federation).rounds[0]
    fourth = federation.write(
        4, Kind.CONTRIBUTION, 1, federation.contribution_body(4, 1), with_acks=True
    )
    proof = line_of(replayed(federation), 2, 1).penalties[0].proof
    assert proof.offence == Offence.COPY
    expected = (copy.id, original.id, original.id, *(one.id for one in witnesses), fourth.id)
    assert proof.records == expected


def test_repeating_the_own_update_is_no_copy_of_anothers() -> None:
    federation = opened(5)
    federation.contribute(0, 1, update_digest=digest_of("x"))
    federation.contribute(0, 2, update_digest=digest_of("x"))
    reputation = replayed(federation)
    assert [offences(line_of(reputation, round_, 0)) for round_ in (1, 2)] == [[], []]


def test_a_commit_never_opened_costs_once_its_author_has_moved_on() -> None:
    federation = opened(4)
    offered = {i: federation.contribute(i, 1) for i in range(4)}
    scores = federation.scores(offered, {1: 5, 2: 6})
    commit = federation.commit(0, 1, scores)
    assert replayed(federation).state.values_micro()[0] == 500_000  # it may still open it
    later = federation.contribute(0, 2)
    line = line_of(replayed(federation), 2, 0)
    assert line.penalties[0].proof == Proof(0, Offence.UNREVEALED, (commit.id, later.id))
    assert line.after_micro == 450_000
    federation.contribute(0, 3)
    assert offences(line_of(replayed(federation), 3, 0)) == []


def test_every_unopened_commit_costs() -> None:
    federation = opened(4)
    for _ in range(3):
        federation.commit(0, 1, ())
    federation.contribute(0, 2)
    assert line_of(replayed(federation), 2, 0).after_micro == 350_000


def test_a_fork_costs_once_however_often_it_is_proven() -> None:
    federation = eventful()
    twice = opened(5)
    proofs = [one for one in federation.records() if one.value.kind == Kind.FORK_PROOF]
    body = proofs[0].value.body
    assert isinstance(body, ForkProof)
    for author in (3, 1):
        twice.write(author, Kind.FORK_PROOF, 2, body)
    twice.write(4, Kind.FORK_PROOF, 3, body)
    reputation = replayed(twice)
    line = line_of(reputation, 2, 2)
    first = min(one.id for one in twice.records() if one.value.round == 2)
    assert line.penalties[0].proof == Proof(2, Offence.FORK, (first,))
    assert line.after_micro == 0
    assert reputation.state.values_micro() == {0: 500_000, 1: 500_000, 2: 0, 3: 500_000, 4: 500_000}


def test_reputation_never_falls_below_zero() -> None:
    federation = opened(4)
    for _ in range(15):
        federation.commit(0, 1, ())
    federation.contribute(0, 2)
    assert line_of(replayed(federation), 2, 0).after_micro == 0


# Who is scored, and who is not.


def test_below_2f_plus_1_votes_nobody_is_scored() -> None:
    federation = opened(7)  # f = 2, so 5 votes
    offered = {i: federation.contribute(i, 1) for i in range(7)}
    changes = {i: {j: usual(i, j, 1) for j in range(7) if j != i} for i in range(5)}
    federation.evaluate_round(1, offered, changes)
    reputation = replayed(federation)
    scored = {line.member: line.score_micro is not None for line in reputation.rounds[0].members}
    assert scored == {0: False, 1: False, 2: False, 3: False, 4: False, 5: True, 6: True}
    assert all(len(line.votes) == 4 for line in reputation.rounds[0].members[:5])
    assert reputation.rounds[0].votes_needed == 5
    assert line_of(reputation, 1, 0).after_micro == 500_000


def test_who_is_absent_keeps_what_it_has() -> None:
    federation = opened(5)
    federation.play_evaluated(1)
    before = replayed(federation).state.values_micro()
    offered = {i: federation.contribute(i, 2) for i in range(4)}
    changes = {i: {j: usual(i, j, 2) for j in range(4) if j != i} for i in range(5)}
    federation.evaluate_round(2, offered, changes)
    line = line_of(replayed(federation), 2, 4)
    assert (line.contribution_id, line.score_micro, line.step_micro) == (None, None, 0)
    assert line.after_micro == before[4]


@pytest.mark.parametrize(("targets", "counted"), [((), False), ((1,), False), ((1, 2), False),
    ((1, 2, 3), True)])  # fmt: skip
def test_a_ballot_that_ranks_fewer_than_half_does_not_count(
    targets: tuple[int, ...], *, counted: bool
) -> None:
    federation = opened(7)
    offered = {i: federation.contribute(i, 1) for i in range(7)}
    changes = {i: {j: usual(i, j, 1) for j in range(7) if j != i} for i in range(1, 7)}
    federation.evaluate_round(1, offered, {0: {j: 5 * j for j in targets}, **changes})
    outcome = replayed(federation).rounds[0]
    assert outcome.evaluators[0].counted is counted
    assert any(v.evaluator == 0 for line in outcome.members for v in line.votes) is counted


def test_with_two_members_nobody_is_ranked() -> None:
    federation = opened(2)
    federation.play_evaluated(1, {0: {1: 5}, 1: {0: 7}})
    assert replayed(federation).state.values_micro() == {0: 500_000, 1: 500_000}


def test_agreement_is_that_of_the_window_before() -> None:
    evidence = [
        evidence_of(r, list(range(5)), {i: {j: 10 * j for j in range(5) if j != i} for i in range(5)})
        for r in range(1, 13)
    ]  # fmt: skip
    state = initial_state(range(5))
    for one in evidence:
        outcome = advance(state, one, members=range(5), tolerated=1)
        for line in outcome.evaluators:
            window = [
                a
                for a in next(s for s in state.standings if s.member == line.evaluator).agreements
                if a.round >= one.round - 8
            ]
            assert len(window) == min(one.round - 1, 8)
            count = sum(a.count for a in window)
            apart = sum(a.distance for a in window)
            agreement = max(0, MICRO - 3 * apart // count) if count else 500_000
            assert line.agreement_micro == agreement
            assert line.weight_micro == 250_000 + agreement * 750_000 // MICRO
        state = outcome.state


def test_an_evaluator_that_contradicts_everyone_loses_weight_and_regains_it() -> None:
    members = range(7)
    usual_row = {i: {j: 10 * j for j in members if j != i} for i in members}
    contrary = {**usual_row, 0: {j: -10 * j for j in members if j != 0}}
    state = initial_state(members)
    weights = []
    for round_ in range(1, 31):
        ballots: Ballots = contrary if round_ <= 10 else usual_row
        outcome = advance(
            state, evidence_of(round_, list(members), ballots), members=members, tolerated=2
        )
        state = outcome.state
        weights.append(outcome.evaluators[0].weight_micro)
    assert weights[0] == 625_000
    assert weights[1] == weights[10] == 250_000
    assert weights[18] == weights[29] > 700_000  # not 1,000,000: nobody ranks himself


# Membership.


def test_a_newcomer_starts_in_the_middle_and_who_has_left_keeps_its_standing() -> None:
    def row(members: Sequence[int]) -> Ballots:
        return {i: {j: 10 * j for j in members if j != i} for i in members}

    first = advance(
        initial_state(range(5)), evidence_of(1, list(range(5)), row(range(5))),
        members=range(5), tolerated=1,
    )  # fmt: skip
    now = [1, 2, 3, 4, 5]
    second = advance(first.state, evidence_of(2, now, row(now)), members=now, tolerated=1)
    left = next(one for one in second.state.standings if one.member == 0)
    assert left.value_micro == first.state.values_micro()[0] < 500_000
    assert [line.member for line in second.members] == now
    assert second.members[-1].before_micro == 500_000


def test_ballots_and_offences_of_who_is_no_member_count_nothing() -> None:
    members = range(5)
    evidence = evidence_of(
        1, list(range(6)), {i: {j: j for j in range(6) if j != i} for i in range(6)}
    )
    proofs = (Proof(5, Offence.FORK, (id_of("proof"),)),)
    outcome = advance(
        initial_state(members), replace(evidence, proofs=proofs), members=members, tolerated=1
    )
    assert [line.evaluator for line in outcome.evaluators] == list(members)
    assert all(vote.evaluator != 5 for line in outcome.members for vote in line.votes)
    assert [line.penalties for line in outcome.members] == [()] * 5


def test_rounds_only_go_forward() -> None:
    state = advance(
        initial_state(range(4)), RoundEvidence(3, (), (), ()), members=range(4), tolerated=1
    ).state
    for round_ in (2, 3):
        with pytest.raises(ValueError, match="after round 3"):
            advance(state, RoundEvidence(round_, (), (), ()), members=range(4), tolerated=1)


# What a set must be.


def test_a_set_with_both_branches_of_a_fork_is_refused() -> None:
    federation = opened(4)
    federation.contribute(0, 1)
    rival = federation.draft(0, Kind.CLOSE, 1, Close(reason=CloseReason.DONE))
    both = sign_record(replace(rival, seq=1), federation.signers[0])
    with pytest.raises(VerificationError) as caught:
        replayed(federation, [*federation.records(), both])
    assert (caught.value.code, caught.value.author, caught.value.seq) == ("E_FORK", 0, 1)


def test_a_set_with_a_false_fork_proof_is_refused() -> None:
    federation = opened(4)
    half = federation.logs[1][0].signed.envelope()
    federation.write(0, Kind.FORK_PROOF, 1, ForkProof(envelope_a=half, envelope_b=half))
    with pytest.raises(VerificationError) as caught:
        replayed(federation)
    assert (caught.value.code, caught.value.author, caught.value.seq) == ("E_FORK_PROOF", 0, 1)


def test_a_set_with_a_false_reveal_is_refused() -> None:
    federation = opened(4)
    offered = {i: federation.contribute(i, 1) for i in range(4)}
    commit = federation.commit(0, 1, ())
    federation.reveal(0, 1, federation.scores(offered, {1: 1, 2: 2}), commit.value.seq)
    with pytest.raises(VerificationError) as caught:
        replayed(federation)
    assert caught.value.code == "E_REVEAL"


def test_a_set_that_lacks_a_scored_contribution_is_refused() -> None:
    federation = opened(4)
    federation.play_evaluated(1)
    shown = [one for one in federation.records() if one.value.author != 3]
    with pytest.raises(VerificationError) as caught:
        replayed(federation, shown)
    assert caught.value.code == "E_SCORE_TARGET"


def test_an_edited_reputation_is_found() -> None:
    reputation = replayed(eventful())
    values = reputation.state.values_micro()
    check_reputation(values, reputation.state)
    no_longer = {member: value for member, value in values.items() if member != 3}
    for claimed, member in (
        ({**values, 2: values[2] + 1}, 2), (no_longer, 3), ({**values, 9: 500_000}, 9)
    ):  # fmt: skip
        with pytest.raises(VerificationError) as caught:
            check_reputation(claimed, reputation.state)
        assert (caught.value.code, caught.value.author) == ("E_REPUTATION", member)
        assert caught.value.expected == str(values.get(member, "no value"))


@pytest.mark.parametrize("changes", [{"initial_micro": MICRO + 1}, {"fork_micro": -1},
    {"weight_floor_micro": 0}, {"weight_floor_micro": MICRO + 1}, {"step_divisor": 0},
    {"window_rounds": 0}, {"agreement_slope": 0}])  # fmt: skip
def test_rules_are_checked_at_birth(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"is 1 to|are 0 to|at least 1"):
        ReputationRules(**changes)


def test_nobody_can_live_with_base_or_copy() -> None:
    assert min(RULES.base_micro, RULES.copy_micro) > MICRO // RULES.step_divisor


# Any evidence at all.

round_evidence = st.integers(4, 8).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.lists(
            st.dictionaries(
                st.integers(0, n - 1),
                st.dictionaries(st.integers(0, n - 1), st.integers(-9, 9), max_size=n),
                max_size=n,
            ),
            min_size=1, max_size=6,
        ),
        st.lists(st.tuples(st.integers(0, n - 1), st.sampled_from(Offence)), max_size=4),
    )
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(round_evidence)
def test_whatever_is_said_every_number_stays_in_its_bounds(case: Any) -> None:
    n, rounds, done = case
    state = initial_state(range(n))
    for round_, rows in enumerate(rounds, start=1):
        ballots = {i: {j: x for j, x in row.items() if j != i} for i, row in rows.items()}
        evidence = replace(
            evidence_of(round_, list(range(n)), ballots),
            proofs=tuple(sorted(Proof(m, o, (id_of(m, o),)) for m, o in set(done))),
        )
        outcome = advance(state, evidence, members=range(n), tolerated=(n - 1) // 3)
        for line in outcome.members:
            assert 0 <= line.after_micro <= MICRO
            assert line.score_micro is None or 0 <= line.score_micro <= MICRO
            assert all(0 <= vote.rank_micro <= MICRO for vote in line.votes)
            assert (line.score_micro is None) == (len(line.votes) < outcome.votes_needed)
        for one in outcome.evaluators:
            assert RULES.weight_floor_micro <= one.weight_micro <= MICRO
        assert all(len(one.agreements) <= RULES.window_rounds for one in outcome.state.standings)
        state = outcome.state


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 6), st.integers(0, 5), st.integers(1, 2_000))
def test_a_better_opinion_never_lowers_the_one_and_never_raises_the_others(
    seed: int, evaluator: int, at: int, more: int
) -> None:
    rng = random.Random(seed)
    members = range(7)
    rows = {i: {j: rng.randrange(-1_000, 1_000) for j in members if j != i} for i in members}
    target = [j for j in members if j != evaluator][at]
    better = {i: dict(row) for i, row in rows.items()}
    better[evaluator][target] += more
    before, after = (
        advance(
            initial_state(members), evidence_of(1, list(members), one), members=members, tolerated=2
        ).state.values_micro()
        for one in (rows, better)
    )
    assert after[target] >= before[target]
    assert all(after[j] <= before[j] for j in members if j != target)
