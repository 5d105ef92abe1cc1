"""A download accepts exactly the right bytes, from whoever brings them."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import PeerError
from swarm.protocol.fetch import Download
from swarm.protocol.messages import Part
from swarm.protocol.payload import CHUNK_BYTES, manifest_of

PAYLOAD = bytes(range(251)) * 9_000  # two chunks and a bit
MANIFEST = manifest_of(1, PAYLOAD)
CHUNKS = [PAYLOAD[at : at + CHUNK_BYTES] for at in range(0, len(PAYLOAD), CHUNK_BYTES)]


def download() -> Download:
    return Download(MANIFEST.digest, payload_bytes_max=len(PAYLOAD))


def test_the_manifest_comes_first_and_the_chunks_in_order() -> None:
    incoming = download()
    asked = []
    for answer in [MANIFEST.to_bytes(), *CHUNKS]:
        request = incoming.next_request()
        asked.append((request.part, request.index))
        assert not incoming.is_complete
        incoming.receive(answer)
    assert asked == [(Part.MANIFEST, 0), (Part.CHUNK, 0), (Part.CHUNK, 1), (Part.CHUNK, 2)]
    assert incoming.is_complete
    assert incoming.payload() == PAYLOAD
    assert incoming.codec == 1
    assert incoming.bytes_held == len(PAYLOAD)


def test_a_wrong_answer_keeps_nothing_and_the_next_source_goes_on_from_there() -> None:
    incoming = download()
    incoming.receive(MANIFEST.to_bytes())
    incoming.receive(CHUNKS[0])
    with pytest.raises(PeerError):
        incoming.receive(CHUNKS[2])
    assert incoming.bytes_held == CHUNK_BYTES
    assert incoming.next_request().index == 1
    incoming.receive(CHUNKS[1])
    incoming.receive(CHUNKS[2])
    assert incoming.payload() == PAYLOAD


@given(st.lists(st.sampled_from([MANIFEST.to_bytes(), *CHUNKS, b"", b"junk"]), max_size=8))
def test_any_answers_lead_to_the_right_payload_or_to_none(answers: list[bytes]) -> None:
    incoming = download()
    for answer in answers:
        if incoming.is_complete:
            break
        with contextlib.suppress(PeerError):
            incoming.receive(answer)
    if incoming.is_complete:
        assert incoming.payload() == PAYLOAD
    else:
        with pytest.raises(PeerError):
            incoming.payload()


def test_an_empty_payload_is_complete_with_its_manifest() -> None:
    manifest = manifest_of(2, b"")
    incoming = Download(manifest.digest, payload_bytes_max=0)
    incoming.receive(manifest.to_bytes())
    assert incoming.is_complete
    assert incoming.payload() == b""
