from pathlib import Path

import pytest

from ledger.charter import load_charter
from ledger.errors import ConfigError
from node.data import DataConfig, check_site_data, infer_schema

HEADER = "patient_id,age,ward,smoker,note,ct,days,ill"


def write(path: Path, rows: int = 40) -> None:
    lines = [
        f"{9000 + at},{50 + at / 2},{'ABC'[at % 3]},{('true', 'FALSE')[at % 2]},free text {at},?,"
        f"{at * 1.5},{('no', 'yes')[at // 2 % 2]}"
        for at in range(rows)
    ]
    path.write_text("\n".join([HEADER, *lines]) + "\n")


def test_a_draft_can_be_pasted_into_a_charter_and_fits_the_file(tmp_path: Path) -> None:
    write(tmp_path / "a.csv")
    schema, toml = infer_schema(DataConfig(source="a.csv"), "ill", directory=tmp_path)
    text = (
        f'version = 1\nfederation = "f"\n[model]\nname = "logistic"\n[rounds]\nrounds = 1\n{toml}'
    )
    assert load_charter(text.encode(), complete=False).schema == schema
    names = tuple(feature.name for feature in schema.features)
    assert names == ("age", "ward", "smoker", "days")
    config = DataConfig(source="a.csv", features=names)
    assert check_site_data(config, schema, directory=tmp_path, allow=()) == []


def test_identifiers_free_text_and_empty_columns_are_left_out_with_a_comment(
    tmp_path: Path,
) -> None:
    write(tmp_path / "a.csv")
    _, toml = infer_schema(DataConfig(source="a.csv"), "ill", directory=tmp_path)
    assert '# left out: "patient_id" looks like an identifier' in toml
    assert '# left out: "note" has 40 different texts' in toml
    assert '# left out: "ct" has no values' in toml


def test_no_number_from_the_patients_gets_into_the_draft(tmp_path: Path) -> None:
    write(tmp_path / "a.csv")
    schema, toml = infer_schema(DataConfig(source="a.csv"), "ill", directory=tmp_path)
    assert all(f.minimum is None and f.maximum is None for f in schema.features)
    assert "9000" not in toml
    assert "69.5" not in toml


@pytest.mark.parametrize(
    ("label", "head", "classes"),
    [
        ("ill", "binary", ("no", "yes")),
        ("smoker", "binary", ("FALSE", "true")),
        ("ward", "multiclass", ("A", "B", "C")),
        ("days", "regression", ()),
        ("age", "regression", ()),
    ],
)
def test_the_head_follows_from_the_label(
    tmp_path: Path, label: str, head: str, classes: tuple[str, ...]
) -> None:
    write(tmp_path / "a.csv")
    schema, _ = infer_schema(DataConfig(source="a.csv"), label, directory=tmp_path)
    assert (schema.head, schema.classes) == (head, classes)


def test_classes_of_numbers_are_in_order_of_size(tmp_path: Path) -> None:
    rows = "\n".join(f"{at},{at % 5 * 5}" for at in range(40))
    (tmp_path / "a.csv").write_text(f"x,stage\n{rows}\n")
    schema, _ = infer_schema(DataConfig(source="a.csv"), "stage", directory=tmp_path)
    assert schema.classes == ("0", "5", "10", "15", "20")
    asked, _ = infer_schema(DataConfig(source="a.csv"), "stage", "regression", directory=tmp_path)
    assert asked.head == "regression"


@pytest.mark.parametrize(
    ("label", "head", "says"),
    [
        ("illness", None, 'label column "illness" is missing'),
        ("note", None, "40 different texts"),
        ("ward", "binary", "needs 2"),
        ("ill", "multiclass", "needs 3 or more"),
        ("ct", None, "0 different"),
        ("ill", "binry", 'head: "binry" is unknown; use binary, multiclass, regression'),
        ("ward", "regression", 'holds words; head = "regression" needs numbers'),
        (None, None, "name the column to predict"),
    ],
)
def test_a_label_that_cannot_be_learned_is_one_line(
    tmp_path: Path, label: str | None, head: str | None, says: str
) -> None:
    write(tmp_path / "a.csv")
    with pytest.raises(ConfigError, match=says):
        infer_schema(DataConfig(source="a.csv"), label, head, directory=tmp_path)


def test_a_group_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    write(tmp_path / "a.csv")
    with pytest.raises(ConfigError, match='group column "nobody" is missing; there are '):
        infer_schema(DataConfig(source="a.csv", group="nobody"), "ill", directory=tmp_path)
