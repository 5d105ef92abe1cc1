"""Reading TOML strictly: every error is one line that names the key. Room: ledger.

A table is handed out field by field; what nobody asked for is an error, so a misspelt key can
never be a silent default.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Collection, Mapping
from typing import Any, Final

from .errors import ConfigError

NAME_CHARS_MAX: Final = 128
_SHOWN_CHARS_MAX: Final = 60


class CharterError(ConfigError):
    """The charter is not as specified; ``code`` is what the auditor reports."""

    def __init__(self, message: str, *, code: str = "E_NONCANONICAL") -> None:
        super().__init__(message)
        self.code = code


def parse_toml(data: bytes, *, file: str, bytes_max: int) -> dict[str, Any]:
    """Return the document. Raises CharterError for size, encoding or syntax."""
    if len(data) > bytes_max:
        raise CharterError(f"{file}: {len(data)} bytes, at most {bytes_max} are allowed")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise CharterError(f"{file}: not UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        text = " ".join(str(error).split()) or "nested too deep"
        raise CharterError(f"{file}: not TOML: {text}") from None


def show(value: object) -> str:
    """Return ``value`` as TOML would write it, short enough for one line."""
    if isinstance(value, str):
        text = '"' + value.encode("unicode_escape").decode().replace('"', '\\"') + '"'
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, dict):
        text = "a table"
    elif isinstance(value, int) and value.bit_length() > 200:
        text = "an integer of more than 60 digits"
    else:
        text = " ".join(str(value).split())
    return text if len(text) <= _SHOWN_CHARS_MAX else text[: _SHOWN_CHARS_MAX - 1] + "…"


_MISSING: Final = object()


class Table:
    """One TOML table, taken apart key by key; call :meth:`done` at the end."""

    def __init__(self, values: Mapping[str, Any], *, where: str, file: str) -> None:
        self._values = dict(values)
        self._where = where  # "[rounds]", "[[members]] 3" or "" for the top
        self._file = file
        self._known: list[str] = []

    def fail(self, key: str, problem: str, *, code: str = "E_NONCANONICAL") -> CharterError:
        """Return the error "charter.toml: [rounds] key problem"."""
        where = f"{self._where} " if self._where else ""
        return CharterError(f"{self._file}: {where}{key} {problem}", code=code)

    def _take(self, key: str, default: object) -> Any:
        self._known.append(key)
        if key in self._values:
            return self._values.pop(key)
        if default is _MISSING:
            raise self.fail(key, "is missing; add it")
        return default

    def _must(self, key: str, what: str, value: object) -> CharterError:
        return self.fail(key, f"must be {what}, got {show(value)}")

    def integer(self, key: str, low: int, high: int, default: Any = _MISSING) -> int:
        """Take an integer from ``low`` to ``high``."""
        value = self._take(key, default)
        if type(value) is not int or not low <= value <= high:
            raise self._must(key, f"an integer from {low} to {high}", value)
        return value

    def number(
        self, key: str, low: float, high: float, default: Any = _MISSING, *, above: bool = False
    ) -> float:
        """Take a finite number from ``low`` (or ``above`` it) to ``high``."""
        value = self._take(key, default)
        # A comparison with NaN is false, and infinity is past every ``high``.
        in_range = type(value) in (int, float) and (low < value if above else low <= value)
        if in_range and value <= high:
            return float(value)
        what = f"above {low:g} and at most {high:g}" if above else f"from {low:g} to {high:g}"
        raise self._must(key, f"a number {what}", value)

    def bound(self, key: str) -> float | None:
        """Take an optional finite number."""
        value = self._take(key, None)
        if value is None:
            return None
        if type(value) not in (int, float) or abs(value) > 1e300 or not math.isfinite(value):
            raise self._must(key, "a finite number", value)
        return float(value)

    def boolean(self, key: str, default: Any = _MISSING) -> bool:
        """Take true or false."""
        value = self._take(key, default)
        if type(value) is not bool:
            raise self._must(key, "true or false", value)
        return value

    def name(self, key: str, default: Any = _MISSING, *, chars_max: int = NAME_CHARS_MAX) -> str:
        """Take a string of 1 to ``chars_max`` printable characters."""
        value = self._take(key, default)
        self._check_name(key, value, chars_max)
        return str(value)

    def _check_name(self, key: str, value: object, chars_max: int) -> None:
        # No control characters: names end up in terminals and logs.
        good = type(value) is str and value.isprintable() and value == value.strip()
        if not good or not 1 <= len(str(value)) <= chars_max:
            what = f"1 to {chars_max} printable characters with no space around"
            raise self._must(key, what, value)

    def choice(self, key: str, among: Collection[str], default: Any = _MISSING) -> str:
        """Take one of a few words."""
        value = self._take(key, default)
        if type(value) is not str or value not in among:
            raise self._must(key, "one of " + ", ".join(f'"{one}"' for one in among), value)
        return value

    def names(
        self,
        key: str,
        default: Any = _MISSING,
        *,
        count_max: int = 4_096,
        chars_max: int = NAME_CHARS_MAX,
    ) -> tuple[str, ...]:
        """Take an array of different names."""
        value = self._take(key, default)
        if not isinstance(value, list | tuple) or len(value) > count_max:
            raise self._must(key, f"an array of at most {count_max} strings", value)
        for one in value:
            self._check_name(key, one, chars_max)
        if len(set(value)) != len(value):
            twice = next(one for one in value if value.count(one) > 1)
            raise self.fail(key, f"names {show(twice)} twice; keep one")
        return tuple(value)

    def numbers(self, key: str, *, count_max: int) -> tuple[float, ...]:
        """Take an optional array of finite numbers."""
        value = self._take(key, [])
        if type(value) is not list or len(value) > count_max:
            raise self._must(key, f"an array of at most {count_max} numbers", value)
        for one in value:
            if type(one) not in (int, float) or not abs(one) <= 1e300:
                raise self._must(key, "an array of finite numbers", value)
        return tuple(map(float, value))

    def pairs(self, key: str, *, count_max: int) -> tuple[tuple[str, str], ...]:
        """Take an optional array of pairs of different names."""
        value = self._take(key, [])
        if type(value) is not list or len(value) > count_max:
            raise self._must(key, f"an array of at most {count_max} pairs of names", value)
        for pair in value:
            if type(pair) is not list or len(pair) != 2:
                raise self._must(key, 'an array of pairs like ["a", "b"]', value)
            for one in pair:
                self._check_name(key, one, NAME_CHARS_MAX)
            if pair[0] == pair[1]:
                raise self.fail(key, f"joins {show(pair[0])} to itself")
        return tuple((one, other) for one, other in value)

    def key_bytes(self, key: str) -> bytes:
        """Take 32 bytes written as 64 lower-case hex digits."""
        value = self._take(key, _MISSING)
        if type(value) is str and len(value) == 64 and set(value) <= set("0123456789abcdef"):
            return bytes.fromhex(value)
        raise self._must(key, "64 lower-case hex digits", value)

    def table(self, key: str, *, required: bool = False) -> Table:
        """Take a sub-table; an absent one counts as empty unless it is required."""
        value = self._take(key, _MISSING if required else {})
        if type(value) is not dict:
            raise self._must(key, "a table", value)
        where = f"[{key}]" if not self._where else f"{self._where[:-1]}.{key}]"
        return Table(value, where=where, file=self._file)

    def tables(self, key: str, *, count_max: int) -> list[Table]:
        """Take an array of tables."""
        value = self._take(key, [])
        if type(value) is not list or any(type(one) is not dict for one in value):
            raise self._must(key, "an array of tables", value)
        if len(value) > count_max:
            raise self.fail(key, f"has {len(value)} tables; at most {count_max} are allowed")
        inside = self._where[1:-1] + "." if self._where else ""
        return [
            Table(one, where=f"[[{inside}{key}]] {position}", file=self._file)
            for position, one in enumerate(value)
        ]

    def rest(self) -> dict[str, Any]:
        """Take whatever is left: a free table."""
        values, self._values = self._values, {}
        return values

    def done(self) -> None:
        """Raise if a key is left that nobody knows."""
        for key in self._values:
            known = ", ".join(self._known)
            raise self.fail(show(key)[1:-1], f"is not known; remove it (known: {known})")
