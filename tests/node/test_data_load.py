"""A hospital's files become a table, or one line that says what is wrong and quotes no cell."""

import gzip
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from ledger.charter import Schema
from ledger.errors import ConfigError
from node.data import (
    DataConfig,
    DataProblem,
    check_site_data,
    load_all_rows,
    load_site_data,
)
from swarm.learning.dataset import Table
from tests.learning import make_charter

PATIENT = "Jane-Doe-1956"
FEATURES = """
[[data.features]]
name = "age"
type = "number"
minimum = 0
maximum = 120
[[data.features]]
name = "sex"
type = "category"
categories = ["F", "M"]
"""


def schema(**options: Any) -> Schema:
    return make_charter(**{"features": FEATURES, **options}).schema


def write(
    directory: Path, *cells: str, header: str = "age,sex,ill", name: str = "patients.csv"
) -> str:
    """Twenty good rows, then ``cells``."""
    good = [f"{40 + at},{'FM'[at % 2]},{at // 2 % 2}" for at in range(20)]
    if header != "age,sex,ill":
        good = [line + ",x" * (header.count(",") - 2) for line in good]
    (directory / name).write_text("\n".join([header, *good, *cells]) + "\n", encoding="utf-8")
    return name


def problems(directory: Path, want: Schema | None = None, **config: Any) -> list[DataProblem]:
    settings = {"source": "patients.csv", **config}
    return check_site_data(DataConfig(**settings), want or schema(), directory=directory, allow=())


def errors(directory: Path, want: Schema | None = None, **config: Any) -> list[str]:
    found = problems(directory, want, **config)
    assert all(PATIENT not in problem.message for problem in found), "a cell was quoted"
    assert all("\n" not in problem.message for problem in found)
    return [problem.message for problem in found if problem.severity == "error"]


def load(directory: Path, want: Schema | None = None, **config: Any) -> tuple[Table, Table]:
    settings = {"source": "patients.csv", **config}
    data = load_site_data(DataConfig(**settings), want or schema(), directory=directory, allow=())
    assert isinstance(data.train, Table)
    assert isinstance(data.validation, Table)
    return data.train, data.validation


def all_rows(directory: Path, want: Schema | None = None, **config: Any) -> Table:
    settings = {"source": "patients.csv", **config}
    return load_all_rows(DataConfig(**settings), want or schema(), directory=directory)


def test_a_table_is_read_checked_and_split(tmp_path: Path) -> None:
    write(tmp_path)
    train, validation = load(tmp_path)
    assert (train.rows, validation.rows) == (14, 6)
    assert np.bincount(train.labels).tolist() == [7, 7]
    assert list(train.columns) == ["age", "sex"]
    assert np.all(np.diff(train.columns["age"]) > 0), "rows keep the order of the file"


@pytest.mark.parametrize("cell", ["", "?", " ? ", "NA", "n/a", "NaN", "null", ".", '""'])
def test_every_spelling_of_missing_is_missing(tmp_path: Path, cell: str) -> None:
    write(tmp_path, f"{cell},F,1", f"50,{cell},0")
    table = all_rows(tmp_path)
    assert np.isnan(table.columns["age"][20])
    assert np.isnan(table.columns["sex"][21])


@pytest.mark.parametrize(("cell", "value"), [(" .5", 0.5), ("1e1", 10), ("7.0", 7), ("+3", 3)])
def test_numbers_are_read_in_every_usual_spelling(tmp_path: Path, cell: str, value: float) -> None:
    write(tmp_path, f"{cell},F,1")
    assert all_rows(tmp_path).columns["age"][20] == value


@pytest.mark.parametrize(
    ("classes", "negative", "positive"),
    [
        ('["0","1"]', "0.0", "1.0"),
        ('["0","1"]', "false", "TRUE"),
        ('["0.0","1.0"]', "0", "1"),
        ('["false","true"]', "0", "1"),
        ('["healthy","ill"]', "healthy", " ill "),
        ('["01","02"]', "1", "2"),
    ],
)
def test_labels_are_matched_by_meaning(
    tmp_path: Path, classes: str, negative: str, positive: str
) -> None:
    rows = [f"{at},F,{(negative, positive)[at % 2]}" for at in range(12)]
    (tmp_path / "patients.csv").write_text("age,sex,ill\n" + "\n".join(rows))
    assert all_rows(tmp_path, schema(classes=classes)).labels.tolist() == [0, 1] * 6


def test_words_that_mean_the_same_are_told_apart_as_written(tmp_path: Path) -> None:
    rows = [f"{at},F,{('1', '1.0')[at % 2]}" for at in range(12)]
    (tmp_path / "patients.csv").write_text("age,sex,ill\n" + "\n".join(rows))
    assert all_rows(tmp_path, schema(classes='["1","1.0"]')).labels.tolist() == [0, 1] * 6


def test_several_files_globs_and_formats_are_one_table(tmp_path: Path) -> None:
    write(tmp_path, name="a.csv")
    write(tmp_path, name="b.csv")
    (tmp_path / "more").mkdir()
    rows = duckdb.read_csv(str(tmp_path / "a.csv")).project("sex, age, ill")
    rows.write_parquet(str(tmp_path / "more" / "c.parquet"))
    assert all_rows(tmp_path, source="?.csv").rows == 40
    both = all_rows(tmp_path, source=("a.csv", "more/*.parquet"))
    assert both.columns["age"][:20].tolist() == both.columns["age"][20:].tolist()
    assert all_rows(tmp_path, source=str(tmp_path / "a.csv")).rows == 20


def test_packed_files_are_read(tmp_path: Path) -> None:
    write(tmp_path)
    packed = gzip.compress((tmp_path / "patients.csv").read_bytes())
    (tmp_path / "patients.csv.gz").write_bytes(packed)
    assert all_rows(tmp_path, source="patients.csv.gz").rows == 20
    assert all_rows(tmp_path, source=None, query="FROM 'patients.csv.gz'").rows == 20


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_files_from_windows_and_excel_are_read(tmp_path: Path, newline: str) -> None:
    text = newline.join(["age,sex,ill", *(f"{at},F,{at % 2}" for at in range(12))])
    (tmp_path / "patients.csv").write_bytes(text.encode("utf-8-sig"))
    assert all_rows(tmp_path).columns["age"].tolist() == list(range(12))


@pytest.mark.parametrize("header", ["age,age,ill", "age,,ill"])
def test_a_header_that_names_no_column_or_one_twice_is_refused(tmp_path: Path, header: str) -> None:
    write(tmp_path)
    (tmp_path / "patients.csv").write_text(header + "\n1,2,3\n")
    (found,) = errors(tmp_path)
    assert "the header has" in found


def test_other_delimiters_and_quoted_cells_are_read(tmp_path: Path) -> None:
    rows = [f'{at};"F";{at % 2}' for at in range(12)]
    (tmp_path / "patients.csv").write_text("age;sex;ill\n" + "\n".join(rows))
    assert all_rows(tmp_path).rows == 12


@pytest.mark.parametrize(
    "query",
    [
        "SELECT age, sex, CAST(grade > 0 AS INTEGER) AS ill FROM 'visits.csv'",
        "SELECT age, sex, grade > 0 AS ill FROM read_csv('visits.csv');",
        'SELECT * EXCLUDE grade, grade > 0 AS ill FROM "visits.csv"',
        "SELECT TRY_CAST(visits.age AS DOUBLE) AS age, sex, (grade > 0) ill FROM 'visits.csv'",
        "WITH v AS (FROM 'visit*.csv') SELECT age, sex, grade > 0 AS ill FROM v",
    ],
)
def test_a_query_can_compute_the_label(tmp_path: Path, query: str) -> None:
    rows = [f"{at},F,{at % 4}" for at in range(20)]
    (tmp_path / "visits.csv").write_text("age,sex,grade\n" + "\n".join(rows) + "\n?,M,2\n")
    table = all_rows(tmp_path, source=None, query=query)
    assert table.labels[:20].tolist() == [int(at % 4 > 0) for at in range(20)]
    assert np.isnan(table.columns["age"][20])


def test_a_query_reads_the_source_as_data(tmp_path: Path) -> None:
    write(tmp_path, "?,F,1")
    table = all_rows(tmp_path, query="SELECT age + 1 AS age, sex, ill FROM data WHERE sex = 'F'")
    assert table.columns["age"][0] == 41
    assert np.isnan(table.columns["age"][-1])


@pytest.mark.parametrize("query", ["FROM data", "FROM 'patients.csv'"])
def test_a_query_leaves_yes_and_no_as_they_are(tmp_path: Path, query: str) -> None:
    rows = [f"{at},{('yes', 'no')[at % 2]},{('t', 'f')[at % 2]}" for at in range(12)]
    (tmp_path / "patients.csv").write_text("age,sex,ill\n" + "\n".join(rows))
    words = schema(features=FEATURES.replace('"F", "M"', '"no", "yes"'), classes='["f","t"]')
    table = all_rows(tmp_path, words, query=query)
    assert table.columns["sex"].tolist() == [1, 0] * 6
    assert table.labels.tolist() == [1, 0] * 6


def test_a_query_can_compute_with_dates(tmp_path: Path) -> None:
    rows = [f"19{50 + at}-03-01,F,{at % 2}" for at in range(12)]
    (tmp_path / "patients.csv").write_text("born,sex,ill\n" + "\n".join(rows))
    query = "SELECT date_diff('year', born, DATE '2000-03-01') AS age, sex, ill FROM data"
    assert all_rows(tmp_path, query=query).columns["age"][0] == 50


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT * FROM 'nothing.csv'", 'cannot read "nothing.csv"'),
        ("SELECT * FROM '/etc/passwd.csv'", "cannot read"),
        ("SELECT * FROM read_text('/etc/hostname')", "cannot read"),
        ("SELECT * FROM 'https://example.org/a.csv'", "cannot read"),
        ("SELECT nonsense FROM 'patients.csv'", 'column "nonsense" not found'),
        ("SELEC", "syntax error"),
        ("SELECT 1; SELECT 2", "exactly one SELECT"),
        ("COPY (SELECT 1) TO 'leak.csv'", "exactly one SELECT"),
        ("INSTALL httpfs", "exactly one SELECT"),
        ("ATTACH 'x.db'", "exactly one SELECT"),
        ("SELECT * FROM 'patients.csv' WHERE FALSE", "no rows"),
        ("SELECT CAST(sex AS INTEGER) AS age FROM 'patients.csv'", "ConversionException"),
    ],
)
def test_a_query_reads_the_sites_files_and_does_nothing_else(
    tmp_path: Path, query: str, says: str
) -> None:
    write(tmp_path, f"1,{PATIENT},1")
    (found,) = errors(tmp_path, source=None, query=query)
    assert says in found
    assert sorted(path.name for path in tmp_path.iterdir()) == ["patients.csv"]


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (
            ["1,D,1", "2,E,0", f"3,{PATIENT},1"],
            'column "sex" has 3 rows with values outside of the charter\'s categories (F, M)',
        ),
        ([f"{PATIENT},F,1"], 'patients.csv: column "age" has 1 row whose value is not a number'),
        (
            ['"3,5",F,1', "inf,F,1", "1_0,F,1"],
            'column "age" has 3 rows whose value is not a number',
        ),
        (["-1,F,1"], 'column "age" has 1 row below the charter\'s minimum (0)'),
        (["121,F,1", "1e9,F,1"], 'column "age" has 2 rows above the charter\'s maximum (120)'),
        (["1,F,", "1,F,?"], 'label column "ill" has 2 rows without a label'),
        (["1,F,2"], "has 1 row with values outside of the charter's classes (0, 1)"),
    ],
)
def test_a_wrong_cell_is_counted_and_never_quoted(
    tmp_path: Path, cells: list[str], says: str
) -> None:
    write(tmp_path, *cells)
    (found,) = errors(tmp_path)
    assert says in found


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("Age,sex,ill", 'feature column "age" is missing; did you mean Age?'),
        ("agee,sex,ill", "did you mean agee?"),
        (
            "age,sex,outcome",
            'label column "ill" is missing; if it has another name here, set data.label',
        ),
        ("age,sex,ill,visit", 'column "visit" is not in the charter'),
        ("age,sex,ill,visit,note", 'columns "visit", "note" are not in the charter'),
    ],
)
def test_a_column_that_does_not_match_is_named_with_its_near_matches(
    tmp_path: Path, header: str, says: str
) -> None:
    write(tmp_path, header=header)
    assert any(says in message for message in errors(tmp_path))


def test_a_column_whose_every_value_is_wrong_is_not_called_absent_too(tmp_path: Path) -> None:
    rows = "".join(f"old,{sex},{ill}\n" for sex, ill in (("F", 0), ("M", 1)) * 10)
    (tmp_path / "patients.csv").write_text("age,sex,ill\n" + rows)
    (found,) = errors(tmp_path)
    assert "20 rows whose value is not a number" in found


def test_a_file_that_is_not_parquet_or_cut_short_is_called_so(tmp_path: Path) -> None:
    for content in (b"age,sex,ill\n1,F,0\n", b"PAR1 and half of a table", b"PA"):
        (tmp_path / "patients.parquet").write_bytes(content)
        (found,) = errors(tmp_path, source="patients.parquet")
        assert (
            found == "patients.parquet: not a Parquet file, or only a part of one; export it again"
        )


def test_a_file_that_is_not_there_is_said_with_the_folder_it_was_looked_for_in(
    tmp_path: Path,
) -> None:
    (found,) = errors(tmp_path, source="none.csv")
    assert found == f"data.source: no file none.csv in {tmp_path.resolve()}"
    (found,) = errors(tmp_path, source=str(tmp_path / "none.csv"))
    assert found == f"data.source: no file {tmp_path / 'none.csv'}"


def test_a_patients_number_is_said_to_belong_in_group(tmp_path: Path) -> None:
    write(tmp_path, header="age,sex,ill,patient_id")
    (found,) = errors(tmp_path)
    assert "set data.group" in found
    write(tmp_path, header="age,sex,ill,patient_id,note")
    (found,) = errors(tmp_path, group="patient_id")
    assert 'column "note" is not in the charter' in found
    assert "data.group" not in found


def test_every_finding_is_told_and_the_first_stops_the_node(tmp_path: Path) -> None:
    write(tmp_path, "-1,X,5")
    found = errors(tmp_path)
    assert len(found) == 3
    with pytest.raises(ConfigError, match=r"\(and 2 more: run swarm-node doctor\)"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "patients.csv: the file is empty"),
        (b"age,sex,ill\n", "patients.csv: no rows"),
        (b"age,sex,ill\n1,F,0\n2,M,1\n", "has 2 rows; at least 10 are needed"),
        (b"age,sex,ill\n1,F,0\n", "has 1 row; at least 10 are needed"),
        ("age,sex,ill\n1,Zürich,0\n".encode("latin-1") * 30, "not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "patients.csv").write_bytes(content)
    (found,) = errors(tmp_path)
    assert says in found


@pytest.mark.parametrize(
    "torn", [f'1,F,"{PATIENT}', f"1,{PATIENT}", f"1,F,1,{PATIENT}", f'1,"{PATIENT},1']
)
def test_a_torn_line_is_named_by_number_and_not_quoted(tmp_path: Path, torn: str) -> None:
    write(tmp_path, torn, "2,M,1")
    (found,) = errors(tmp_path)
    assert "line 22 of patients.csv" in found
    (found,) = errors(tmp_path, query="SELECT * FROM data")
    assert "line 22 of patients.csv" in found


@pytest.mark.parametrize("line", ["#9,F,1", "'9,F,1"])
def test_a_line_that_looks_like_a_comment_is_still_a_patient(tmp_path: Path, line: str) -> None:
    write(tmp_path, line)
    (found,) = errors(tmp_path)
    assert "1 row whose value is not a number" in found


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nothing.csv", "no file nothing.csv"),
        ("*.parquet", "no file"),
        ("letters", "is not a file"),
        ("patients.xlsx", "patients.xlsx is none of"),
    ],
)
def test_a_missing_or_foreign_file_is_one_line(tmp_path: Path, source: str, says: str) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "patients.xlsx").write_bytes(b"PK")
    (found,) = errors(tmp_path, source=source)
    assert says in found


def test_one_class_only_cannot_be_learned_and_says_so(tmp_path: Path) -> None:
    rows = "\n".join(f"{at},F,1" for at in range(20))
    (tmp_path / "patients.csv").write_text(f"age,sex,ill\n{rows}\n")
    (found,) = errors(tmp_path)
    assert 'column "ill" has one class only (1) in 14 training rows' in found


def test_a_validation_split_with_one_class_is_a_warning(tmp_path: Path) -> None:
    rows = "\n".join(f"{at},F,{int(at == 3)}" for at in range(20))
    (tmp_path / "patients.csv").write_text(f"age,sex,ill\n{rows}\n")
    (found,) = problems(tmp_path)
    assert found.severity == "warning"
    assert "AUC cannot be measured" in found.message


@pytest.mark.parametrize("columns", ["age, sex, ill", "sex, ill"])
@pytest.mark.parametrize(
    ("standardise", "severity"), [("federated", "warning"), ("local", "error"), ("none", "error")]
)
def test_a_site_that_says_what_it_never_measures_takes_part_where_the_federation_can_fill_it(
    tmp_path: Path, standardise: str, severity: str, columns: str
) -> None:
    rows = "\n".join(f"?,{'FM'[at % 2]},{at // 2 % 2}" for at in range(20))
    (tmp_path / "patients.csv").write_text(f"age,sex,ill\n{rows}\n")
    (found,) = problems(
        tmp_path,
        schema(data=f'standardise = "{standardise}"'),
        query=f"SELECT {columns} FROM data",
        absent=("age",),
    )
    assert found.severity == severity
    assert 'column "age" has no values here' in found.message


def test_an_empty_column_that_nobody_announced_is_an_error_that_says_how_to_announce_it(
    tmp_path: Path,
) -> None:
    rows = "\n".join(f"?,{'FM'[at % 2]},{at // 2 % 2}" for at in range(20))
    (tmp_path / "patients.csv").write_text(f"age,sex,ill\n{rows}\n")
    (found,) = problems(tmp_path, schema(data='standardise = "federated"'))
    assert found.severity == "error"
    assert 'absent = ["age"]' in found.message


def test_an_absent_column_with_values_is_a_contradiction(tmp_path: Path) -> None:
    write(tmp_path)
    found = problems(tmp_path, absent=("age",))
    assert [one.severity for one in found] == ["error"]
    assert "take it out of data.absent" in found[0].message


def test_own_column_names_stand_for_the_charters_in_its_order(tmp_path: Path) -> None:
    write(tmp_path, header="alter,geschlecht,krank,visit")
    table = all_rows(tmp_path, features=("alter", "geschlecht"), label="krank")
    assert table.columns["age"][0] == 40
    assert table.columns["sex"][:2].tolist() == [0, 1]


def test_the_charters_names_in_another_order_are_still_meant_by_name(tmp_path: Path) -> None:
    write(tmp_path)
    assert all_rows(tmp_path, features=("sex", "age")).columns["age"][0] == 40


@pytest.mark.parametrize(
    ("features", "says"),
    [
        (("age",), "1 columns, but the charter has 2 features"),
        (("sex", "alter"), '"sex" stands where the charter has "age"'),
        (("age", "ill"), '"ill" is the label or group'),
    ],
)
def test_features_that_do_not_match_the_charter_are_refused(
    tmp_path: Path, features: tuple[str, ...], says: str
) -> None:
    write(tmp_path)
    assert any(says in message for message in errors(tmp_path, features=features))


def test_patients_with_several_rows_stay_together(tmp_path: Path) -> None:
    rows = [f"{at // 4},{'FM'[at % 2]},{at // 4 % 2},p{at // 4}" for at in range(80)]
    (tmp_path / "patients.csv").write_text("age,sex,ill,patient\n" + "\n".join(rows))
    train, validation = load(tmp_path, group="patient")
    assert train.rows + validation.rows == 80
    assert not set(train.columns["age"]) & set(validation.columns["age"])


def test_a_row_without_a_patient_is_an_error_where_patients_are_grouped(tmp_path: Path) -> None:
    write(tmp_path, "1,F,1,", "2,M,0,?", header="age,sex,ill,patient")
    assert any("empty in 2 rows" in message for message in errors(tmp_path, group="patient"))


def test_a_regression_target_must_be_a_number(tmp_path: Path) -> None:
    write(tmp_path, "1,F,high", "1,F,?")
    want = schema(head="regression")
    assert [message.partition("has ")[2] for message in errors(tmp_path, want)] == [
        "1 row whose value is not a number",
        "1 row without a label; leave them out",
    ]
    write(tmp_path)
    assert load(tmp_path, want)[0].labels.dtype == np.float64


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"source": ()},
        {"source": ""},
        {"source": "a.csv", "validation": 1.0},
        {"source": "a.csv", "missing": "mean"},
        {"source": ("python:a:b", "c.csv")},
        {"source": "python:a:b", "query": "SELECT 1"},
    ],
)
def test_a_configuration_that_cannot_work_is_refused_at_birth(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^data\."):
        DataConfig(**settings)


OWN = """
import torch

class Pictures:
    def __init__(self, rows):
        self.rows = rows
    def __len__(self):
        return self.rows
    def __getitem__(self, index):
        return torch.zeros(1, 2, 2), index % 2

def make_dataset(directory):
    assert (directory / "own_scans.py").exists()
    return Pictures(20), Pictures(10)

def small():
    return Pictures(3), Pictures(3)

def one():
    return Pictures(20)

def lists():
    return iter([1]), iter([2])

def fails():
    raise OSError("Jane-Doe-1956 is missing")
"""


@pytest.fixture
def own_scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_scans.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_scans", raising=False)
    return tmp_path


def test_a_hospitals_own_data_sets_are_taken_as_they_are(own_scans: Path) -> None:
    config = DataConfig(source="python:own_scans:make_dataset")
    want = schema(features="")
    data = load_site_data(config, want, directory=own_scans, allow=("own_scans",))
    assert not isinstance(data.train, Table)
    assert (len(data.train), len(data.validation)) == (20, 10)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="not allowed"):
        load_site_data(config, want, directory=own_scans, allow=())


@pytest.mark.parametrize(
    ("function", "features", "says"),
    [
        ("make_dataset", FEATURES, "lists 2 features"),
        ("small", "", "3 training examples are too few"),
        ("one", "", "must return (train, validation)"),
        ("lists", "", "need a torch Dataset"),
        ("fails", "", "failed with OSError"),
        ("missing", "", 'has no "missing"'),
    ],
)
def test_own_data_that_cannot_be_used_are_one_line(
    own_scans: Path, function: str, features: str, says: str
) -> None:
    config = DataConfig(source=f"python:own_scans:{function}")
    (found,) = check_site_data(
        config, schema(features=features), directory=own_scans, allow=("own_scans",)
    )
    assert says in found.message
    assert PATIENT not in found.message
