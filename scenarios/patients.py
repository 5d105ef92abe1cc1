"""Where each hospital's patients come from: settings for its site.toml, and tables for the simulator.

Room: scenarios. Law: both engines read the same files through node/data.py with the same settings, so
that a hospital has the same rows, and the same of them for validation, whichever engine runs it.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from ledger.charter import Schema
from ledger.errors import ConfigError
from node.data import infer_schema, load_all_rows
from node.data_config import DataConfig
from node.data_split import split_rows, strata
from node.knobs import Value
from scenarios.spec import BREAST_CANCER, CLINICS, FOLDER, Hospital, ScenarioSpec
from swarm.learning.dataset import SiteData, Table

PATIENTS_FILE: Final = "patients.csv"
DATA_PREFIX: Final = "data."


@dataclass(frozen=True, kw_only=True, eq=False)
class Patients:
    """Every hospital's rows, not split yet, in roster order, and those nobody trains on."""

    tables: tuple[Table, ...]
    external: Table | None


def find_sources(spec: ScenarioSpec, data: Path | None) -> tuple[tuple[Path, ...], ...]:
    """Find each hospital's files; empty where the scenario brings its own patients.

    Raises ConfigError that says which file is missing where.
    """
    if spec.data != FOLDER:
        if data is not None:
            raise ConfigError(f"--data: {spec.name} brings its own patients; leave it out")
        return ((),) * len(spec.hospitals)
    named = [hospital.file for hospital in spec.hospitals if hospital.file]
    files = ", ".join([*named, *([spec.external] if spec.external else [])]) or spec.pattern
    if data is None:
        raise ConfigError(f"--data: {spec.name} needs a folder with {files}")
    if not data.is_dir():
        raise ConfigError(f"--data {data}: there is no such folder; it should hold {files}")
    wanted = [*named, *([spec.external] if spec.external else [])]
    missing = [file for file in wanted if not (data / file).is_file()]
    if missing:
        raise ConfigError(f"--data {data}: {', '.join(missing)} not found there; need {files}")
    together = tuple(path.resolve() for path in _matching(data, spec.pattern))
    return tuple(
        ((data / hospital.file).resolve(),) if hospital.file else together
        for hospital in spec.hospitals
    )


def _matching(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern)) if pattern else []


def data_settings(
    spec: ScenarioSpec, hospital: Hospital, sources: tuple[Path, ...]
) -> dict[str, Value]:
    """Return the [data] settings of a hospital's site.toml, by dotted key."""
    query = " ".join(spec.query.split())  # one line, as site.toml wants it
    if hospital.rows is not None:
        first, count = hospital.rows
        query = f"{query or 'SELECT * FROM data'} LIMIT {count} OFFSET {first}"  # noqa: S608 - numbers
    names = tuple(map(str, sources)) or (PATIENTS_FILE,)
    return {
        "data.source": names[0] if len(names) == 1 else names,
        "data.split_seed": spec.seed,
        **({"data.query": query} if query else {}),
        **({"data.absent": hospital.absent} if hospital.absent else {}),
        **{key: value for key, value in spec.site.items() if key.startswith(DATA_PREFIX)},
    }


def write_own_patients(spec: ScenarioSpec, directories: list[Path]) -> None:
    """Write `patients.csv` for each hospital of a scenario that brings its patients."""
    from scenarios.hospitals import split_breast_cancer, split_digits, write_csv
    from scenarios.riders.clinics import split_clinics

    if spec.data == CLINICS:
        sites = split_clinics(spec.seed, len(directories))
    else:
        sites = (split_breast_cancer if spec.data == BREAST_CANCER else split_digits)(spec.seed)
    for directory, (_, columns, rows) in zip(
        directories, sites, strict=False
    ):  # perhaps only the first
        write_csv(directory / PATIENTS_FILE, columns, rows)


def data_table(spec: ScenarioSpec, sources: tuple[tuple[Path, ...], ...]) -> dict[str, Any]:
    """Return the charter's [data] table where the columns are not agreed: the first site's draft."""
    if "data.features" in spec.charter:
        return {"label": spec.label}
    from node.charter_edit import schema_table

    with _folders(spec) as folders:
        settings = data_settings(spec, spec.hospitals[0], sources[0])
        source = settings["data.source"]
        if not isinstance(source, str):
            raise ConfigError(f"{spec.name}: charter.data.features: needed where files are shared")
        schema, _ = infer_schema(
            DataConfig(source=source), spec.label, None, directory=folders.paths[0]
        )
    return schema_table(schema)


def read_patients(
    spec: ScenarioSpec, schema: Schema, sources: tuple[tuple[Path, ...], ...], data: Path | None
) -> Patients:
    """Read every table once. Raises ConfigError as a node would."""
    tables = []
    with _folders(spec) as folders:
        for hospital, files, folder in zip(spec.hospitals, sources, folders.paths, strict=True):
            config = data_config(spec, hospital, files)
            tables.append(load_all_rows(config, schema, directory=folder))
    return Patients(tables=tuple(tables), external=read_external(spec, schema, data))


def read_external(spec: ScenarioSpec, schema: Schema, data: Path | None) -> Table | None:
    """Read the patients nobody trains on; None where the scenario has none."""
    if not spec.external or data is None:
        return None
    query = " ".join(spec.query.split()) or None
    config = DataConfig(source=str((data / spec.external).resolve()), query=query)
    return load_all_rows(config, schema, directory=data)


def data_config(spec: ScenarioSpec, hospital: Hospital, sources: tuple[Path, ...]) -> DataConfig:
    """Return what a site.toml with these settings says."""
    settings = data_settings(spec, hospital, sources)
    values: dict[str, Any] = {key.removeprefix(DATA_PREFIX): settings[key] for key in settings}
    return DataConfig(**values)


def split_table(table: Table, config: DataConfig, schema: Schema) -> SiteData:
    """Split one hospital's rows as its node would."""
    chosen = split_rows(
        strata(table.labels, schema.head), None, fraction=config.validation, seed=config.split_seed
    )
    return SiteData(train=table.take(~chosen), validation=table.take(chosen))


class _folders:  # noqa: N801 - a context manager that reads as a function
    """A folder for each hospital, with its patients where the scenario brings them."""

    def __init__(self, spec: ScenarioSpec) -> None:
        self._spec = spec
        self._root = tempfile.TemporaryDirectory(prefix="swarm-patients-")
        root = Path(self._root.name)
        self.paths = [root / hospital.folder for hospital in spec.hospitals]

    def __enter__(self) -> Self:
        for path in self.paths:
            path.mkdir()
        if self._spec.data != FOLDER:
            write_own_patients(self._spec, self.paths)
        return self

    def __exit__(self, *_: object) -> None:
        self._root.cleanup()
