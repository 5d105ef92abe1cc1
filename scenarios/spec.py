"""What a scenario is: one TOML file of the catalogue, read strictly.

Room: scenarios. Law: an unknown key, a wrong type or a missing value is a ConfigError that names
the key; nothing is guessed.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any, Final, Self, TypeAlias, TypeVar

from ledger.errors import ConfigError
from node.knobs import Value

BREAST_CANCER: Final = "breast-cancer"
FOLDER: Final = "folder"
DATA_KINDS: Final = (BREAST_CANCER, FOLDER)

Setting: TypeAlias = str | int | float | bool | list[Any]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Hospital:
    """One site. folder: its directory in the run. file: its table in the folder of --data.

    absent: features that it never measures.
    """

    folder: str
    name: str
    file: str = ""
    absent: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What a run must reach to pass.

    auc_over_alone_min: overall swarm AUC minus alone; raise it where learning together must pay.
    auc_under_pooled_max: how far below pooled the swarm may end; lower it for convex models.
    wall_s_max: the nodes are stopped and the run fails after this; raise it on slow machines.
    """

    auc_over_alone_min: float = 0.0
    auc_under_pooled_max: float = 0.01
    wall_s_max: float = 300.0

    def __post_init__(self) -> None:
        if self.wall_s_max <= 0:
            raise ConfigError("targets.wall_s_max: need more than 0 seconds")


@dataclass(frozen=True, kw_only=True)
class ScenarioSpec:
    """One scenario of the catalogue.

    data: where patients come from: "breast-cancer" (scikit-learn's, split here) or "folder" (--data).
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

    def __post_init__(self) -> None:
        if self.data not in DATA_KINDS:
            raise ConfigError(
                f"{self.name}: data: use {' or '.join(DATA_KINDS)}, not {self.data!r}"
            )
        if self.rounds < 1:
            raise ConfigError(f"{self.name}: rounds: need at least 1")
        if len(self.hospitals) < 2:
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
            if (self.data == FOLDER) != bool(hospital.file):
                raise ConfigError(
                    f'{self.name}: hospitals: {hospital.name} needs `file` exactly if data = "folder"'
                )

    def override(self, *, seed: int | None = None, rounds: int | None = None) -> Self:
        """The same scenario with another seed or number of rounds, where one is given."""
        return replace(
            self,
            seed=self.seed if seed is None else seed,
            rounds=self.rounds if rounds is None else rounds,
        )


def parse_spec(name: str, text: str) -> ScenarioSpec:
    """Read one scenario; raises ConfigError naming scenario and key."""
    try:
        top = _Table(name, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: not valid TOML: {error}") from None
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
        hospitals=tuple(_hospital(table) for table in top.tables("hospitals")),
        targets=_targets(top.table("targets")),
    )
    top.finish()
    return spec


def load_spec(name: str) -> ScenarioSpec:
    """Load a scenario of the catalogue by name; raises ConfigError that lists what there is."""
    if name not in (known := scenario_names()):
        raise ConfigError(f'there is no scenario "{name}"; choose from: {", ".join(known)}')
    entry = resources.files("scenarios") / "catalogue" / f"{name}.toml"
    return parse_spec(name, entry.read_text(encoding="utf-8"))


def scenario_names() -> tuple[str, ...]:
    """Names in the catalogue, sorted."""
    entries = (resources.files("scenarios") / "catalogue").iterdir()
    return tuple(sorted(e.name.removesuffix(".toml") for e in entries if e.name.endswith(".toml")))


def _hospital(table: "_Table") -> Hospital:
    hospital = Hospital(
        folder=table.take("folder", str),
        name=table.take("name", str),
        file=table.take("file", str, ""),
        absent=tuple(map(str, table.take("absent", list, []))),
    )
    table.finish()
    return hospital


def _targets(table: "_Table") -> Targets:
    default = Targets()
    targets = Targets(
        auc_over_alone_min=table.number("auc_over_alone_min", default.auc_over_alone_min),
        auc_under_pooled_max=table.number("auc_under_pooled_max", default.auc_under_pooled_max),
        wall_s_max=table.number("wall_s_max", default.wall_s_max),
    )
    table.finish()
    return targets


class _Table:
    """A TOML table whose keys are taken one by one; what is left over is an error."""

    def __init__(self, where: str, values: dict[str, object]) -> None:
        self._where = where
        self._left = dict(values)
        self._known: list[str] = []

    def take(self, key: str, kind: type[T], default: T | None = None) -> T:
        self._known.append(key)
        if key not in self._left:
            if default is None:
                raise ConfigError(f"{self._where}: {key}: missing")
            return default
        value = self._left.pop(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(f"{self._where}: {key}: need {kind.__name__}, got {value!r}")
        return value

    def number(self, key: str, default: float) -> float:
        value = self._left.get(key)
        if type(value) is int:
            self._left[key] = float(value)
        return self.take(key, float, default)

    def table(self, key: str) -> "_Table":
        return _Table(f"{self._where}: {key}", self.take(key, dict, {}))

    def tables(self, key: str) -> list["_Table"]:
        found = self.take(key, list)
        if not all(isinstance(entry, dict) for entry in found):
            raise ConfigError(f"{self._where}: {key}: need [[{key}]] tables")
        return [_Table(f"{self._where}: {key}[{i}]", entry) for i, entry in enumerate(found)]

    def settings(self, key: str) -> dict[str, Setting]:
        """Flatten nested tables into dotted keys: [charter.training] batch_size → training.batch_size."""
        result: dict[str, Setting] = {}
        pending: list[tuple[str, object]] = [("", self.take(key, dict, {}))]
        while pending:
            prefix, value = pending.pop()
            if isinstance(value, dict):
                pending += [(f"{prefix}.{k}".lstrip("."), v) for k, v in value.items()]
            elif isinstance(value, str | int | float | bool | list):
                result[prefix] = value
            else:
                raise ConfigError(f"{self._where}: {key}.{prefix}: need a value, not a date")
        return dict(sorted(result.items()))

    def values(self, key: str) -> dict[str, Value]:
        """Same, for settings of a site, which hold lists of text only."""
        result: dict[str, Value] = {}
        for name, value in self.settings(key).items():
            result[name] = tuple(map(str, value)) if isinstance(value, list) else value
        return result

    def finish(self) -> None:
        if self._left:
            raise ConfigError(
                f"{self._where}: unknown key {', '.join(sorted(self._left))}; "
                f"known: {', '.join(self._known)}"
            )
