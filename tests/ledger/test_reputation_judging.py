"""Sketches, panels, false sketches, weights: pure functions of the records, and what a liar may try."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_cases import files_of
from ledger_factory import digest_of
from reputation_records import Evaluated, opened

from ledger.bodies import (
    Aggregation,
    EvaluationReveal,
    Input,
    Reason,
    Rejection,
    Rule,
    Sketch,
    SketchRow,
)
from ledger.coverage import Coverage
from ledger.errors import VerificationError
from ledger.evidence import Offence, Seen
from ledger.fork import Cut
from ledger.insight import look
from ledger.panel import agreed_inputs, evaluators
from ledger.record import Kind, Record, Verified, sign_record
from ledger.report_signals import signal_section
from ledger.reputation import replay
from ledger.roster import Roster
from ledger.signals import Alert, MemberSignals
from ledger.sketch import (
    EXPONENT_BIAS,
    Projected,
    cosine_micro,
    norm_micro,
    rows_max,
    seed_of,
    unpack_values,
)
from ledger.verify import verify_bundles
from ledger.weighing import Weighing, factor_micro, settled_round

MEMBERS = 4
CHARTER = '[reputation]\nmode = "weigh"\nsketch_dimensions = 16\n'


def federation_of(members: int = MEMBERS) -> Evaluated:
    return opened(members, CHARTER)


def agree(
    federation: Evaluated, round_: int, offered: dict[int, Verified[Record]], voters: int
) -> tuple[bytes, ...]:
    """So many members vote for all that was offered; returns the inputs' ids."""
    inputs = tuple(
        Input(author=i, epoch=0, seq=one.value.seq, id=one.id, weight_micro=250_000)
        for i, one in sorted(offered.items())
    )
    body = Aggregation(
        rule=Rule.MEAN, parameters=(), inputs=inputs, left_out=(), result_digest=digest_of("m")
    )
    for author in range(voters):
        federation.write(author, Kind.AGGREGATION, round_, body)
    return tuple(sorted(one.id for one in offered.values()))


def sketch_body(
    federation: Evaluated, round_: int, inputs: tuple[bytes, ...], *targets: bytes, spread: int = 7
) -> Sketch:
    values = b"".join((spread * i).to_bytes(2, "big", signed=True) for i in range(-8, 8))
    return Sketch(
        round=round_,
        seed=seed_of(federation.roster.net, round_, inputs),
        rows=tuple(
            SketchRow(target_id=one, exponent=EXPONENT_BIAS - 20, values=values)
            for one in sorted(targets)
        ),
    )


# Sketches.


def test_a_seed_follows_from_the_agreed_inputs_in_any_order() -> None:
    ids = [digest_of(str(i)) for i in range(5)]
    seed = seed_of(bytes(32), 3, ids)
    assert seed == seed_of(bytes(32), 3, ids[::-1])
    others = {
        seed_of(bytes(32), 4, ids),
        seed_of(b"\1" * 32, 3, ids),
        seed_of(bytes(32), 3, ids[1:]),
    }
    assert len(others | {seed}) == 4


def test_cosine_and_norm_are_integers_with_the_documented_rounding() -> None:
    def projected(*values: int, exponent: int = 0) -> Projected:
        return Projected(0, 1, b"", exponent, values)

    assert cosine_micro(projected(3, 4), projected(3, 4)) == 1_000_000
    assert cosine_micro(projected(3, 4), projected(-3, -4, exponent=9)) == -1_000_000
    assert cosine_micro(projected(1, 1), projected(1, 0)) == 1_000_000  # ⌊√2⌋ = 1
    assert cosine_micro(projected(100, 100), projected(100, 0)) == 707_113  # 10^10 / ⌊√(2·10^8)⌋
    assert cosine_micro(projected(0, 0), projected(1, 0)) == 0
    assert norm_micro(projected(3, 4)) == 5_000_000
    assert norm_micro(projected(3, 4, exponent=-10)) == 4_882
    assert norm_micro(projected(3, 4, exponent=3)) == 40_000_000
    with pytest.raises(ValueError, match="lengths"):
        cosine_micro(projected(1), projected(1, 2))
    with pytest.raises(ValueError, match="even"):
        unpack_values(b"\0")
    assert [rows_max(k) for k in (256, 4_096)] == [3, 3]


def test_only_rows_of_the_agreed_seed_the_right_length_and_the_own_updates_count() -> None:
    federation = federation_of()
    offered = {i: federation.contribute(i, 1) for i in range(MEMBERS)}
    inputs = agree(federation, 1, offered, 3)
    good = sketch_body(federation, 1, inputs, offered[0].id)
    federation.write(0, Kind.SKETCH, 1, good)
    federation.write(0, Kind.SKETCH, 1, sketch_body(federation, 1, inputs, offered[0].id, spread=9))
    federation.write(1, Kind.SKETCH, 1, replace(good, seed=digest_of("another")))
    short = replace(good.rows[0], target_id=offered[2].id, values=bytes(30))
    federation.write(2, Kind.SKETCH, 1, replace(good, rows=(short,)))
    federation.write(3, Kind.SKETCH, 1, sketch_body(federation, 1, inputs, offered[0].id))
    (round_,) = look(federation.records(), federation.roster, federation.charter).sketches
    assert [(one.member, one.id) for one in round_.sketches] == [(0, offered[0].id)]
    assert round_.sketches[0].values[-1] == 49


def test_a_round_is_agreed_by_q_equal_first_votes_of_members() -> None:
    federation = federation_of()
    offered = {i: federation.contribute(i, 1) for i in range(MEMBERS)}
    inputs = agree(federation, 1, offered, 2)
    assert agreed_inputs(federation.records(), federation.roster) == {}
    agree(federation, 1, dict(list(offered.items())[:2]), 1)  # member 0 has voted already
    body = federation.logs[0][-2].value.body
    federation.write(2, Kind.AGGREGATION, 1, body)
    assert agreed_inputs(federation.records(), federation.roster) == {1: inputs}


def test_what_was_not_agreed_stays_so_whoever_is_removed_later() -> None:
    """Three of five are no quorum, and would be one of the four that are left."""
    federation = federation_of(5)
    offered = {i: federation.contribute(i, 1) for i in range(5)}
    agree(federation, 1, offered, 3)
    roster = federation.roster
    (gone,) = roster.terms[4]
    after = replace(
        roster, version=1, versions=(0, 1), terms=(*roster.terms[:4], (replace(gone, until=1),))
    )
    assert after.active_at(1) == frozenset(range(4))
    for reader in (roster, after):
        assert agreed_inputs(federation.records(), reader) == {}
    agree(federation, 2, {i: federation.contribute(i, 2) for i in range(5)}, 4)
    assert agreed_inputs(federation.records(), after).keys() == {2}


# Panels.


def test_a_panel_is_everybody_or_as_many_as_the_charter_says() -> None:
    assert evaluators(b"s", range(15), 15) == frozenset(range(15))
    panels = {evaluators(digest_of(str(i)), range(40), 15) for i in range(50)}
    assert {len(one) for one in panels} == {15}
    assert len(panels) == 50
    counts = [sum(member in one for one in panels) for member in range(40)]
    assert min(counts) > 5, "everybody sits on some"


# False sketches.


@pytest.mark.parametrize(("refusals", "is_blamed"), [(1, False), (2, True), (3, True)])
def test_a_false_sketch_costs_when_more_than_f_have_refused_it(
    refusals: int, *, is_blamed: bool
) -> None:
    federation = federation_of()
    offered = {i: federation.contribute(i, 1) for i in range(MEMBERS)}
    inputs = agree(federation, 1, offered, 3)
    body = sketch_body(federation, 1, inputs, offered[3].id)
    sketch = federation.write(3, Kind.SKETCH, 1, body)
    refusal = Rejection(target_id=sketch.id, reason=Reason.FALSE_SKETCH)
    federation.write(3, Kind.REJECTION, 1, refusal)  # its author's own counts for nothing
    for author in range(refusals):
        for _ in range(2):  # and nobody counts twice
            federation.write(author, Kind.REJECTION, 1, refusal)
    other = Rejection(target_id=sketch.id, reason=Reason.TOO_LARGE)
    federation.write(2, Kind.REJECTION, 1, other)
    found = [
        (line.member, one.proof.offence, one.proof.records[0], line.after_micro)
        for outcome in replay(federation.records(), federation.roster).rounds
        for line in outcome.members
        for one in line.penalties
    ]
    assert found == [(3, Offence.FALSE_SKETCH, sketch.id, 400_000)] * is_blamed


# Changing a score.


def test_changing_any_score_anywhere_is_found_even_with_its_authors_key(tmp_path: Path) -> None:
    federation = opened(MEMBERS)
    federation.play_evaluated(1)
    records = federation.records()
    changed = 0
    for one in records:
        body = one.value.body
        if not isinstance(body, EvaluationReveal):
            continue
        for at, score in enumerate(body.scores):
            for field in ("loss_with_micro", "loss_without_micro", "count"):
                other = replace(score, **{field: getattr(score, field) + 1})
                scores = (*body.scores[:at], other, *body.scores[at + 1 :])
                value = replace(one.value, body=replace(body, scores=scores))
                edited = sign_record(value, federation.signers[one.value.author])
                with pytest.raises(VerificationError) as caught:
                    replay(
                        [edited if kept.id == one.id else kept for kept in records],
                        federation.roster,
                    )
                assert (caught.value.code, caught.value.author) == ("E_REVEAL", one.value.author)
                changed += 1
    assert changed == MEMBERS * (MEMBERS - 1) * 3
    federation.logs[one.value.author][-1] = edited  # the last one, in a bundle
    bundle = tmp_path / "bundle"
    for name, data in files_of(federation).items():
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_bytes(data)
    report = verify_bundles([bundle], federation.charter_bytes, federation.charter.digest_hex)
    assert [(one.step, one.error.code) for one in report.findings] == [(13, "E_REVEAL")]


# What lies below, and weights.


def test_what_lies_below_is_closed_under_acks_and_the_logs_before() -> None:
    federation = federation_of()
    for round_ in (1, 2, 3):
        for author in range(MEMBERS):
            federation.contribute(author, round_)
    coverage = Coverage()
    by_slot = {}
    for one in sorted(federation.records(), key=lambda one: (one.value.author, one.value.seq)):
        value = one.value
        coverage.learn(value.author, value.epoch, value.seq, value.round, value.acks)
        by_slot[value.author, value.seq] = value
    rng = random.Random(5)
    for _ in range(20):
        author = rng.randrange(MEMBERS)
        seq = rng.randrange(len(federation.logs[author]))
        below = coverage.below([(author, 0, seq)])
        slow: set[tuple[int, int]] = set()
        todo = [(author, seq)]
        while todo:
            slot = todo.pop()
            if slot not in slow:
                slow.add(slot)
                todo += [(slot[0], slot[1] - 1)] * (slot[1] > 0)
                todo += [(ack.author, ack.seq) for ack in by_slot[slot].acks]
        assert below == {
            (member, 0): count
            for member in range(MEMBERS)
            if (count := sum(one == member for one, _ in slow))
        }
        assert coverage.up_to_round(below, 9) == below
        assert 0 not in {*coverage.up_to_round(below, 0).values()}


def test_factors_are_bounded_and_a_newcomer_weighs_one() -> None:
    factors = [
        factor_micro(r, floor=500_000, ceiling=2_000_000) for r in range(0, 1_000_001, 1_000)
    ]
    assert (factors[0], factors[500], factors[-1]) == (500_000, 1_000_000, 2_000_000)
    assert factors == sorted(factors)
    assert [settled_round(r) for r in (0, 3, 4, 7, 8, 11, 12)] == [None, None, 2, 2, 6, 6, 10]


def test_voters_of_the_same_inputs_get_the_same_factors_whatever_else_they_hold() -> None:
    federation = federation_of()
    for round_ in (1, 2, 3, 4):
        offered = federation.play_evaluated(round_)
    slots = [(one.value.author, one.value.epoch, one.value.seq) for one in offered.values()]
    policy, roster = federation.charter.reputation, federation.roster
    later = max(one.value.seq for one in offered.values()) + 1

    def factors(records: list[Verified[Record]]) -> list[int] | None:
        weighing = Weighing(policy, roster)
        for one in sorted(records, key=lambda one: one.value.seq):
            weighing.learn(one.value, one.id)
        return weighing.factors_micro(4, slots)

    everything = federation.records()
    full = factors(everything)
    assert full is not None
    assert len(set(full)) > 1
    below = [one for one in everything if one.value.seq < later]
    assert factors(below) == full
    assert factors([one for one in below if one.value.seq or one.value.author != 2]) is None
    # By hand: the records of rounds up to 2 that the contributions of round 4 had acked.
    counted = [one for one in everything if one.value.round <= 2]
    values = replay([Seen(one.value, one.id) for one in counted], roster).state.values_micro()
    assert full == [
        factor_micro(values[author], floor=500_000, ceiling=1_500_000) for author, _, _ in slots
    ]
    assert Weighing(replace(policy, mode="score"), roster).factors_micro(4, slots) == []


def test_below_a_fork_that_all_know_of_nobody_has_factors_whatever_branch_he_holds() -> None:
    federation = federation_of()
    for round_ in (1, 2, 3):
        federation.play_evaluated(round_)
    fork = len(federation.logs[0])
    shown = [
        federation.write(0, Kind.REJECTION, 3, Rejection(target_id=digest_of(str(i)), reason=1))
        for i in range(2)
    ]
    offered = {i: federation.contribute(i, 4) for i in range(1, MEMBERS)}  # these ack them
    slots = [(i, 0, one.value.seq) for i, one in offered.items()]
    policy, roster = federation.charter.reputation, federation.roster
    everything = federation.records()
    other = Rejection(target_id=digest_of("another"), reason=1)
    held = {
        "what was shown": everything,
        "less": [one for one in everything if one not in shown],
        "another branch": [
            sign_record(replace(one.value, body=other), federation.signers[0])
            if one.id == shown[0].id
            else one
            for one in everything
        ],
    }

    def factors(
        records: list[Verified[Record]], *forked: tuple[int, int], by: Roster = roster
    ) -> list[int] | None:
        weighing = Weighing(policy, by)
        for one in sorted(records, key=lambda one: one.value.seq):
            weighing.learn(one.value, one.id)
        return weighing.factors_micro(4, slots, forked)

    assert factors(everything) is not None
    assert factors(held["less"]) is None, "so the rest has to find it missing, too"
    for name, records in held.items():
        assert factors(records, (0, 0)) is None, name
        assert factors(records, (0, 1)) == factors(records), "it does not lie below"
    (term,) = roster.terms[0]
    cut = Cut(author=0, epoch=0, kept=fork + 2, head_id=shown[-1].id)
    mended = replace(roster, terms=((replace(term, cut=cut),), *roster.terms[1:]))
    assert factors(everything, (0, 0), by=mended) == factors(everything)


def test_the_report_shows_each_doubt_with_records_and_what_would_clear_it() -> None:
    evidence = tuple(digest_of(str(i)) for i in range(9))
    alert = Alert("near", 3, 6, evidence, "its updates are <others'>", "updates of its own")
    timeline = ((1, {}), (2, {"near_millibits": 1_234}))
    one = MemberSignals(1, timeline, (alert,), 900, 1_200)
    page = "".join(signal_section([one], lambda member: f"hospital {member}"))
    assert "hospital 1" in page
    assert (
        "its updates are &lt;others&#x27;&gt; (rounds 3 to 6). Would clear it: updates of" in page
    )
    assert f"{evidence[0].hex()[:16]}, " in page
    assert "and 1 more" in page
    assert "<td>1,234</td>" in page
    assert "Nobody is doubted" in "".join(signal_section([replace(one, alerts=())], str))
    assert not [*signal_section([], str)]
