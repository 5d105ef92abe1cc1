import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ledger.errors import PeerError
from ledger.record import Codec, Reason
from swarm.learning.moments import Moments, local_moments
from swarm.learning.payload import (
    HEADER,
    PayloadError,
    decode_moments,
    decode_vector,
    encode_moments,
    encode_vector,
    payload_bytes,
)

LAYOUT = bytes(range(32))
VECTOR = np.arange(5, dtype=np.float32)
PAYLOAD = encode_vector(VECTOR, LAYOUT)

vectors = arrays(
    np.float32,
    st.integers(0, 50),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


@given(vectors)
def test_a_vector_has_one_encoding_and_comes_back(vector: np.ndarray) -> None:
    payload = encode_vector(vector, LAYOUT)
    assert len(payload) == payload_bytes(Codec.FLOAT32, vector.size)
    back = decode_vector(payload, LAYOUT, vector.size)
    assert back.tobytes() == vector.tobytes()
    assert encode_vector(back, LAYOUT) == payload


@given(st.integers(0, HEADER.size - 1), st.integers(1, 255))
def test_no_bit_of_the_header_can_change_unnoticed(at: int, flip: int) -> None:
    forged = bytearray(PAYLOAD)
    forged[at] ^= flip
    with pytest.raises(PayloadError) as caught:
        decode_vector(bytes(forged), LAYOUT, 5)
    assert caught.value.reason == Reason.BAD_SHAPE


@given(st.binary(max_size=200))
def test_whatever_a_peer_sends_is_refused_as_the_peers_fault(junk: bytes) -> None:
    with pytest.raises(PeerError):
        decode_vector(junk, LAYOUT, 5)
    with pytest.raises(PeerError):
        decode_moments(junk, LAYOUT, 2)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", Reason.BAD_SHAPE),
        (PAYLOAD[:-1], Reason.BAD_SHAPE),
        (PAYLOAD + b"\0", Reason.TOO_LARGE),
        (encode_vector(VECTOR, bytes(32)), Reason.BAD_SHAPE),
        (encode_vector(np.float32([1, 2, 3, 4, np.nan]), LAYOUT), Reason.NOT_FINITE),
        (encode_vector(np.float32([1, 2, 3, 4, -np.inf]), LAYOUT), Reason.NOT_FINITE),
    ],
)
def test_each_refusal_has_its_reason(payload: bytes, reason: Reason) -> None:
    with pytest.raises(PayloadError) as caught:
        decode_vector(payload, LAYOUT, 5)
    assert caught.value.reason == reason


def test_moments_come_back_exactly() -> None:
    moments = local_moments(np.array([[1 / 3, np.nan], [2 / 3, np.nan]]))
    payload = encode_moments(moments, LAYOUT)
    assert decode_moments(payload, LAYOUT, 2).to_vector().tobytes() == moments.to_vector().tobytes()


def test_moments_are_no_model_and_a_model_is_no_moments() -> None:
    with pytest.raises(PayloadError):
        decode_moments(encode_vector(np.zeros(12, np.float32), LAYOUT), LAYOUT, 2)
    moments = local_moments(np.zeros((3, 2)))
    with pytest.raises(PayloadError):
        decode_vector(encode_moments(moments, LAYOUT), LAYOUT, 12)


def test_moments_that_no_patients_have_are_refused() -> None:
    forged = Moments(np.array([-1.0]), np.zeros(1), np.zeros(1))
    with pytest.raises(PayloadError) as caught:
        decode_moments(encode_moments(forged, LAYOUT), LAYOUT, 1)
    assert caught.value.reason == Reason.BAD_SHAPE


def test_numbers_are_little_endian_on_every_machine() -> None:
    assert encode_vector(np.float32([1.0]), LAYOUT).endswith(b"\x00\x00\x80\x3f")
