"""One hospital's patients, from its files to what it learns from and is measured on.

Room: node. Law: what leaves this module about the data is counts and column names; no message, log
or error holds a cell's content, except the words that the charter itself lists.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ledger.charter import Schema
from ledger.errors import ConfigError
from node.data_checks import DataProblem, Findings, read_table
from node.data_config import DataConfig
from node.data_infer import infer_schema
from node.data_own import read_own_sets
from node.data_rows import open_rows
from node.data_split import split_rows, strata
from swarm.learning.dataset import SiteData, Table

__all__ = [
    "DataConfig", "DataProblem", "SiteData", "check_site_data", "infer_schema",
    "inspect_site_data", "load_all_rows", "load_site_data",
]  # fmt: skip


def load_site_data(
    config: DataConfig, schema: Schema, *, directory: Path, allow: Sequence[str]
) -> SiteData:
    """Read, check and split a site's data.

    directory: relative paths start here. allow: packages from which `python:` sources may load.
    Raises ConfigError in one line: the first error, and how many more there are.
    """
    data, problems = inspect_site_data(config, schema, directory=directory, allow=allow)
    errors = [problem.message for problem in problems if problem.severity == "error"]
    if errors or data is None:
        more = f" (and {len(errors) - 1} more: run swarm-node doctor)" if len(errors) > 1 else ""
        raise ConfigError(errors[0] + more)
    return data


def check_site_data(
    config: DataConfig, schema: Schema, *, directory: Path, allow: Sequence[str]
) -> list[DataProblem]:
    """Everything that is wrong or doubtful about a site's data, errors first."""
    return inspect_site_data(config, schema, directory=directory, allow=allow)[1]


def inspect_site_data(
    config: DataConfig, schema: Schema, *, directory: Path, allow: Sequence[str]
) -> tuple[SiteData | None, list[DataProblem]]:
    """Read once for both: the data (None when there are errors) and every finding."""
    findings = Findings()
    data: SiteData | None = None
    try:
        if config.own_code is not None:
            data = read_own_sets(config, schema, directory=directory, allow=allow)
        else:
            data = _read_and_split(config, schema, directory, findings)
    except ConfigError as error:
        findings.error_first(str(error))
    problems = findings.sorted()
    failed = any(problem.severity == "error" for problem in problems)
    return (None if failed else data), problems


def load_all_rows(config: DataConfig, schema: Schema, *, directory: Path) -> Table:
    """Read rows that nobody splits, such as an external test set; ConfigError as above."""
    findings = Findings()
    with open_rows(config, directory) as rows:
        if config.group not in rows.columns:  # nobody splits them, so nobody asks whose they are
            config = replace(config, group=None)
        table, _ = read_table(rows, config, schema, findings)
    errors = [problem.message for problem in findings.sorted() if problem.severity == "error"]
    if errors:
        raise ConfigError(errors[0])
    return table


def _read_and_split(
    config: DataConfig, schema: Schema, directory: Path, findings: Findings
) -> SiteData:
    with open_rows(config, directory) as rows:
        table, groups = read_table(rows, config, schema, findings)
        source = rows.source
    validation = split_rows(
        strata(table.labels, schema.head),
        groups,
        fraction=config.validation,
        seed=config.split_seed,
    )
    data = SiteData(train=table.take(~validation), validation=table.take(validation))
    findings.check_split(source, schema, data)
    return data
