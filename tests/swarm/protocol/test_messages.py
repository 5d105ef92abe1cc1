"""Whatever bytes a peer sends: a message, or a PeerError."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.canonical import encode
from ledger.errors import PeerError
from swarm.protocol.messages import (
    HEADS_MAX,
    FetchRequest,
    FetchStatus,
    Head,
    Hello,
    Part,
    SyncReply,
    decode_fetch_reply,
    decode_fetch_request,
    decode_gossip,
    decode_sync_reply,
    decode_sync_request,
    encode_fetch_reply,
    encode_fetch_request,
    encode_gossip,
    encode_sync_reply,
    encode_sync_request,
)

DECODERS = [
    decode_gossip,
    decode_sync_request,
    decode_sync_reply,
    decode_fetch_request,
    decode_fetch_reply,
]

uints = st.integers(0, 2**53 - 1)
hellos = st.builds(
    Hello,
    heads=st.dictionaries(
        st.tuples(st.integers(0, 65_535), st.integers(0, 9)),
        st.builds(Head, st.integers(1, 2**53 - 1), st.binary(min_size=32, max_size=32)),
        max_size=20,
    ),
    round=uints,
    phase=uints,
    time_ms=uints,
)
envelopes = st.lists(st.binary(max_size=200), max_size=20).map(tuple)
values = st.recursive(
    uints | st.binary(max_size=40), lambda inner: st.lists(inner, max_size=6), max_leaves=30
)


@given(envelopes)
def test_gossip_comes_back(sent: tuple[bytes, ...]) -> None:
    assert decode_gossip(encode_gossip(sent)) == sent


@given(hellos, envelopes)
def test_a_sync_comes_back(hello: Hello, sent: tuple[bytes, ...]) -> None:
    assert decode_sync_request(encode_sync_request(hello)) == hello
    reply = SyncReply(hello=hello, envelopes=sent)
    assert decode_sync_reply(encode_sync_reply(reply)) == reply


@given(st.binary(min_size=32, max_size=32), st.sampled_from(Part), uints)
def test_a_fetch_request_comes_back(digest: bytes, part: Part, index: int) -> None:
    request = FetchRequest(digest=digest, part=part, index=index)
    assert decode_fetch_request(encode_fetch_request(request)) == request


@given(st.sampled_from(FetchStatus), st.binary(max_size=100))
def test_a_fetch_reply_comes_back(status: FetchStatus, body: bytes) -> None:
    assert decode_fetch_reply(encode_fetch_reply(status, body)) == (status, body)


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
        assert version == 1 or decode is decode_fetch_reply


@pytest.mark.parametrize("decode", DECODERS)
def test_nothing_and_another_version_are_refused(decode: object) -> None:
    with pytest.raises(PeerError):
        decode(b"")  # type: ignore[operator]
    if decode is not decode_fetch_reply:
        with pytest.raises(PeerError, match="version 1"):
            decode(encode([2, []]))  # type: ignore[operator]


def test_a_message_of_more_than_a_mebibyte_is_refused_unread() -> None:
    with pytest.raises(PeerError, match="E_SIZE"):
        decode_gossip(bytes((1 << 20) + 1))


def test_more_heads_than_any_roster_has_are_refused() -> None:
    heads = [[author, 0, 1] for author in range(HEADS_MAX + 1)]
    with pytest.raises(PeerError):
        decode_sync_request(encode_unchecked([1, heads, 0, 0, 0]))


def encode_unchecked(value: list[object]) -> bytes:
    import msgpack

    data: bytes = msgpack.packb(value)
    return data
