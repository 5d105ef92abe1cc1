"""A payload's name commits to its codec, its length and every byte."""

import hashlib

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from ledger.canonical import encode
from ledger.errors import PeerError
from swarm.protocol.payload import (
    CHUNK_BYTES,
    OversizedError,
    check_chunk,
    chunk_count,
    manifest_of,
    open_manifest,
    payload_digest,
)

BIG = bytes(range(256)) * (5 * CHUNK_BYTES // 512)  # two chunks and a half


def test_the_digest_is_the_written_formula() -> None:
    chunks = [BIG[:CHUNK_BYTES], BIG[CHUNK_BYTES : 2 * CHUNK_BYTES], BIG[2 * CHUNK_BYTES :]]
    preimage = (
        b"swarm/payload/v1\n"
        + (1).to_bytes(2, "big")
        + len(BIG).to_bytes(8, "big")
        + b"".join(blake3(chunk).digest() for chunk in chunks)
    )
    assert payload_digest(1, BIG) == hashlib.sha256(preimage).digest()


@given(st.binary(max_size=100), st.binary(max_size=100), st.integers(0, 9), st.integers(0, 9))
def test_other_bytes_or_another_codec_is_another_name(a: bytes, b: bytes, x: int, y: int) -> None:
    assert (payload_digest(x, a) == payload_digest(y, b)) == ((x, a) == (y, b))


@pytest.mark.parametrize("length", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1])
def test_a_manifest_comes_back_at_every_chunk_border(length: int) -> None:
    manifest = manifest_of(1, bytes(length))
    assert len(manifest.chunks) == chunk_count(length)
    opened = open_manifest(
        manifest.to_bytes(), digest=manifest.digest, payload_bytes_max=2 * CHUNK_BYTES
    )
    assert opened == manifest


def test_a_manifest_of_another_payload_is_the_sources_lie() -> None:
    real, other = manifest_of(1, b"real"), manifest_of(1, b"other")
    with pytest.raises(PeerError, match="does not match"):
        open_manifest(other.to_bytes(), digest=real.digest, payload_bytes_max=100)


def test_a_true_manifest_of_too_much_is_the_authors_lie() -> None:
    manifest = manifest_of(1, BIG)
    with pytest.raises(OversizedError):
        open_manifest(manifest.to_bytes(), digest=manifest.digest, payload_bytes_max=len(BIG) - 1)


def test_a_lie_about_size_alone_is_the_sources() -> None:
    """Nobody gets an honest author refused by claiming that his payload is huge."""
    manifest = manifest_of(1, BIG)
    huge = encode([1, 1 << 40, b"".join(manifest.chunks)])
    with pytest.raises(PeerError) as raised:
        open_manifest(huge, digest=manifest.digest, payload_bytes_max=len(BIG))
    assert not isinstance(raised.value, OversizedError)


@given(st.binary(max_size=200))
def test_no_bytes_but_the_manifest_open(data: bytes) -> None:
    manifest = manifest_of(1, b"real")
    if data != manifest.to_bytes():
        with pytest.raises(PeerError):
            open_manifest(data, digest=manifest.digest, payload_bytes_max=100)


def test_a_flipped_bit_a_cut_and_a_swap_of_chunks_are_found() -> None:
    manifest = manifest_of(1, BIG)
    chunks = [BIG[at : at + CHUNK_BYTES] for at in range(0, len(BIG), CHUNK_BYTES)]
    for index, chunk in enumerate(chunks):
        check_chunk(manifest, index, chunk)
        flipped = bytes([chunk[0] ^ 1]) + chunk[1:]
        for wrong in (flipped, chunk[:-1], chunk + b"\0", b""):
            with pytest.raises(PeerError, match=f"chunk {index}"):
                check_chunk(manifest, index, wrong)
    with pytest.raises(PeerError):
        check_chunk(manifest, 2, chunks[1])
