"""Payloads in place and pages given back: less memory, the same values."""

import mmap
import tempfile

import numpy as np
import pytest

from swarm.learning.aggregation import weighted_mean
from swarm.learning.mapped import HEADROOM, release, roomy, with_room
from swarm.learning.payload import HEADER, IN_PLACE_BYTES_MIN, decode_vector, encode_vector

LAYOUT = bytes(range(32))
COUNT = IN_PLACE_BYTES_MIN // 4 + 3


def test_there_is_room_for_exactly_the_header() -> None:
    assert HEADER.size == HEADROOM * 4


def vector(count: int) -> np.ndarray:
    made = roomy(count)
    made[:] = np.random.default_rng(1).normal(size=count)
    return made


@pytest.mark.parametrize("count", [0, 1, COUNT])
def test_a_vector_has_one_encoding_wherever_it_lies(count: int) -> None:
    plain = vector(count).copy()
    assert with_room(plain) is None
    payload = encode_vector(vector(count), LAYOUT)
    assert payload == encode_vector(plain, LAYOUT)
    assert decode_vector(payload, LAYOUT, count).tobytes() == plain.tobytes()
    assert memoryview(payload).readonly


def test_a_long_vector_becomes_a_payload_where_it_is_and_a_part_of_one_does_not() -> None:
    whole = vector(COUNT)
    assert np.shares_memory(np.frombuffer(encode_vector(whole, LAYOUT), np.uint8), whole)
    part = vector(COUNT + 1)[1:]
    before = part.copy()
    payload = encode_vector(part, LAYOUT)
    assert not np.shares_memory(np.frombuffer(payload, np.uint8), part)
    assert decode_vector(payload, LAYOUT, COUNT).tobytes() == before.tobytes()


def test_means_of_mapped_payloads_are_those_of_payloads_in_memory() -> None:
    rows = [np.random.default_rng(seed).normal(size=COUNT).astype(np.float32) for seed in range(3)]
    payloads = [encode_vector(row, LAYOUT) for row in rows]
    with tempfile.TemporaryFile() as file:
        file.write(b"".join(payloads))
        file.flush()
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    size = len(payloads[0])
    views = [mapped[at * size : (at + 1) * size] for at in range(3)]
    decoded = [decode_vector(view, LAYOUT, COUNT) for view in views]  # type: ignore[arg-type]
    release(decoded[0])
    weights, digests = [1, 2, 3], [b"a", b"b", b"c"]
    expected = weighted_mean(rows, weights, digests)
    assert weighted_mean(decoded, weights, digests).tobytes() == expected.tobytes()
