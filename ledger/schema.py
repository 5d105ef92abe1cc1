"""Shapes of records: field order, types, ranges. Room: ledger. Spec: docs/ledger.md §4 and §5.

A shape is a table. ``accepts`` is the quick look that a million records pass; ``check`` is the
slow one that says which field is wrong. They give the same answer.
"""

from __future__ import annotations

from enum import IntEnum
from itertools import chain
from operator import itemgetter, lt
from typing import Any, Final, TypeAlias, final

from .canonical import ITEMS_MAX, UINT_MAX
from .errors import VerificationError

U8_MAX: Final = 2**8 - 1
U16_MAX: Final = 2**16 - 1
U32_MAX: Final = 2**32 - 1
_LIST: Final = {list}


@final
class Uint:
    """An unsigned integer up to ``most``; with ``among``, one of an enumeration."""

    __slots__ = ("among", "most")

    def __init__(self, most: int = UINT_MAX, *, among: type[IntEnum] | None = None) -> None:
        self.most = most
        self.among = None if among is None else frozenset(int(member) for member in among)

    def explain(self, value: object) -> str | None:
        """Return what was expected, or None if ``value`` is that."""
        if type(value) is int and 0 <= value <= self.most:
            if self.among is None or value in self.among:
                return None
            return f"one of {sorted(self.among)}"
        return f"an integer from 0 to {self.most}"


@final
class Bin:
    """A byte string of one of the given lengths."""

    __slots__ = ("lengths",)

    def __init__(self, *lengths: int) -> None:
        self.lengths = frozenset(lengths)

    def explain(self, value: object) -> str | None:
        """Return what was expected, or None if ``value`` is that."""
        if type(value) is bytes and len(value) in self.lengths:
            return None
        return f"{' or '.join(map(str, sorted(self.lengths)))} bytes"


@final
class AnyBin:
    """A byte string of any length that the record's own limit admits."""

    def explain(self, value: object) -> str | None:
        """Return what was expected, or None if ``value`` is that."""
        return None if type(value) is bytes else "a byte string"


@final
class ListOf:
    """Items of one kind; with ``sorted_by`` = k, strictly increasing in their first k fields.

    is_optional: the last field of its shape, which is left out exactly when it has no items.
    """

    __slots__ = ("is_optional", "item", "key", "most", "sorted_by")

    def __init__(
        self,
        item: Uint | Bin | Shape,
        *,
        sorted_by: int = 0,
        most: int = ITEMS_MAX,
        is_optional: bool = False,
    ) -> None:
        self.item = item
        self.most = most
        self.sorted_by = sorted_by
        self.is_optional = is_optional
        # A lone field compares as itself, several as a tuple.
        self.key = itemgetter(*range(sorted_by)) if sorted_by else None

    def accepts(self, value: Any) -> bool:
        """Tell quickly whether every item fits and the order holds."""
        if type(value) is not list or len(value) > self.most:
            return False
        if not value:
            return True
        item = self.item
        if isinstance(item, Shape):
            if not item.accepts_all(value):
                return False
        else:
            for one in value:
                if item.explain(one) is not None:
                    return False
        if self.key is None or len(value) == 1:
            return True
        keys = list(map(self.key, value))
        return all(map(lt, keys, keys[1:]))

    def check(self, value: Any, name: str) -> None:
        """Raise E_SCHEMA or E_ORDER naming the item."""
        if type(value) is not list:
            raise VerificationError("E_SCHEMA", f"{name} is not an array")
        if len(value) > self.most:
            raise VerificationError(
                "E_SCHEMA", f"{name} has {len(value)} items", expected=f"at most {self.most}"
            )
        for position, one in enumerate(value):
            _check(self.item, one, f"{name}[{position}]")
        if self.key is not None:
            keys = list(map(self.key, value))
            if not all(map(lt, keys, keys[1:])):
                raise VerificationError("E_ORDER", f"{name} is not strictly sorted")


@final
class Shape:
    """A fixed array of named fields."""

    __slots__ = ("_all_u53", "_among", "_bins", "_lists", "_ranged", "_short", "_types", "fields")

    def __init__(self, **fields: Field) -> None:
        self.fields: Final = fields
        last = [*fields.values()][-1]
        self._short: Shape | None = None
        if isinstance(last, ListOf) and last.is_optional:
            self._short = Shape(**dict([*fields.items()][:-1]))
        kinds = list(fields.values())
        self._types = [
            int if isinstance(kind, Uint) else list if isinstance(kind, ListOf) else bytes
            for kind in kinds
        ]
        # What `accepts` walks, without an attribute look-up a field.
        uints = [(i, kind) for i, kind in enumerate(kinds) if isinstance(kind, Uint)]
        self._ranged = [(i, kind.most) for i, kind in uints if kind.among is None]
        self._among = [(i, kind.among) for i, kind in uints if kind.among is not None]
        self._bins = [(i, kind.lengths) for i, kind in enumerate(kinds) if isinstance(kind, Bin)]
        self._lists = [(i, kind) for i, kind in enumerate(kinds) if isinstance(kind, ListOf)]
        self._all_u53 = (
            not self._bins and not self._lists and all(most == UINT_MAX for _, most in self._ranged)
        )

    def accepts(self, value: Any) -> bool:
        """Tell quickly whether ``value`` has this shape."""
        if self._short is None:
            return self._accepts_whole(value)
        if type(value) is list and len(value) < len(self._types):
            return self._short.accepts(value)
        return self._accepts_whole(value) and bool(value[-1])

    def _accepts_whole(self, value: Any) -> bool:
        if type(value) is not list or list(map(type, value)) != self._types:
            return False
        for i, most in self._ranged:
            if not 0 <= value[i] <= most:
                return False
        for i, among in self._among:
            if value[i] not in among:
                return False
        for i, lengths in self._bins:
            if len(value[i]) not in lengths:
                return False
        for i, kind in self._lists:
            if not kind.accepts(value[i]):
                break
        else:  # a loop: a generator would cost more than what it asks
            return True
        return False

    def accepts_all(self, rows: list[Any]) -> bool:
        """Tell quickly whether every row, at least one, has this shape: column by column."""
        if self._all_u53:
            return self._accepts_numbers(rows)
        if self._lists:
            return all(map(self.accepts, rows))
        width = len(self._types)
        if set(map(type, rows)) != _LIST or set(map(len, rows)) != {width}:
            return False
        flat = list(chain.from_iterable(rows))
        return list(map(type, flat)) == self._types * len(rows) and self._accepts_columns(flat)

    def _accepts_numbers(self, rows: list[Any]) -> bool:
        width = len(self._types)
        for row in rows:
            if type(row) is not list or len(row) != width:
                return False
            for number in row:
                if type(number) is not int or not 0 <= number <= UINT_MAX:
                    return False
            for i, among in self._among:
                if row[i] not in among:
                    return False
        return True

    def _accepts_columns(self, flat: list[Any]) -> bool:
        width = len(self._types)
        for i, among in self._among:
            if not among.issuperset(flat[i::width]):
                return False
        for i, lengths in self._bins:
            if not lengths.issuperset(map(len, flat[i::width])):
                return False
        for i, most in self._ranged:
            column = flat[i::width]
            if min(column) < 0 or max(column) > most:
                return False
        return True

    def check(self, value: Any, name: str) -> None:
        """Raise E_SCHEMA or E_ORDER naming the field."""
        if self._short is not None and type(value) is list:
            if len(value) < len(self.fields):
                self._short.check(value, name)
                return
            if value[-1] == []:
                raise VerificationError("E_SCHEMA", f"{name} spells out an empty last field")
        if type(value) is not list or len(value) != len(self.fields):
            raise VerificationError(
                "E_SCHEMA", f"{name} is not an array of {len(self.fields)} fields"
            )
        for (field, kind), one in zip(self.fields.items(), value, strict=True):
            _check(kind, one, f"{name}.{field}")


Field: TypeAlias = Uint | Bin | AnyBin | ListOf


def _check(kind: Field | Shape, value: Any, name: str) -> None:
    if isinstance(kind, ListOf | Shape):
        kind.check(value, name)
        return
    expected = kind.explain(value)
    if expected is not None:
        raise VerificationError("E_SCHEMA", f"{name} has the wrong value", expected=expected)


BIN32: Final = Bin(32)
U8: Final = Uint(U8_MAX)
U16: Final = Uint(U16_MAX)
U32: Final = Uint(U32_MAX)
U53: Final = Uint()
