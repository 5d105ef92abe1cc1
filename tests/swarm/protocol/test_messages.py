"""Whatever bytes a peer sends: a message, or a PeerError."""

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.canonical import Value, encode
from ledger.canonical import decode as read_value
from ledger.errors import PeerError
from swarm.protocol.checkpoints import (
    CosignRequest,
    CosignStatus,
    decode_cosign_reply,
    decode_request,
    decode_share_reply,
    encode_cosign_reply,
    encode_cosign_request,
    encode_share_reply,
)
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
from swarm.protocol.reach import Reach, Sight, decode_reach, encode_reach
from swarm.protocol.rosters import (
    decode_roster_reply,
    decode_roster_request,
    encode_roster_reply,
    encode_roster_request,
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
    roster=uints,
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


def with_more(data: bytes, *more: Value) -> bytes:
    """The same message from a newer node, which says more at the end."""
    value = read_value(data, bytes_max=1 << 20)
    assert isinstance(value, list)
    return encode([*value, *more])


@pytest.mark.parametrize("more", [(7,), (b"new",), ([1, [b"x"]], 0)])
def test_what_a_newer_node_adds_at_the_end_is_passed_over(more: tuple[Value, ...]) -> None:
    head = Head(3, bytes(32))
    hello = Hello(heads={(0, 0): head}, round=1, phase=2, time_ms=3)
    reply = SyncReply(hello=hello, envelopes=(b"a",))
    request = FetchRequest(digest=bytes(32), part=Part.CHUNK, index=4)
    roster, updates = bytes(32), (b"u",)
    reach = Reach(sights={0: Sight(0)}, carries=True, sequences={}, records=())
    pairs: list[tuple[Callable[[bytes], object], bytes, object]] = [
        (decode_gossip, encode_gossip([b"a"]), (b"a",)),
        (decode_sync_request, encode_sync_request(hello), hello),
        (decode_sync_reply, encode_sync_reply(reply), reply),
        (decode_fetch_request, encode_fetch_request(request), request),
        (decode_roster_request, encode_roster_request(roster), roster),
        (decode_roster_reply, encode_roster_reply(updates), updates),
        (decode_request, encode_cosign_request(b"n"), CosignRequest(b"n")),
        (decode_cosign_reply, encode_cosign_reply(CosignStatus.COSIGNED, b"line"), b"line"),
        (decode_share_reply, encode_share_reply([b"n"]), (b"n",)),
        (decode_reach, encode_reach(reach), reach),
    ]
    for read, data, meaning in pairs:
        assert read(data) == meaning
        assert read(with_more(data, *more)) == meaning, read
    value = read_value(encode_sync_reply(reply), bytes_max=1 << 20)
    assert isinstance(value, list)
    assert isinstance(value[1], list)
    grown = encode([value[0], [*value[1], *more], *value[2:]])
    assert decode_sync_reply(grown) == reply, "the hello inside grows in the same way"


def test_a_hello_of_minor_version_0_says_nothing_of_rosters() -> None:
    hello = Hello(heads={}, round=1, phase=2, time_ms=3, roster=4)
    value = read_value(encode_sync_request(hello), bytes_max=1 << 10)
    assert isinstance(value, list)
    assert decode_sync_request(encode(value[:-1])).roster == 0


def test_another_major_version_is_refused_and_not_guessed_at() -> None:
    for read in DECODERS:
        if read is not decode_fetch_reply:
            with pytest.raises(PeerError):
                read(encode([2, [], 0, 0, 0]))
