import numpy as np
import pytest

from ledger.charter import Schema
from swarm.learning.dataset import Table
from swarm.learning.moments import Standardiser, local_moments
from swarm.learning.preprocessing import (
    Preprocessor,
    feature_count,
    feature_names,
    observed_matrix,
)
from tests.learning import make_charter

NAN = np.nan


def schema(*, indicator: bool = False) -> Schema:
    return make_charter(data=f"missing_indicator = {str(indicator).lower()}").schema


def table(age: list[float], dose: list[float], sex: list[float]) -> Table:
    columns = {"age": np.array(age), "dose": np.array(dose), "sex": np.array(sex)}
    return Table(columns=columns, labels=np.zeros(len(age), np.int64))


def test_columns_come_from_the_charter_alone() -> None:
    assert feature_names(schema()) == ("age", "dose", "sex=F", "sex=M")
    assert feature_names(schema(indicator=True))[4:] == (
        "age missing",
        "dose missing",
        "sex missing",
    )
    assert feature_count(schema(indicator=True)) == 7


def test_numbers_take_the_sites_median_and_categories_the_standardisers_mean() -> None:
    train = table([1, 2, 9, NAN], [5, 5, 5, 5], [0, 1, NAN, 1])
    preprocessor = Preprocessor.fit(schema(), train)
    matrix = preprocessor.transform(train, Standardiser.identity(4))
    assert matrix.dtype == np.float32
    assert matrix[3].tolist() == [2, 5, 0, 1]
    assert matrix[2].tolist() == [9, 5, 0, 0]


def test_a_number_that_a_site_never_observes_takes_the_federations_mean() -> None:
    here = table([1, 2, 3], [NAN, NAN, NAN], [0, 1, 0])
    elsewhere = table([4, 5, 6], [10, 20, 30], [1, 1, 0])
    both = np.concatenate([observed_matrix(schema(), site) for site in (here, elsewhere)])
    matrix = Preprocessor.fit(schema(), here).transform(here, Standardiser.of(local_moments(both)))
    assert matrix[:, 1].tolist() == [0, 0, 0]


def test_medians_come_from_the_training_rows() -> None:
    preprocessor = Preprocessor.fit(schema(), table([1, 2, 3], [1, 1, 1], [0, 0, 1]))
    validation = table([NAN, 100], [7, 7], [0, 0])
    assert preprocessor.transform(validation, Standardiser.identity(4))[0, 0] == 2


def test_indicators_say_what_was_missing() -> None:
    train = table([NAN, 2], [3, 4], [NAN, 1])
    matrix = Preprocessor.fit(schema(indicator=True), train).transform(
        train, Standardiser.identity(7)
    )
    assert matrix[:, 4:].tolist() == [[1, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_any_number_of_rows_gives_a_matrix_without_holes(rows: int) -> None:
    train = table([1, NAN, 3], [NAN, NAN, NAN], [NAN, 0, 1])
    some = table([NAN] * rows, [NAN] * rows, [NAN] * rows)
    matrix = Preprocessor.fit(schema(), train).transform(some, Standardiser.identity(4))
    assert matrix.shape == (rows, 4)
    assert np.isfinite(matrix).all()
