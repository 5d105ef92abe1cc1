"""Compressed updates: nothing hostile gets through, error feedback loses nothing, sizes are real."""

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from swarm.learning.codecs import (
    CODECS,
    Residual,
    TopK,
    codec_of,
    decode_update,
    encode_update,
)
from swarm.learning.packing import (
    ascending_bytes,
    pack_ascending,
    pack_digits,
    unpack_ascending,
    unpack_digits,
)

NAMES = list(CODECS)
UPDATES = hnp.arrays(
    np.float32,
    st.integers(1, 3000),
    elements=st.floats(-(2.0**40), 2.0**40, width=32),
    fill=st.just(np.float32(0)),
)


def update_of(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(3, count).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(update=UPDATES)
def test_what_is_written_can_be_read_and_is_never_longer_than_said(
    name: str, update: np.ndarray
) -> None:
    codec = CODECS[name]
    body = encode_update(codec, update)
    assert len(body) <= 1 + codec.bytes_max(update.size)
    seen = decode_update(codec, body, update.size)
    assert seen.dtype == np.float32
    assert seen.shape == update.shape
    assert np.isfinite(seen).all()
    # What the readers see is a fixed point: it says the same when it is written again.
    if name not in ("ternary", "sign"):
        again = decode_update(codec, encode_update(codec, seen), update.size)
        np.testing.assert_allclose(again, seen, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "error_max"),
    [("float16", 1e-3), ("int8", 0.03), ("int4", 0.5), ("ternary", 0.85), ("sign", 1.0)],
)
def test_a_dense_codec_keeps_most_of_an_update(name: str, error_max: float) -> None:
    update = np.random.default_rng(1).normal(size=50_000).astype(np.float32)
    seen = decode_update(CODECS[name], encode_update(CODECS[name], update), update.size)
    assert np.linalg.norm(seen - update) / np.linalg.norm(update) < error_max


@pytest.mark.parametrize(
    ("name", "ratio_min"),
    [("float16", 2), ("int8", 3.9), ("int4", 7.8), ("ternary", 19), ("sign", 30), ("top_k", 75),
     ("top_k_int8", 150)],
)  # fmt: skip
def test_real_bytes_of_a_million_values(name: str, ratio_min: float) -> None:
    update = update_of(2, 1_000_000)
    assert 4 * update.size / len(encode_update(CODECS[name], update)) >= ratio_min


@pytest.mark.parametrize("name", NAMES)
def test_error_feedback_delivers_everything_in_the_end(name: str) -> None:
    """The sum of what readers saw and of what is still lost is the sum of all updates."""
    codec = codec_of(name, keep_micro=50_000)
    residual, seen_sum = Residual.none(400), np.zeros(400)
    updates = [update_of(seed, 400) for seed in range(60)]
    for update in updates:
        _, seen, residual = residual.compress(codec, update)
        seen_sum += seen
    wanted = np.sum(updates, axis=0, dtype=np.float64)
    np.testing.assert_allclose(seen_sum + residual.lost, wanted, atol=1e-2)
    assert np.linalg.norm(residual.lost) < 0.7 * np.linalg.norm(wanted) + 60


@pytest.mark.parametrize("name", ["int4", "top_k", "top_k_int8"])
def test_without_error_feedback_the_same_bytes_miss_the_target(name: str) -> None:
    """Repeating one update: with feedback the mean of what is seen tends to it, without it never does."""
    codec, update = codec_of(name, keep_micro=20_000), update_of(7, 500)
    residual, fed, plain, turns = Residual.none(500), np.zeros(500), np.zeros(500), 200
    for _ in range(turns):
        _, seen, residual = residual.compress(codec, update)
        fed += seen
        plain += decode_update(codec, encode_update(codec, update), 500)
    missed_with = np.linalg.norm(fed / turns - update)
    missed_without = np.linalg.norm(plain / turns - update)
    assert missed_with < missed_without / 2


def test_an_update_that_was_left_out_comes_back() -> None:
    update = update_of(3, 300)
    _, seen, residual = Residual.none(300).compress(CODECS["top_k"], update)
    np.testing.assert_allclose(residual.unsent(seen).lost, update, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=400), count=st.integers(1, 2000))
def test_random_bytes_are_refused_or_are_a_finite_update(
    name: str, data: bytes, count: int
) -> None:
    try:
        seen = decode_update(CODECS[name], data, count)
    except ValueError:
        return
    assert np.isfinite(seen).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_cut_and_every_extra_byte_is_refused(name: str) -> None:
    codec, update = CODECS[name], update_of(4, 64)
    packed = codec.pack(update)
    for length in range(len(packed)):
        with pytest.raises(ValueError, match=r"bytes|numbers|digits"):
            decode_update(codec, b"\x00" + packed[:length], update.size)
    with pytest.raises(ValueError, match=r"bytes|numbers|digits"):
        decode_update(codec, b"\x00" + packed + b"\x00", update.size)


def test_nothing_may_follow_what_was_compressed() -> None:
    update = np.zeros(5_000, dtype=np.float32)
    body = encode_update(CODECS["int8"], update)
    assert body[:1] == b"\x01"
    for more in (b"x", b"\x00" * 9, b"another payload"):
        with pytest.raises(ValueError, match=r"does not unpack|not what"):
            decode_update(CODECS["int8"], body + more, update.size)


def test_a_zstd_bomb_is_not_unpacked() -> None:
    bomb = b"\x01" + zstandard.ZstdCompressor().compress(bytes(1 << 28))
    with pytest.raises(ValueError, match="not what its codec writes"):
        decode_update(CODECS["int8"], bomb, 1000)


def test_ties_go_to_the_lower_index_and_the_count_is_kept() -> None:
    update = np.ones(1000, dtype=np.float32)
    seen = decode_update(TopK(), encode_update(TopK(), update), 1000)
    assert np.flatnonzero(seen).tolist() == list(range(10))


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 5000).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1))))
)
def test_ascending_numbers_have_one_spelling(case: tuple[int, set[int]]) -> None:
    limit, chosen = case
    numbers = np.array(sorted(chosen), dtype=np.int64)
    data = pack_ascending(numbers, limit)
    assert len(data) == ascending_bytes(numbers.size, limit)
    assert unpack_ascending(data, numbers.size, limit).tolist() == numbers.tolist()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 40), st.integers(0, 300))
def test_whatever_reads_as_ascending_numbers_is_their_spelling(
    data: bytes, count: int, limit: int
) -> None:
    try:
        numbers = unpack_ascending(data, count, limit)
    except ValueError:
        return
    assert pack_ascending(numbers, limit) == data


@given(st.lists(st.integers(0, 2), max_size=40))
def test_digits_come_back(digits: list[int]) -> None:
    data = pack_digits(np.array(digits, dtype=np.int64), base=3, digits_a_byte=5)
    assert unpack_digits(data, len(digits), base=3, digits_a_byte=5).tolist() == digits


def test_an_unknown_codec_names_those_there_are() -> None:
    with pytest.raises(ValueError, match="top_k_int8"):
        codec_of("zip")
