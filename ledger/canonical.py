"""One value has one byte string. Room: ledger. Spec: docs/ledger.md §2.

msgpack restricted to arrays, unsigned integers up to 2^53 - 1 and bin. What another spelling,
another type or a hostile length would smuggle in is refused before anything is believed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias, Union

import msgpack  # type: ignore[import-untyped] # ships no types

from .errors import VerificationError

Value: TypeAlias = Union[int, bytes, "list[Value]", "tuple[Value, ...]"]

UINT_MAX = 2**53 - 1
ENVELOPE_BYTES_MAX = 65_536
RECORD_BYTES_MAX = ENVELOPE_BYTES_MAX - 70  # array, bin header, 64-byte signature with its header
ITEMS_MAX = 2_048  # an array's length is allocated before its items arrive
NESTING_MAX = 8


def encode(value: Value) -> bytes:
    """Return the one spelling of ``value``. Tuples are written as arrays.

    Raises VerificationError E_ENCODING for a type, range or length outside the subset.
    """
    _check(value, NESTING_MAX)
    return pack(value)


def decode(
    data: bytes, *, bytes_max: int = RECORD_BYTES_MAX, nesting_max: int = NESTING_MAX
) -> Value:
    """Return the value that ``data`` spells.

    Raises VerificationError: E_SIZE (longer than ``bytes_max``), E_ENCODING (not of the subset),
    E_NONCANONICAL (of the subset, but another spelling).
    """
    if len(data) > bytes_max:
        raise VerificationError("E_SIZE", f"{len(data)} bytes", expected=f"at most {bytes_max}")
    value = unpack(data)
    _check(value, nesting_max)
    if pack(value) != data:
        raise VerificationError("E_NONCANONICAL", "another spelling of the same value")
    return value


def unpack(data: bytes) -> Value:
    """Decode without the checks of the subset: only the first half of :func:`decode`."""
    try:
        # ITEMS_MAX bounds what a short hostile header can make us allocate.
        value: Value = msgpack.unpackb(
            data, max_str_len=0, max_map_len=0, max_ext_len=0, max_array_len=ITEMS_MAX
        )
    except (ValueError, TypeError, RecursionError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise VerificationError("E_ENCODING", f"not a value of the subset: {text}") from None
    return value


# Encode without the checks of the subset: only the second half of `encode`. One packer for all,
# since it runs no code of ours in between and starts anew after a failure.
pack: Final[Callable[[Value], bytes]] = msgpack.Packer().pack


def _check(value: object, nesting_left: int) -> None:
    # Exact types: bool is an int to isinstance, and True has a spelling of its own.
    kind = type(value)
    if kind is int:
        if not 0 <= value <= UINT_MAX:  # type: ignore[operator] # `type(x) is` does not narrow
            raise VerificationError("E_ENCODING", "integer out of range", expected="0 to 2^53-1")
    elif kind is list or kind is tuple:
        if nesting_left == 0:
            raise VerificationError("E_ENCODING", "arrays are nested too deep")
        if len(value) > ITEMS_MAX:  # type: ignore[arg-type]
            raise VerificationError(
                "E_ENCODING", "array is too long", expected=f"at most {ITEMS_MAX}"
            )
        for item in value:  # type: ignore[attr-defined]
            _check(item, nesting_left - 1)
    elif kind is not bytes:
        raise VerificationError(
            "E_ENCODING", f"type {kind.__name__}", expected="unsigned integer, bin or array"
        )
