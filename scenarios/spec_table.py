"""A TOML table whose keys are taken one by one. Room: scenarios. Law: what is left over is an error."""

from typing import Any, TypeAlias, TypeVar

from ledger.errors import ConfigError
from node.knobs import Value

Setting: TypeAlias = str | int | float | bool | list[Any]
T = TypeVar("T")


class Table:
    """A TOML table whose keys are taken one by one; what is left over is an error."""

    def __init__(self, where: str, values: dict[str, object]) -> None:
        self.where = where
        self._left = dict(values)
        self._known: list[str] = []

    def take(self, key: str, kind: type[T], default: T | None = None) -> T:
        """Take a value of one type; without a default it must be there."""
        self._known.append(key)
        if key not in self._left:
            if default is None:
                raise ConfigError(f"{self.where}: {key}: missing")
            return default
        value = self._left.pop(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(f"{self.where}: {key}: need {kind.__name__}, got {value!r}")
        return value

    def number(self, key: str, default: float) -> float:
        """Take a number; a whole one will do."""
        value = self._left.get(key)
        if type(value) is int:
            self._left[key] = float(value)
        return self.take(key, float, default)

    def table(self, key: str) -> "Table":
        """Take a table; an absent one is empty."""
        return Table(f"{self.where}: {key}", self.take(key, dict, {}))

    def perhaps(self, key: str) -> float | None:
        """Take a number that may be left out."""
        self._known.append(key)
        return self.number(key, 0.0) if key in self._left else None

    def has(self, key: str) -> bool:
        """Whether the key is there and not taken yet."""
        return key in self._left

    def tables(self, key: str, default: list[Any] | None = None) -> list["Table"]:
        """Take an array of tables."""
        found = self.take(key, list, default)
        if not all(isinstance(entry, dict) for entry in found):
            raise ConfigError(f"{self.where}: {key}: need [[{key}]] tables")
        return [Table(f"{self.where}: {key}[{i}]", entry) for i, entry in enumerate(found)]

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
                raise ConfigError(f"{self.where}: {key}.{prefix}: need a value, not a date")
        return dict(sorted(result.items()))

    def values(self, key: str) -> dict[str, Value]:
        """Same, for settings of a site, which hold lists of text only."""
        result: dict[str, Value] = {}
        for name, value in self.settings(key).items():
            result[name] = tuple(map(str, value)) if isinstance(value, list) else value
        return result

    def finish(self) -> None:
        """Raise ConfigError if a key was not taken."""
        if self._left:
            raise ConfigError(
                f"{self.where}: unknown key {', '.join(sorted(self._left))}; "
                f"known: {', '.join(self._known)}"
            )
