"""A sealed box is what docs/wire.md §9 says, byte for byte, and nothing else opens."""

import hashlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt as decrypt,
)
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_encrypt as encrypt,
)
from nacl.bindings import (
    crypto_scalarmult,
    crypto_scalarmult_base,
    crypto_sign_ed25519_pk_to_curve25519,
    crypto_sign_ed25519_sk_to_curve25519,
    crypto_sign_seed_keypair,
)

from ledger.errors import ConfigError, PeerError
from node.sealed import NO_SESSION, OVERHEAD_BYTES_MAX, Asked, Sealer, label_of

NET = bytes(range(32))
SEEDS = [bytes([n + 1]) * 32 for n in range(3)]
KEYS = [crypto_sign_seed_keypair(seed) for seed in SEEDS]
PUBLIC = {index: public for index, (public, _) in enumerate(KEYS)}


def sealer(own: int, *, net: bytes = NET) -> Sealer:
    return Sealer(own=own, network_seed=SEEDS[own], keys=PUBLIC, net=net)


def asked(body: bytes = b"body", **changed: object) -> Asked:
    parts: dict[str, object] = {
        "session": b"S" * 16,
        "sequence": 7,
        "protocol": "/swarm/fetch/1",
        "reply_bytes_max": 1000,
        "body": body,
    }
    return Asked(**(parts | changed))  # type: ignore[arg-type]


def blake(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()


def test_the_bytes_are_those_of_the_document() -> None:
    """Open a request and seal its reply by hand, from the page alone."""
    box, exchange = sealer(0).seal_request(1, asked())
    opening, sealed = box[:85], box[85:]
    version, origin, target = struct.unpack(">BHH", opening[:5])
    session, sequence = opening[5:21], int.from_bytes(opening[21:29])
    ephemeral, nonce = opening[29:61], opening[61:85]
    assert (version, origin, target, session, sequence) == (1, 0, 1, b"S" * 16, 7)

    x0 = crypto_sign_ed25519_pk_to_curve25519(PUBLIC[0])
    secret1 = crypto_sign_ed25519_sk_to_curve25519(KEYS[1][1])
    es, ss = crypto_scalarmult(secret1, ephemeral), crypto_scalarmult(secret1, x0)
    domain = b"swarm/forward/request/v1\n"
    key = blake(domain + es + ss + PUBLIC[0] + PUBLIC[1] + NET + opening)
    plain = decrypt(sealed, domain + NET + opening, nonce, key)
    assert plain == b"\x0e/swarm/fetch/1" + struct.pack(">I", 1000) + b"body"

    own, reply_nonce = b"e" * 32, b"n" * 24
    reply_opening = b"\x01" + crypto_scalarmult_base(own) + reply_nonce
    ee, se = crypto_scalarmult(own, ephemeral), crypto_scalarmult(own, x0)
    domain = b"swarm/forward/reply/v1\n"
    reply_key = blake(domain + ee + se + key + reply_opening)
    context = domain + NET + opening + reply_opening
    reply = reply_opening + encrypt(b"\x00answer", context, reply_nonce, reply_key)
    assert sealer(0).open_reply(exchange, reply) == (0, b"answer")


@given(body=st.binary(max_size=2000), answer=st.binary(max_size=2000), status=st.integers(0, 255))
@settings(max_examples=30, deadline=None)
def test_what_is_sealed_is_opened(body: bytes, answer: bytes, status: int) -> None:
    box, exchange = sealer(0).seal_request(1, asked(body))
    assert len(box) <= len(body) + OVERHEAD_BYTES_MAX
    assert (label_of(box).origin, label_of(box).target) == (0, 1)
    opened, theirs = sealer(1).open_request(box)
    assert opened == asked(body)
    assert sealer(0).open_reply(exchange, sealer(1).seal_reply(theirs, status, answer)) == (
        status,
        answer,
    )


@given(where=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_no_bit_can_be_changed(where: int, bit: int) -> None:
    box, exchange = sealer(0).seal_request(1, asked())
    with pytest.raises(PeerError):
        sealer(1).open_request(_flipped(box, where, bit))
    _, theirs = sealer(1).open_request(box)
    reply = sealer(1).seal_reply(theirs, 0, b"answer")
    with pytest.raises(PeerError):
        sealer(0).open_reply(exchange, _flipped(reply, where, bit))


def _flipped(data: bytes, where: int, bit: int) -> bytes:
    changed = bytearray(data)
    changed[where % len(data)] ^= 1 << bit
    return bytes(changed)


@pytest.mark.parametrize("length", [0, 1, 84, 100])
def test_a_box_that_is_cut_off_is_none(length: int) -> None:
    box, exchange = sealer(0).seal_request(1, asked())
    with pytest.raises(PeerError):
        sealer(1).open_request(box[:length])
    with pytest.raises(PeerError):
        sealer(0).open_reply(exchange, box[:length])


def test_neither_a_carrier_nor_another_federation_opens_it() -> None:
    box, _ = sealer(0).seal_request(1, asked())
    for other in (sealer(2), sealer(0), sealer(1, net=bytes(32))):
        with pytest.raises(PeerError):
            other.open_request(box)


def test_a_reply_fits_one_request_only() -> None:
    first, exchange = sealer(0).seal_request(1, asked())
    _, other = sealer(0).seal_request(1, asked())
    _, theirs = sealer(1).open_request(first)
    reply = sealer(1).seal_reply(theirs, 0, b"answer")
    assert sealer(0).open_reply(exchange, reply) == (0, b"answer")
    with pytest.raises(PeerError):
        sealer(0).open_reply(other, reply)


def test_keys_of_low_order_are_refused() -> None:
    box, exchange = sealer(0).seal_request(1, asked())
    with pytest.raises(PeerError, match="low order"):
        sealer(1).open_request(box[:29] + bytes(32) + box[61:])
    with pytest.raises(PeerError, match="low order"):
        sealer(0).open_reply(exchange, b"\x01" + bytes(32) + bytes(60))
    with pytest.raises(ConfigError, match="not an Ed25519 key"):
        Sealer(own=0, network_seed=SEEDS[0], keys={1: bytes(32)}, net=NET)


@pytest.mark.parametrize("protocol", ["", "ü", "/swarm/" + "x" * 60])
def test_a_member_that_seals_nonsense_is_refused(protocol: str) -> None:
    with pytest.raises((PeerError, ValueError)):
        box, _ = sealer(0).seal_request(1, asked(protocol=protocol))
        sealer(1).open_request(box)


def test_no_secret_shows_in_a_repr() -> None:
    box, exchange = sealer(0).seal_request(1, asked(b"secret", session=NO_SESSION))
    opened, theirs = sealer(1).open_request(box)
    assert "secret" not in f"{opened!r}"
    for one in (exchange, theirs):
        assert repr(one) == f"Exchange(origin={one.origin}, target={one.target})"
