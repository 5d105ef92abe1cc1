"""Does the table say what the charter expects? Every finding is one line of counts and names.

Room: node. Law: all findings are collected before anyone is told, errors before warnings; a line
never quotes a cell.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ledger.charter import Feature, Schema
from ledger.errors import ConfigError
from node.data_config import DataConfig
from node.data_rows import MISSING, Rows
from swarm.learning.dataset import SiteData, Table
from swarm.learning.moments import Floats

ROWS_MIN = 10  # fewer cannot be split, let alone learned from
NEAR_MATCHES = 3
LISTED_MAX = 12
MISSING_CODE, UNKNOWN_CODE = -1, -2


@dataclass(frozen=True, slots=True)
class DataProblem:
    """One finding. An error stops the node; with a warning the site can take part."""

    severity: Literal["error", "warning"]
    message: str


@dataclass
class Findings:
    """Collects problems while a table is read."""

    problems: list[DataProblem] = field(default_factory=list)

    def error(self, message: str) -> None:
        """Note what stops the node."""
        self.problems.append(DataProblem("error", message))

    def error_first(self, message: str) -> None:
        """Note what kept the rest from being looked at."""
        self.problems.insert(0, DataProblem("error", message))

    def warning(self, message: str) -> None:
        """Note what the operator should know."""
        self.problems.append(DataProblem("warning", message))

    def mentions(self, start: str) -> bool:
        """Whether an error about this has been noted."""
        return any(p.severity == "error" and p.message.startswith(start) for p in self.problems)

    def sorted(self) -> list[DataProblem]:
        """Errors first, else in the order found."""
        return sorted(self.problems, key=lambda problem: problem.severity)

    def check_split(self, source: str, schema: Schema, data: SiteData) -> None:
        """A model needs two classes to learn from, and AUC two to be measured."""
        train, validation = data.train, data.validation
        if schema.head == "regression" or not isinstance(train, Table):
            return
        present = np.unique(train.labels)
        if len(present) < 2:
            name = schema.classes[int(present[0])] if len(present) else "none"
            self.error(
                f'{source}: column "{schema.label}" has one class only ({name}) in {train.rows} '
                "training rows; learning needs two"
            )
        elif isinstance(validation, Table) and len(np.unique(validation.labels)) < 2:
            self.warning(
                f'{source}: column "{schema.label}" has one class only in {validation.rows} '
                "validation rows; AUC cannot be measured here"
            )


def read_table(
    rows: Rows, config: DataConfig, schema: Schema, findings: Findings
) -> tuple[Table, NDArray[np.object_] | None]:
    """Turn rows into the charter's table and the group of each row.

    Raises ConfigError when columns are missing or there are too few rows, so that nothing else can
    be said; everything else goes to ``findings`` and reads as missing.
    """
    columns = _own_columns(rows, config, schema, findings)
    label_column = config.label or schema.label
    if rows.count < ROWS_MIN:
        findings.error(
            f"{rows.source}: has {rows_text(rows.count)}; at least {ROWS_MIN} are needed"
        )
    failed = [problem.message for problem in findings.sorted() if problem.severity == "error"]
    if failed:
        findings.problems = [p for p in findings.problems if p.message != failed[0]]
        raise ConfigError(failed[0])
    values = {
        feature.name: _feature(rows, columns[feature.name], feature, findings)
        if columns[feature.name] in rows.columns
        else np.full(rows.count, np.nan)
        for feature in schema.features
    }
    for feature in schema.features:
        column = f'{rows.source}: column "{columns[feature.name]}"'
        if findings.mentions(column):
            continue  # it holds values, all of them wrong, and that has been said
        if np.isnan(values[feature.name]).all() or feature.name in config.absent:
            _check_absent(column, feature.name, values[feature.name], config, schema, findings)
    labels = _labels(rows, label_column, schema, findings)
    return Table(columns=values, labels=labels), _groups(rows, config, findings)


def canonical(text: str) -> str:
    """One spelling for what means the same: 0, 0.0 and false; 1, 1.0 and TRUE."""
    lowered = text.lower()
    if lowered in ("true", "false"):
        return "1" if lowered == "true" else "0"
    try:
        number = float(text)
    except ValueError:
        return text
    return text if not np.isfinite(number) or "_" in text else f"{number:.17g}"


def codes(texts: NDArray[np.object_], words: Sequence[str]) -> NDArray[np.int64]:
    """Index of each text among ``words``: as written, else by meaning; else missing or unknown."""
    exact = {word: at for at, word in enumerate(words)}
    meant: dict[str, int] = {}
    ambiguous: set[str] = set()
    for at, word in enumerate(words):
        if meant.setdefault(canonical(word), at) != at:
            ambiguous.add(canonical(word))

    def code(text: str | None) -> int:
        if text is None:
            return MISSING_CODE
        if text in exact:
            return exact[text]
        if text.lower() in MISSING:
            return MISSING_CODE
        meaning = canonical(text)
        return UNKNOWN_CODE if meaning in ambiguous else meant.get(meaning, UNKNOWN_CODE)

    known = {text: code(text) for text in set(texts)}
    return np.array([known[text] for text in texts], dtype=np.int64)


def listed(words: Sequence[str]) -> str:
    """`F, M`, or the first dozen and how many more."""
    shown = ", ".join(words[:LISTED_MAX])
    return shown if len(words) <= LISTED_MAX else f"{shown} and {len(words) - LISTED_MAX} more"


def rows_text(count: int) -> str:
    """`1 row`, `3 rows`."""
    return f"{count} row" if count == 1 else f"{count} rows"


def _own_columns(
    rows: Rows, config: DataConfig, schema: Schema, findings: Findings
) -> dict[str, str]:
    """Charter's feature name → own column name; every column that is missing is an error."""
    label, group = config.label or schema.label, config.group
    _present(rows, label, "label", findings, advice="if it has another name here, set data.label")
    if group is not None:
        _present(rows, group, "group", findings)
    wanted = [feature.name for feature in schema.features]
    if unknown := [name for name in config.absent if name not in wanted]:
        findings.error(f"data.absent: {_columns(unknown)} no feature of the charter")
    if config.features == "*":
        return _columns_by_name(rows, config, wanted, {label, group}, findings)
    own = list(config.features)
    if set(own) == set(wanted) and len(own) == len(wanted):
        own = wanted
    elif len(own) != len(wanted):
        findings.error(
            f"data.features: {len(own)} columns, but the charter has {len(wanted)} features"
        )
        return {}
    columns = dict(zip(wanted, own, strict=True))
    for meant, name in columns.items():
        if meant not in config.absent:
            _present(rows, name, "feature", findings)
        if name != meant and name in wanted:
            findings.error(
                f'data.features: "{name}" stands where the charter has "{meant}"; '
                "keep the charter's order"
            )
        if name in {label, group}:
            findings.error(f'data.features: "{name}" is the label or group, not a feature')
    return columns


def _columns_by_name(
    rows: Rows, config: DataConfig, wanted: list[str], beside: set[str | None], findings: Findings
) -> dict[str, str]:
    """The table's columns are named as in the charter, and there are no others."""
    for name in wanted:
        if name not in config.absent:
            _present(rows, name, "feature", findings, beside)
    extra = [name for name in rows.columns if name not in {*wanted, *beside}]
    if extra:
        unasked = config.group is None
        group = "; if one names the patient, set data.group" if unasked else ""
        findings.error(
            f"{rows.source}: {_columns(extra)} not in the charter; list the features in "
            f"data.features, or select them with data.query{group}"
        )
    return {name: name for name in wanted}


def _present(
    rows: Rows,
    name: str,
    what: str,
    findings: Findings,
    beside: Iterable[str | None] = (),
    *,
    advice: str = "",
) -> None:
    if name in rows.columns and name not in beside:
        return
    near = difflib.get_close_matches(name, rows.columns, n=NEAR_MATCHES, cutoff=0.6)
    near = near or [column for column in rows.columns if column.lower() == name.lower()]
    hint = f"; did you mean {' or '.join(near)}?" if near else advice and f"; {advice}"
    findings.error(f'{rows.source}: {what} column "{name}" is missing{hint}')


def _columns(names: Sequence[str]) -> str:
    quoted = listed([f'"{name}"' for name in names])
    return f"column {quoted} is" if len(names) == 1 else f"columns {quoted} are"


def _feature(rows: Rows, column: str, feature: Feature, findings: Findings) -> Floats:
    where = f'{rows.source}: column "{column}"'
    if feature.type == "category":
        found = codes(rows.texts(column), feature.categories)
        unknown = int((found == UNKNOWN_CODE).sum())
        if unknown:
            findings.error(
                f"{where} has {rows_text(unknown)} with values outside of the charter's "
                f"categories ({listed(feature.categories)})"
            )
        values: Floats = np.where(found < 0, np.nan, found.astype(np.float64))
    else:
        values, bad = rows.numbers(column)
        if bad:
            findings.error(
                f"{where} has {rows_text(bad)} whose value is not a number "
                "(a decimal comma must become a point)"
            )
        _check_bounds(where, feature, values, findings)
    return values


def _check_bounds(where: str, feature: Feature, values: Floats, findings: Findings) -> None:
    for bound, outside, word in (
        (feature.minimum, np.less, "below the charter's minimum"),
        (feature.maximum, np.greater, "above the charter's maximum"),
    ):
        count = 0 if bound is None else int(outside(values, bound).sum())
        if count:
            findings.error(f"{where} has {rows_text(count)} {word} ({bound:g})")


def _check_absent(
    where: str, name: str, values: Floats, config: DataConfig, schema: Schema, findings: Findings
) -> None:
    """A column without values is a mistake, unless the site says that it never measures it."""
    held = int((~np.isnan(values)).sum())
    if held:
        findings.error(f"{where} has {rows_text(held)} with values; take it out of data.absent")
    elif schema.standardise != "federated":
        findings.error(
            f'{where} has no values here; only standardise = "federated" can fill a whole column'
        )
    elif name in config.absent:
        findings.warning(f"{where} has no values here, as said; it takes the federation's mean")
    else:
        findings.error(
            f"{where} has no values here; if this site never measures it, set "
            f'absent = ["{name}"] in [data] of site.toml'
        )


def _labels(
    rows: Rows, column: str, schema: Schema, findings: Findings
) -> NDArray[np.float64] | NDArray[np.int64]:
    where = f'{rows.source}: label column "{column}"'
    if schema.head == "regression":
        targets, bad = rows.numbers(column)
        missing = int(np.isnan(targets).sum()) - bad
        if bad:
            findings.error(f"{where} has {rows_text(bad)} whose value is not a number")
        result: NDArray[np.float64] | NDArray[np.int64] = np.nan_to_num(targets)
    else:
        found = codes(rows.texts(column), schema.classes)
        unknown, missing = int((found == UNKNOWN_CODE).sum()), int((found == MISSING_CODE).sum())
        if unknown:
            findings.error(
                f"{where} has {rows_text(unknown)} with values outside of the charter's "
                f"classes ({listed(schema.classes)})"
            )
        result = np.maximum(found, 0)
    if missing:
        findings.error(f"{where} has {rows_text(missing)} without a label; leave them out")
    return result


def _groups(rows: Rows, config: DataConfig, findings: Findings) -> NDArray[np.object_] | None:
    if config.group is None:
        return None
    groups = rows.texts(config.group)
    missing = sum(group is None or group.lower() in MISSING for group in groups)
    if missing:
        findings.error(
            f'{rows.source}: group column "{config.group}" is empty in {rows_text(missing)}'
        )
    return groups
