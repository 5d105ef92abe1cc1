"""What a scenario is: one TOML file of the catalogue, read strictly.

Room: scenarios. Law: an unknown key, a wrong type or a missing value is a ConfigError that names
the key; nothing is guessed.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final, Self

from ledger.errors import ConfigError
from node.knobs import Value
from scenarios.spec_table import Setting, Table

BREAST_CANCER: Final = "breast-cancer"
DIGITS: Final = "digits"
FOLDER: Final = "folder"
CLINICS: Final = "clinics"
DATA_KINDS: Final = (BREAST_CANCER, DIGITS, CLINICS, FOLDER)
PROCESSES: Final = "processes"
SIMULATED: Final = "simulated"
ENGINES: Final = (PROCESSES, SIMULATED)
ATTACKS: Final = "attacks"
STUDIES: Final = ("", ATTACKS)
NOT_LIKE: Final = ("title", "about", "targets", "variants", "study")
SEEDS_MAX: Final = 100
MAIN_VARIANT: Final = "main"


@dataclass(frozen=True, kw_only=True)
class Hospital:
    """One site. folder: its directory in the run. file: its table in the folder of --data.

    absent: features that it never measures. rows: (first, count) of the rows that the pattern's
    files have together, where the scenario deals them anew.
    """

    folder: str
    name: str
    file: str = ""
    absent: tuple[str, ...] = ()
    rows: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The same scenario with other charter settings, side by side with it.

    patience: rounds without a better validation loss after which the model of the best round is
    released; 0 releases the last. targets: its own, where they differ.
    """

    name: str
    charter: Mapping[str, Setting]
    rounds: int | None = None
    model: str = ""
    patience: int | None = None
    targets: "Targets | None" = None


@dataclass(frozen=True, kw_only=True)
class Pace:
    """train_s: virtual seconds of one training. other_s: of any other work. The last members are slow.

    slow_share: how many of all. slow_factor: how much longer everything takes there.
    """

    train_s: float
    other_s: float
    slow_share: float = 0.0
    slow_factor: float = 1.0

    def factor(self, index: int, members: int) -> float:
        """How much longer this member takes."""
        slow = round(self.slow_share * members)
        return self.slow_factor if index >= members - slow else 1.0


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What a run must reach to pass.

    auc_over_alone_min: overall swarm AUC minus alone; raise it where learning together must pay.
    auc_under_pooled_max: how far below pooled the swarm may end; lower it for convex models.
    wall_s_max: the nodes are stopped and the run fails after this; raise it on slow machines.
    The others are about patients of hospitals that did not take part, or about means over seeds:
    external_*: as above, on the external test set. rounds_to_99_max: rounds until 99 % of the pooled
    AUC there; with _worst: of the slowest hospital. auc_min, accuracy_min: of all hospitals' validation
    patients together. Of variants, beside the scenario itself: external_under_main_max: how far below its
    external AUC; sooner_than_main_min: how many times less time to 99 %; calibration_of_main_max:
    calibration_gap as a part of its; auc_off_main_max: how far from its AUC over hospitals either way.
    bytes_fewer_min: how many times fewer bytes than as bare float32.
    """

    auc_over_alone_min: float = 0.0
    auc_under_pooled_max: float = 0.01
    wall_s_max: float = 300.0
    external_over_alone_min: float | None = None
    external_under_pooled_max: float | None = None
    rounds_to_99_max: float | None = None
    rounds_to_99_worst_max: float | None = None
    external_under_main_max: float | None = None
    sooner_than_main_min: float | None = None
    calibration_of_main_max: float | None = None
    auc_off_main_max: float | None = None
    bytes_fewer_min: float | None = None
    auc_min: float | None = None
    accuracy_min: float | None = None

    def __post_init__(self) -> None:
        if self.wall_s_max <= 0:
            raise ConfigError("targets.wall_s_max: need more than 0 seconds")


@dataclass(frozen=True, kw_only=True)
class ScenarioSpec:
    """One scenario of the catalogue.

    data: where patients come from: "breast-cancer" or "digits" (scikit-learn's, split here), "clinics"
    (the free-riders', riders/clinics.py) or "folder" (--data). pattern: each file of the folder that
    matches is a hospital, in order of name; with `deal`, they are one table whose rows go to so many
    hospitals, of these sizes; with `first`, so many of them take part.
    external: a file of the folder that nobody trains on.
    pace: how long computing takes in virtual time; None: everything alike.
    engine: "processes" (real nodes) or "simulated" (one process, virtual time, the same service).
    seeds: how many runs, with seed, seed + 1, …; one where nodes are real processes.
    label: the column to learn. query: DuckDB SQL over the site's file as the table `data`; empty
    reads the file as it is.
    charter: settings beyond the defaults, each passed as `swarm-node charter new --set key=value`;
    with `data.features` the federation has agreed on its columns, without it the first hospital's
    table is the draft.
    site: settings of every site.toml.
    """

    name: str
    title: str
    about: str
    seed: int
    rounds: int
    federation: str
    data: str
    label: str
    query: str
    model: str
    charter: Mapping[str, Setting]
    site: Mapping[str, Value]
    hospitals: tuple[Hospital, ...]
    targets: Targets
    engine: str = PROCESSES
    seeds: int = 1
    pattern: str = ""
    external: str = ""
    patience: int = 0
    first_hospitals: int = 0
    pace: Pace | None = None
    variants: tuple[Variant, ...] = ()
    study: str = ""
    """What is asked of it beside learning: "", or "attacks" (poisoning/)."""

    def __post_init__(self) -> None:
        for key, value, known in (
            ("data", self.data, DATA_KINDS),
            ("engine", self.engine, ENGINES),
            ("study", self.study, STUDIES),
        ):
            if value not in known:
                raise ConfigError(f"{self.name}: {key}: use {' or '.join(known)}, not {value!r}")
        if self.rounds < 1:
            raise ConfigError(f"{self.name}: rounds: need at least 1")
        if not 1 <= self.seeds <= SEEDS_MAX:
            raise ConfigError(f"{self.name}: seeds: need 1 to {SEEDS_MAX}")
        if self.patience < 0:
            raise ConfigError(f"{self.name}: patience: need 0 or more rounds")
        if (self.pattern or self.external) and self.data != FOLDER:
            raise ConfigError(f'{self.name}: pattern and external need data = "folder"')
        self._check_hospitals()

    def _check_hospitals(self) -> None:
        names = [MAIN_VARIANT, *(variant.name for variant in self.variants)]
        if len(set(names)) < len(names):
            raise ConfigError(f'{self.name}: variants: two have the same name, or one is "main"')
        if len(self.hospitals) < 2 and not (self.pattern and not self.hospitals):
            raise ConfigError(f"{self.name}: hospitals: need at least 2")
        for field in ("folder", "name"):
            values = [getattr(hospital, field) for hospital in self.hospitals]
            if len(set(values)) < len(values):
                raise ConfigError(f"{self.name}: hospitals: two have the same {field}")
        for hospital in self.hospitals:
            if not hospital.folder.replace("-", "").isalnum():
                raise ConfigError(
                    f"{self.name}: hospitals: folder {hospital.folder!r} needs letters, digits and -"
                )
            if (self.data == FOLDER) != bool(hospital.file or hospital.rows):
                raise ConfigError(
                    f'{self.name}: hospitals: {hospital.name} needs `file` exactly if data = "folder"'
                )

    def override(
        self, *, seed: int | None = None, rounds: int | None = None, engine: str | None = None
    ) -> Self:
        """The same scenario with another seed, number of rounds or engine, where one is given."""
        return replace(
            self,
            seed=self.seed if seed is None else seed,
            rounds=self.rounds if rounds is None else rounds,
            engine=self.engine if engine is None else engine,
        )

    def varied(self, variant: Variant) -> Self:
        """The scenario that a variant describes; it has no variants itself."""
        return replace(
            self,
            charter={**self.charter, **variant.charter},
            rounds=self.rounds if variant.rounds is None else variant.rounds,
            model=variant.model or self.model,
            patience=self.patience if variant.patience is None else variant.patience,
            targets=variant.targets or self.targets,
            variants=(),
        )

    def found_in(self, folder: Path) -> Self:
        """Fill in the hospitals that a pattern finds. Raises ConfigError when it finds too few."""
        if not self.pattern or self.hospitals:
            return self
        files = sorted(folder.glob(self.pattern))[: self.first_hospitals or None]
        if len(files) < 2:
            raise ConfigError(f"--data {folder}: need at least 2 files {self.pattern} there")
        found = tuple(
            Hospital(
                folder=file.stem,
                name=file.stem.replace("-", " ").capitalize(),
                file=str(file.relative_to(folder)),
            )
            for file in files
        )
        return replace(self, hospitals=found)

    def first(self, hospitals: int | None) -> Self:
        """Only the first so many hospitals. Raises ConfigError when there are fewer."""
        if hospitals is None:
            return self
        if not 2 <= hospitals <= len(self.hospitals):
            raise ConfigError(f"--hospitals: {self.name} has 2 to {len(self.hospitals)}")
        return replace(self, hospitals=self.hospitals[:hospitals])


def parse_spec(name: str, text: str) -> ScenarioSpec:
    """Read one scenario; raises ConfigError naming scenario and key."""
    top = Table(name, _document(name, text))
    spec = ScenarioSpec(
        name=name,
        title=top.take("title", str),
        about=top.take("about", str),
        seed=top.take("seed", int),
        rounds=top.take("rounds", int),
        federation=top.take("federation", str),
        data=top.take("data", str),
        label=top.take("label", str),
        query=top.take("query", str, ""),
        model=top.take("model", str),
        charter=top.settings("charter"),
        site=top.values("site"),
        hospitals=_hospitals(top),
        targets=_targets(top.table("targets")),
        engine=top.take("engine", str, PROCESSES),
        seeds=top.take("seeds", int, 1),
        pattern=top.take("pattern", str, ""),
        external=top.take("external", str, ""),
        patience=top.take("patience", int, 0),
        first_hospitals=top.take("first", int, 0),
        pace=_pace(top.table("pace")) if top.has("pace") else None,
        variants=tuple(_variant(table) for table in top.tables("variants", [])),
        study=top.take("study", str, ""),
    )
    top.finish()
    return spec


def _document(name: str, text: str) -> dict[str, Any]:
    """Read TOML; with `like`, over what another scenario of the catalogue says.

    Tables are laid over each other, anything else replaces; texts, bars and variants are never taken over.
    """
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: not valid TOML: {error}") from None
    if "like" not in document:
        return document
    other = Table(name, {"like": document.pop("like")}).take("like", str)
    return _laid_over(
        {k: v for k, v in _document(other, _text_of(other)).items() if k not in NOT_LIKE}, document
    )


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = {k for k in below.keys() & above.keys() if isinstance(below[k], dict)}
    inner = {k: _laid_over(below[k], above[k]) for k in both if isinstance(above[k], dict)}
    return {**below, **above, **inner}


def load_spec(name: str) -> ScenarioSpec:
    """Load a scenario of the catalogue by name; raises ConfigError that lists what there is."""
    return parse_spec(name, _text_of(name))


def _text_of(name: str) -> str:
    if name not in (known := scenario_names()):
        raise ConfigError(f'there is no scenario "{name}"; choose from: {", ".join(known)}')
    entry = resources.files("scenarios") / "catalogue" / f"{name}.toml"
    return entry.read_text(encoding="utf-8")


def scenario_names() -> tuple[str, ...]:
    """Names in the catalogue, sorted."""
    entries = (resources.files("scenarios") / "catalogue").iterdir()
    return tuple(sorted(e.name.removesuffix(".toml") for e in entries if e.name.endswith(".toml")))


def _hospitals(top: Table) -> tuple[Hospital, ...]:
    """Hospitals as listed; with a pattern there may be none, or sizes to deal its rows by."""
    clinics = top.take("clinics", int, 0)
    if clinics:
        numbers = [f"{at + 1:02}" for at in range(clinics)]
        return tuple(Hospital(folder=f"clinic-{one}", name=f"Clinic {one}") for one in numbers)
    deal = top.take("deal", list, [])
    if not deal:
        pattern = top.has("pattern")
        return tuple(_hospital(t) for t in top.tables("hospitals", [] if pattern else None))
    result: list[Hospital] = []
    first = 0
    for at, count in enumerate(deal):
        if type(count) is not int or count < 1:
            raise ConfigError(f"{top.where}: deal: need counts of rows, got {count!r}")
        name = f"Hospital {chr(ord('A') + at)}"
        result.append(
            Hospital(folder=name.replace(" ", "-").lower(), name=name, rows=(first, count))
        )
        first += count
    return tuple(result)


def _variant(table: Table) -> Variant:
    rounds, patience = table.take("rounds", int, 0), table.take("patience", int, -1)
    own = table.table("targets") if table.has("targets") else None
    variant = Variant(
        name=table.take("name", str),
        charter=table.settings("charter"),
        rounds=rounds or None,
        model=table.take("model", str, ""),
        patience=None if patience < 0 else patience,
        targets=None if own is None else _targets(own),
    )
    table.finish()
    return variant


def _hospital(table: Table) -> Hospital:
    hospital = Hospital(
        folder=table.take("folder", str),
        name=table.take("name", str),
        file=table.take("file", str, ""),
        absent=tuple(map(str, table.take("absent", list, []))),
    )
    table.finish()
    return hospital


def _pace(table: Table) -> Pace:
    pace = Pace(
        train_s=table.number("train_s", 0.5),
        other_s=table.number("other_s", 0.5),
        slow_share=table.number("slow_share", 0.0),
        slow_factor=table.number("slow_factor", 1.0),
    )
    table.finish()
    return pace


def _targets(table: Table) -> Targets:
    default = Targets()
    targets = Targets(
        auc_over_alone_min=table.number("auc_over_alone_min", default.auc_over_alone_min),
        auc_under_pooled_max=table.number("auc_under_pooled_max", default.auc_under_pooled_max),
        wall_s_max=table.number("wall_s_max", default.wall_s_max),
        external_over_alone_min=table.perhaps("external_over_alone_min"),
        external_under_pooled_max=table.perhaps("external_under_pooled_max"),
        rounds_to_99_max=table.perhaps("rounds_to_99_max"),
        rounds_to_99_worst_max=table.perhaps("rounds_to_99_worst_max"),
        external_under_main_max=table.perhaps("external_under_main_max"),
        sooner_than_main_min=table.perhaps("sooner_than_main_min"),
        calibration_of_main_max=table.perhaps("calibration_of_main_max"),
        auc_off_main_max=table.perhaps("auc_off_main_max"),
        bytes_fewer_min=table.perhaps("bytes_fewer_min"),
        auc_min=table.perhaps("auc_min"),
        accuracy_min=table.perhaps("accuracy_min"),
    )
    table.finish()
    return targets
