"""Whatever bytes a peer sends about checkpoints: a message, or a PeerError."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.canonical import encode
from ledger.errors import PeerError
from swarm.protocol.checkpoints import (
    CosignRequest,
    CosignStatus,
    ShareRequest,
    decode_cosign_reply,
    decode_request,
    decode_share_reply,
    encode_cosign_reply,
    encode_cosign_request,
    encode_share_reply,
    encode_share_request,
)
from swarm.protocol.messages import RECORDS_BYTES_MAX

DECODERS = [decode_request, decode_cosign_reply, decode_share_reply]

uints = st.integers(0, 2**53 - 1)
notes = st.lists(st.binary(max_size=200), max_size=20).map(tuple)
sizes = st.dictionaries(st.tuples(st.integers(0, 65_535), st.integers(0, 9)), uints, max_size=20)
values = st.recursive(
    uints | st.binary(max_size=40), lambda inner: st.lists(inner, max_size=6), max_leaves=30
)


@given(st.binary(max_size=300))
def test_a_request_for_a_cosignature_comes_back(note: bytes) -> None:
    assert decode_request(encode_cosign_request(note)) == CosignRequest(note)


@given(sizes, notes)
def test_what_is_shared_comes_back(
    held: dict[tuple[int, int], int], sent: tuple[bytes, ...]
) -> None:
    assert decode_request(encode_share_request(held, sent)) == ShareRequest(held, sent)
    assert decode_share_reply(encode_share_reply(sent)) == sent


def test_a_witness_s_answer_comes_back() -> None:
    assert decode_cosign_reply(encode_cosign_reply(CosignStatus.COSIGNED, b"line")) == b"line"
    assert decode_cosign_reply(encode_cosign_reply(CosignStatus.BEHIND)) is None


@pytest.mark.parametrize(
    "answer",
    [
        encode_cosign_reply(CosignStatus.COSIGNED),
        encode_cosign_reply(CosignStatus.BEHIND, b"line"),
        encode([1, 2, b"line"]),
    ],
)
def test_an_answer_that_says_two_things_is_refused(answer: bytes) -> None:
    with pytest.raises(PeerError):
        decode_cosign_reply(answer)


def test_no_message_grows_beyond_the_limit() -> None:
    many = [bytes(60_000)] * 40
    assert len(encode_share_reply(many)) <= RECORDS_BYTES_MAX + 1_000
    assert len(decode_share_reply(encode_share_reply(many))) == 15


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_peers_fault(data: bytes) -> None:
    for decode in DECODERS:
        with contextlib.suppress(PeerError):
            decode(data)


@given(st.lists(values, max_size=6), st.sampled_from([0, 1, 2]))
def test_no_value_of_another_shape_raises_anything_but_a_peers_fault(
    rest: list[object], version: int
) -> None:
    data = encode([version, *rest])  # type: ignore[list-item]
    for decode in DECODERS:
        try:
            decode(data)
        except PeerError:
            continue
        assert version == 1
