"""A first draft of the charter's [data] table from one hospital's file, to be read and corrected.

Room: node. Law: a charter travels to every member, so no number from the patients gets into it:
bounds stay empty. Category names and classes do get in; the draft says so.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from ledger.charter import METRICS_OF_HEAD, Feature, Schema
from ledger.errors import ConfigError
from node.data_checks import canonical
from node.data_config import DataConfig
from node.data_rows import MISSING, Rows, open_rows

CATEGORIES_MAX = 20
NUMERIC_CLASSES_MAX = 10  # more distinct whole numbers are a quantity
_IDENTIFIER = re.compile(
    r"(^|_|\b)(id|key|mrn|uuid)$|identifier|patient_?(id|no|number)", re.IGNORECASE
)


def infer_schema(
    config: DataConfig,
    label: str | None = None,
    head: str | None = None,
    *,
    directory: Path = Path(),
) -> tuple[Schema, str]:
    """Guess types, classes and head; return the schema and its TOML with comments.

    A column of numbers is a number, even a coded one; of words with at most 20 different ones, a
    category. Left out, with a comment: identifiers, free text, columns without values.
    Raises ConfigError when the file or the label cannot be read.
    """
    label = label or config.label
    if label is None:
        raise ConfigError("data.label: name the column to predict")
    with open_rows(replace(config, features="*"), directory) as rows:
        if label not in rows.columns:
            raise ConfigError(f'{rows.source}: label column "{label}" {_missing(rows)}')
        if config.group is not None and config.group not in rows.columns:
            raise ConfigError(f'{rows.source}: group column "{config.group}" {_missing(rows)}')
        head, classes = _label(rows, label, head)
        features: list[Feature] = []
        comments: list[str] = []
        for column in rows.columns:
            if column in (label, config.group):
                continue
            feature, comment = _feature(rows, column)
            if feature is None:
                comments.append(comment)
            else:
                features.append(feature)
    if not features:
        raise ConfigError(f"{config.described}: no column can be a feature; {'; '.join(comments)}")
    schema = Schema(
        label=label,
        head=head,
        classes=classes,
        features=tuple(features),
        standardise="federated",
        missing_indicator=False,
        metric=METRICS_OF_HEAD[head][0],
    )
    return schema, schema_toml(schema, comments)


def schema_toml(schema: Schema, comments: list[str]) -> str:
    """Write the charter's [data] table."""
    lines = [
        "[data]",
        f"label = {_toml(schema.label)}",
        f"head = {_toml(schema.head)}",
    ]
    if schema.classes:
        note = "  # the first is the negative one" if schema.head == "binary" else ""
        lines.append(f"classes = {_toml_list(schema.classes)}{note}")
    lines += [
        f'standardise = {_toml(schema.standardise)}  # "federated": means and spreads of all sites',
        "missing_indicator = false  # true: one more column a feature, that says what was not measured",
        f"metric = {_toml(schema.metric)}",
        "# Category names below were read from one hospital: add what others use, drop what",
        "# nobody should see. Numbers may be given minimum and maximum from the clinic, not from",
        "# the data, to catch wrong units.",
        *(f"# {comment}" for comment in comments),
    ]
    for feature in schema.features:
        lines += ["", "[[data.features]]", f"name = {_toml(feature.name)}"]
        lines.append(f"type = {_toml(feature.type)}")
        if feature.categories:
            lines.append(f"categories = {_toml_list(feature.categories)}")
    return "\n".join(lines) + "\n"


def _missing(rows: Rows) -> str:
    return f"is missing; there are {', '.join(rows.columns[:CATEGORIES_MAX])}"


def _label(rows: Rows, label: str, head: str | None) -> tuple[str, tuple[str, ...]]:
    distinct = _distinct(rows, label)
    numeric = all(map(_is_number, distinct))
    if head is None:
        whole = numeric and all(float(word).is_integer() for word in distinct)
        limit = NUMERIC_CLASSES_MAX if whole else 0 if numeric else CATEGORIES_MAX
        if len(distinct) == 2:
            head = "binary"
        elif len(distinct) <= limit:
            head = "multiclass"
        elif numeric:
            head = "regression"
        else:
            raise ConfigError(
                f'{rows.source}: label column "{label}" has {len(distinct)} different texts; '
                f"at most {CATEGORIES_MAX} can be classes"
            )
    if head not in METRICS_OF_HEAD:
        raise ConfigError(f'head: "{head}" is unknown; use {", ".join(METRICS_OF_HEAD)}')
    if head == "regression":
        if not numeric:
            raise ConfigError(
                f'{rows.source}: label column "{label}" holds words; head = "regression" needs numbers'
            )
        return head, ()
    wanted = "2" if head == "binary" else "3 or more"
    if len(distinct) < 2 or (len(distinct) == 2) != (head == "binary"):
        raise ConfigError(
            f'{rows.source}: label column "{label}" has {len(distinct)} different values; '
            f'head = "{head}" needs {wanted}'
        )
    return head, tuple(sorted(distinct, key=lambda word: (float(word) if numeric else 0.0, word)))


def _feature(rows: Rows, column: str) -> tuple[Feature | None, str]:
    values, bad = rows.numbers(column)
    # true and false count as numbers there; as words they make a better category.
    distinct = _distinct(rows, column) if bad or _has_words(rows, column) else []
    if not bad and np.isnan(values).all() and not distinct:
        return None, f'left out: "{column}" has no values'
    if not bad and not distinct:
        unique = len(np.unique(values[~np.isnan(values)]))
        if _IDENTIFIER.search(column) and unique > rows.count // 2:
            return None, f'left out: "{column}" looks like an identifier'
        return Feature(name=column, type="number", minimum=None, maximum=None, categories=()), ""
    if bad and bad * 10 <= int((~np.isnan(values)).sum()):
        # Some cells spoil a column of numbers: the check will say how many.
        return Feature(name=column, type="number", minimum=None, maximum=None, categories=()), ""
    if len(distinct) > CATEGORIES_MAX:
        return None, f'left out: "{column}" has {len(distinct)} different texts'
    return Feature(
        name=column,
        type="category",
        minimum=None,
        maximum=None,
        categories=tuple(sorted(distinct)),
    ), ""


def _has_words(rows: Rows, column: str) -> bool:
    return any(text.lower() in ("true", "false") for text in set(rows.texts(column)) if text)


def _distinct(rows: Rows, column: str) -> list[str]:
    """Different values by meaning, missing ones aside; whole numbers without a point."""
    words = {text for text in rows.texts(column) if text and text.lower() not in MISSING}
    spelled: dict[str, str] = {}
    for word in sorted(words):
        meaning = canonical(word)
        spelled.setdefault(meaning, word if word.lower() in ("true", "false") else meaning)
    return list(spelled.values())


def _is_number(word: str) -> bool:
    try:
        return bool(np.isfinite(float(word)))
    except ValueError:
        return False


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _toml_list(words: tuple[str, ...]) -> str:
    return "[" + ", ".join(_toml(word) for word in words) + "]"
