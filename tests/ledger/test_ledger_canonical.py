"""One value has one byte string, and no byte string crashes the reader."""

from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ledger.canonical import ITEMS_MAX, RECORD_BYTES_MAX, UINT_MAX, decode, encode
from ledger.errors import VerificationError

values = st.recursive(
    st.integers(0, UINT_MAX) | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=20),
    max_leaves=40,
)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers(-(2**63), 2**64 - 1)
    | st.binary(max_size=40)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.integers(0, 9), inner),
    max_leaves=20,
)


def depth(value: Any) -> int:
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def code_of(data: bytes, **limits: int) -> str:
    with pytest.raises(VerificationError) as caught:
        decode(data, **limits)
    return caught.value.code


@given(st.binary(max_size=200))
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\xc1")
@example(b"\x91" * 3_000)
@example(b"")
def test_no_input_crashes_and_what_is_accepted_is_the_one_spelling(data: bytes) -> None:
    try:
        value = decode(data)
    except VerificationError as error:
        assert error.code in {"E_ENCODING", "E_NONCANONICAL", "E_SIZE"}  # noqa: PT017
    else:
        assert encode(value) == data


@given(anything)
def test_what_msgpack_can_say_is_refused_unless_it_is_of_the_subset(value: Any) -> None:
    data = msgpack.packb(value)
    try:
        decoded = decode(data)
    except VerificationError as error:
        assert error.code == "E_ENCODING"  # noqa: PT017
    else:
        assert encode(decoded) == data
        assert decoded == value


@given(values)
def test_what_is_encoded_comes_back(value: Any) -> None:
    if depth(value) <= 8:
        assert decode(encode(value)) == value


@pytest.mark.parametrize("value", [True, False, None, 1.0, -1, 2**53, "text", {}, bytearray(b"x")])
def test_other_types_and_ranges_are_not_written(value: Any) -> None:
    for one in (value, [value], [[0, value]]):
        with pytest.raises(VerificationError, match="E_ENCODING"):
            encode(one)


@pytest.mark.parametrize(
    "spelling", [b"\xcc\x01", b"\xcd\x00\x01", b"\xd0\x01", b"\xdc\x00\x01\x05", b"\xc5\x00\x01x"]
)
def test_a_longer_spelling_is_another_one(spelling: bytes) -> None:
    assert code_of(spelling) == "E_NONCANONICAL"


def test_two_values_are_not_one() -> None:
    assert code_of(b"\x01\x02") == "E_ENCODING"


def test_sizes_are_capped_before_anything_is_decoded() -> None:
    assert code_of(b"\xc1" * (RECORD_BYTES_MAX + 1)) == "E_SIZE"
    assert code_of(b"\x93\x01\x02\x03", bytes_max=3) == "E_SIZE"


def test_depth_and_length_of_arrays_are_capped() -> None:
    assert decode(b"\x91" * 8 + b"\x00") is not None
    assert code_of(b"\x91" * 9 + b"\x00") == "E_ENCODING"
    assert code_of(b"\x91\x91\x00", nesting_max=1) == "E_ENCODING"
    with pytest.raises(VerificationError, match="array is too long"):
        encode([0] * (ITEMS_MAX + 1))
    assert decode(encode([0] * ITEMS_MAX)) == [0] * ITEMS_MAX
    assert code_of(msgpack.packb([0] * (ITEMS_MAX + 1))) == "E_ENCODING"


def test_tuples_are_written_as_arrays() -> None:
    assert encode((1, (b"x",))) == encode([1, [b"x"]])
