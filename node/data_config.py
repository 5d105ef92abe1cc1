"""The [data] table of site.toml. Room: node. Law: frozen and checked at birth."""

from dataclasses import dataclass
from pathlib import PurePath

from ledger.errors import ConfigError
from swarm.learning.own_code import PYTHON

NAMES_SHOWN_MAX = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Where a site's rows come from and how they are split.

    With `query` and `source`, the query reads the source as the table `data`; with `query` alone
    it names its files itself.
    """

    source: str | tuple[str, ...] | None = None
    """CSV or Parquet files, globs among them, or `python:package.module:function`."""
    query: str | None = None
    """One SELECT of DuckDB's SQL, when columns must be renamed, joined or computed."""
    label: str | None = None
    """The label's column, where it is not named as in the charter."""
    features: str | tuple[str, ...] = "*"
    """Own column names; `*` = every column but label and group."""
    validation: float = 0.3
    """Raise it for steadier metrics, lower it to learn from more patients."""
    split_seed: int = 0
    """Another seed is another split; change it only before the first round."""
    group: str | None = None
    """Column that names the patient, where one patient has several rows."""
    missing: str = "median"
    """How a missing number is filled in: the site's own median."""
    absent: tuple[str, ...] = ()
    """Features that this site never measures; needs standardise = "federated"."""

    def __post_init__(self) -> None:
        if self.source is None and self.query is None:
            raise ConfigError("data.source: name the site's files, or give data.query")
        if self.source is not None and (not self.sources or not all(self.sources)):
            raise ConfigError("data.source: need at least one file name")
        if any(source.startswith(PYTHON) for source in self.sources):
            if len(self.sources) > 1:
                raise ConfigError("data.source: a python: source must stand alone")
            if self.query is not None:
                raise ConfigError("data.query: a python: source cannot be queried")
        if isinstance(self.features, str) and self.features != "*":
            object.__setattr__(self, "features", (self.features,))
        if not 0 < self.validation < 1:
            raise ConfigError("data.validation: need a share between 0 and 1, like 0.3")
        if self.missing != "median":
            raise ConfigError(f'data.missing: "{self.missing}" is unknown; use "median"')

    @property
    def sources(self) -> tuple[str, ...]:
        """The files or globs as written; empty for a query that names its own."""
        if self.source is None:
            return ()
        return (self.source,) if isinstance(self.source, str) else tuple(self.source)

    @property
    def own_code(self) -> str | None:
        """The `python:` reference, if that is where the examples come from."""
        first = next(iter(self.sources), "")
        return first if first.startswith(PYTHON) else None

    @property
    def described(self) -> str:
        """What messages call the data: `patients.csv`, `a.csv and 2 more`, `data.query`."""
        if not self.sources:
            return "data.query"
        if self.own_code is not None:
            return self.own_code
        names = [PurePath(source).name for source in self.sources]
        if len(names) <= NAMES_SHOWN_MAX:
            return " and ".join(names)
        return f"{names[0]} and {len(names) - 1} more"
