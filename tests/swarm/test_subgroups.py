"""Metrics of subgroups: large parts are published, small ones follow from nothing that is."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.charter import Feature, Schema, Subgroup
from ledger.record import Kind, MetricId, Metrics, MetricValue
from ledger.subgroups import part_name
from swarm.learning.dataset import Table
from swarm.learning.metrics import evaluate
from swarm.learning.subgroups import NO_PART, evaluate_groups, parts_of, published

LEAST = 10
AGE = Subgroup(column="age", edges=(60.0, 80.0))
SEX = Subgroup(column="sex", edges=())


def feature(name: str, *categories: str) -> Feature:
    kind = "category" if categories else "number"
    return Feature(name=name, type=kind, minimum=None, maximum=None, categories=categories)


SCHEMA = Schema(
    label="outcome",
    head="binary",
    classes=("0", "1"),
    features=(feature("age"), feature("sex", "female", "male")),
    standardise="none",
    missing_indicator=False,
    metric="auc",
    subgroups=(AGE, SEX),
)


def patients(ages: list[float], *, sex: float = 0.0) -> tuple[Table, np.ndarray]:
    """Everybody twice, as a case and as none; scores that are right more often than not."""
    age = np.repeat(np.array(ages), 2)
    labels = np.tile(np.array([0, 1]), len(ages))
    columns = {"age": age, "sex": np.full(len(age), sex)}
    scores = labels + np.sin(np.arange(len(age)) * 7.0)
    return Table(columns=columns, labels=labels), scores


def test_bands_hold_their_lower_edge_and_missing_values_are_in_no_part() -> None:
    rows, _ = patients([59.9, 60.0, 79.9, 80.0, np.nan])
    assert parts_of(AGE, rows).tolist()[::2] == [0, 1, 1, 2, NO_PART]
    names = [part_name(SCHEMA, 0, part) for part in range(3)]
    assert names == ["age < 60", "60 ≤ age < 80", "age ≥ 80"]
    assert part_name(SCHEMA, 1, 1) == "sex = male"
    assert part_name(SCHEMA, 7, 3) == "subgroup 7, part 3"


def test_a_large_parts_metrics_are_those_of_its_patients_alone() -> None:
    rows, scores = patients([50.0] * 20 + [70.0] * 30)
    found = evaluate_groups(SCHEMA, rows, scores, group_count_min=LEAST, seed=1)
    young = rows.columns["age"] < 60
    alone = evaluate(scores[young], rows.labels[young], "binary", seed=5)
    of_young = {g.metric: g.micro for g in found if (g.subgroup, g.part) == (0, 0)}
    assert of_young == {value.metric: value.micro for value in alone}
    assert {g.count for g in found if g.subgroup == 0} == {40, 60}


def test_a_small_part_takes_the_next_smallest_with_it_so_that_nobody_can_subtract() -> None:
    rows, _ = patients([50.0] * 40 + [70.0] * 30 + [90.0] * 4)
    shown = published(parts_of(AGE, rows), rows.labels, "binary", 3, LEAST)
    assert shown == (
        0,
    )  # showing 60 to 80 too would tell everything about the eight patients over 80


def test_few_cases_hide_a_part_as_few_patients_do() -> None:
    rows, _ = patients([50.0] * 40 + [70.0] * 30)
    labels = rows.labels.copy()
    labels[80:] = 0
    labels[80:89] = 1
    assert published(parts_of(AGE, rows), labels, "binary", 3, LEAST) == ()
    labels[89:91] = 1
    assert published(parts_of(AGE, rows), labels, "binary", 3, LEAST) == (0, 1)


def test_patients_without_a_value_are_not_told_by_what_is_left_over() -> None:
    rows, _ = patients([50.0] * 40 + [70.0] * 30 + [np.nan] * 3)
    assert published(parts_of(AGE, rows), rows.labels, "binary", 3, LEAST) == (0,)


def test_where_all_are_in_one_part_it_is_the_total_and_tells_nothing_new() -> None:
    rows, _ = patients([50.0] * 40)
    assert published(parts_of(AGE, rows), rows.labels, "binary", 3, LEAST) == (0,)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(st.integers(-1, 5), st.integers(0, 1)), min_size=1, max_size=120),
    st.integers(1, 12),
)
def test_nothing_small_is_shown_or_left_over(rows: list[tuple[int, int]], least: int) -> None:
    parts = np.array([part for part, _ in rows])
    labels = np.array([label for _, label in rows])
    shown = published(parts, labels, "binary", 6, least)
    left_over = labels[~np.isin(parts, shown) & bool(shown)]  # all of them are the total itself
    for group in [*(labels[parts == part] for part in shown), left_over]:
        assert len(group) == 0 or min((group == 0).sum(), (group == 1).sum()) >= least


def test_the_record_keeps_groups_and_an_old_one_without_them_has_its_old_bytes() -> None:
    rows, scores = patients([50.0] * 20 + [70.0] * 30)
    groups = evaluate_groups(SCHEMA, rows, scores, group_count_min=LEAST, seed=1)
    keys = [(one.subgroup, one.part, one.metric) for one in groups]
    assert all(a < b for a, b in pairwise(keys))
    value = MetricValue(metric=MetricId.ECE, micro=1, low_micro=0, high_micro=2, count=100)
    body = Metrics(round=1, model_digest=bytes(32), values=(value,), groups=groups)
    assert Metrics.from_value(body.to_value()) == body
    plain = Metrics(round=1, model_digest=bytes(32), values=(value,))
    assert plain.to_value() == [1, bytes(32), [[8, 1, 0, 2, 100]]]
    assert Metrics.from_value(plain.to_value()) == plain
    for spelled_out in ([], [[0, 0, 1]], 0):
        with pytest.raises(Exception, match="METRICS"):
            Metrics.from_value([*plain.to_value(), spelled_out])
    assert body.KIND == Kind.METRICS
