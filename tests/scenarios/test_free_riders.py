"""`free-riders`: riders are found from records alone, nobody else is, and both engines say the same."""

import pytest

from scenarios.attacks import Attack, Riding
from scenarios.riders.bars import BARS, missed
from scenarios.riders.cases import CASES, Cast, cast
from scenarios.riders.clinics import Clinics, make_clinics, split_clinics
from scenarios.riders.engine import Ran, run_case
from scenarios.riders.service import run_service
from scenarios.riders.study import as_table, judged, summary, wilson
from swarm.learning.dataset import Table

MEMBERS = 8
SEED = 5
ROUNDS = 3


@pytest.fixture(scope="module")
def clinics() -> Clinics:
    return make_clinics(SEED, MEMBERS)


def doubted(ran: Ran) -> set[int]:
    return {one.member for one in ran.signals if one.alerts}


def test_riders_are_found_and_both_engines_agree_on_models_and_doubts(clinics: Clinics) -> None:
    parts = Cast(
        members=MEMBERS,
        riders={3: Riding(attack=Attack.NOISE), 6: Riding(attack=Attack.ZERO)},
    )
    fast = run_case(SEED, parts, clinics, rounds=ROUNDS)
    assert doubted(fast) == {3, 6}, [one.alerts for one in fast.signals]
    service = run_service(SEED, parts, clinics, rounds=ROUNDS)
    assert service.auc_by_round == fast.auc_by_round
    assert doubted(service) == {3, 6}, [one.alerts for one in service.signals]


def test_a_seed_is_counted(clinics: Clinics) -> None:
    parts = Cast(members=MEMBERS, riders={3: Riding(attack=Attack.ZERO)})
    one = judged("zero", SEED, run_case(SEED, parts, clinics, rounds=2))
    none = judged("none", SEED, run_case(SEED, Cast(members=MEMBERS), clinics, rounds=2))
    found = summary("zero", [one], [none])
    assert found["recall"] == found["recall_round_3"] == 1.0
    assert found["ranking_auc"] == 1.0
    assert found["false_alarm_rate_counted"] == [0, MEMBERS - 1]
    assert found["rounds_to_detection"] == found["rounds_to_detection_most"] == 1
    assert missed([found]) == []
    late = {**found, "recall_round_3": 0.9, "auc_lost_to_riders": 0.0061}
    lines = [
        "zero: recall_round_3 0.9000; need >= 1",
        "zero: auc_lost_to_riders 0.0061; need <= 0.005",
    ]
    assert missed([late]) == lines
    shown = as_table({"cases": [late], "failures": lines})
    assert shown[1].startswith("zero")
    assert shown[2:] == [f"MISSED {line}" for line in lines]


def test_only_cases_that_exist_have_bars_and_what_cannot_be_counted_misses_none() -> None:
    assert set(BARS) <= set(CASES)
    figures = {bar.figure for bars in BARS.values() for bar in bars}
    assert missed([{"case": case, **dict.fromkeys(figures)} for case in CASES]) == []


@pytest.mark.parametrize("case", CASES)
def test_every_case_has_the_riders_that_it_says(case: str) -> None:
    parts = cast(case, 32, 1)
    has_none = case in ("none", "rare-population", "tiny")
    assert len(parts.riders) == (0 if has_none else 6)
    assert len(cast(case, 10, 1).riders) == (0 if has_none else 2)
    assert (len(parts.colluders), parts.framed is not None) == (
        (10, True) if case == "collusion" else (0, False)
    )
    assert cast(case, 32, 1) == parts != cast(case, 32, 2) or case == "none"


def test_clinics_differ_in_size_and_share_no_test_rows() -> None:
    clinics = make_clinics(1, 12, rare=3, tiny=4)
    sizes = [one.train.rows for one in clinics.sites if isinstance(one.train, Table)]
    assert sizes[4] == 12
    assert max(sizes) > 2 * sorted(sizes)[6] / 1.5
    assert clinics.test.rows == 297
    names, columns, rows = split_clinics(1, 12)[0]
    assert (names, len(columns)) == ("Clinic 01", 65)
    assert len(rows) >= 60


def test_a_rate_has_wilsons_interval() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    low, high = wilson(120, 120)
    assert high == 1.0
    assert low == pytest.approx(0.969, abs=1e-3)
