"""What libp2p's own code takes before it knows who speaks: Ed25519 keys, and few and short lines."""

import io
import secrets

import pytest
import trio
from Crypto.Util.asn1 import DerSequence
from libp2p.crypto import rsa
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.exceptions import MissingDeserializerError
from libp2p.crypto.keys import PublicKey
from libp2p.crypto.pb import crypto_pb2
from libp2p.crypto.secp256k1 import create_new_key_pair as secp256k1_key_pair
from libp2p.crypto.serialization import deserialize_public_key
from libp2p.crypto.x25519 import create_new_key_pair as x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.io.abc import ReadWriteCloser
from libp2p.peer.id import ID
from libp2p.protocol_muxer.exceptions import (
    MultiselectClientError,
    MultiselectCommunicatorError,
    MultiselectError,
)
from libp2p.protocol_muxer.generic_selector import GenericMultistreamSelector
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.utils.varint import encode_uvarint, encode_varint_prefixed
from network_swarm import seeds

from node.libp2p.gate import STOCK_NOISE, offered
from node.libp2p.narrowed import LINE_BYTES_MAX, LINES_MAX
from node.libp2p.wire import STRANGER_BYTES_MAX, Wire

GREETING = b"\x13/multistream/1.0.0\n"
NAME = TProtocol("/one/1")
OURS = create_new_key_pair(seeds(1)[0])
NOISE = offered(OURS, lambda _: True)[STOCK_NOISE]


class Said(ReadWriteCloser):
    """The other end, which has said all that it will."""

    def __init__(self, said: bytes) -> None:
        self.unread, self.answered, self.asked_bytes_max = io.BytesIO(said), b"", 0

    async def read(self, n: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        assert n is not None
        self.asked_bytes_max = max(self.asked_bytes_max, n)
        return self.unread.read(n)

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.answered += data

    async def close(self) -> None: ...

    def get_remote_address(self) -> None: ...


async def agreed(said: Said, *, is_initiator: bool) -> TProtocol:
    selector = GenericMultistreamSelector[None]()
    selector.add_handler(NAME, None)
    protocol, _ = await selector.select(said, is_initiator)
    return protocol


def key_of_another_kind(kind: int) -> bytes:
    if kind == crypto_pb2.Secp256k1:
        return secp256k1_key_pair().public_key.serialize()
    der = DerSequence([secrets.randbits(8 * 15_300) | 1, 65537]).encode()  # parsed for 0.6 s
    return crypto_pb2.PublicKey(key_type=crypto_pb2.RSA, data=der).SerializeToString()


@pytest.mark.parametrize("kind", [crypto_pb2.RSA, crypto_pb2.Secp256k1])
def test_a_key_that_is_not_ed25519_is_not_parsed(kind: int) -> None:
    with pytest.raises(MissingDeserializerError):
        deserialize_public_key(key_of_another_kind(kind))
    read: PublicKey = deserialize_public_key(OURS.public_key.serialize())
    assert read == OURS.public_key


async def test_a_stranger_with_an_rsa_key_is_refused_unread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stranger = NoiseTransport(
        rsa.create_new_key_pair(2048), noise_privkey=x25519_key_pair().private_key
    )
    parsed: list[bytes] = []
    monkeypatch.setattr("libp2p.crypto.rsa.RSA.import_key", parsed.append)
    one, other = map(trio.SocketStream, trio.socket.socketpair())
    async with one, other, trio.open_nursery() as nursery:
        called = ID.from_pubkey(OURS.public_key)
        nursery.start_soon(stranger.secure_outbound, Wire(one, is_initiator=True), called)
        with pytest.raises(Exception, match="Failed to deserialize public key"):
            await NOISE.secure_inbound(Wire(other, is_initiator=False))
    assert not parsed


@pytest.mark.parametrize("is_initiator", [False, True])
@pytest.mark.parametrize("promised", [LINE_BYTES_MAX + 1, 2**62])
async def test_a_long_line_of_a_negotiation_is_refused_when_it_is_announced(
    promised: int, *, is_initiator: bool
) -> None:
    said = Said(GREETING + encode_uvarint(promised) + bytes(2 * LINE_BYTES_MAX))
    with pytest.raises((MultiselectError, MultiselectClientError)) as raised:
        await agreed(said, is_initiator=is_initiator)
    assert isinstance(raised.value.__cause__, MultiselectCommunicatorError)
    assert said.asked_bytes_max <= LINE_BYTES_MAX


@pytest.mark.parametrize("line", [b"\xff\xfe\n", b"no end", b""])
async def test_what_is_no_line_ends_a_negotiation(line: bytes) -> None:
    said = Said(GREETING + encode_varint_prefixed(line))
    with pytest.raises(MultiselectError) as raised:
        await agreed(said, is_initiator=False)
    assert isinstance(raised.value.__cause__, MultiselectCommunicatorError)


async def test_a_list_of_unknown_names_is_answered_up_to_a_bound() -> None:
    said = Said(GREETING + b"\x01\n" * (STRANGER_BYTES_MAX // 2))
    with pytest.raises(MultiselectError) as raised:
        await agreed(said, is_initiator=False)
    assert isinstance(raised.value.__cause__, MultiselectCommunicatorError)
    assert said.answered == GREETING + b"\x03na\n" * (LINES_MAX - 1)


async def test_who_proposes_eight_names_of_any_length_is_still_understood() -> None:
    longest = encode_varint_prefixed(b"x" * (LINE_BYTES_MAX - 1) + b"\n")
    after = bytes(2 * LINE_BYTES_MAX)
    said = Said(GREETING + longest * 8 + encode_varint_prefixed(b"/one/1\n") + after)
    assert await agreed(said, is_initiator=False) == NAME
    assert said.unread.read() == after
