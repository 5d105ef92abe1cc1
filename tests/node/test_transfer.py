"""Payloads between real nodes over a simulated network."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from exchanging import Mute, Node, nodes
from trio.testing import MockClock

from ledger.errors import UnavailableError
from ledger.record import Codec
from node.network import FETCH_PROTOCOL, SYNC_PROTOCOL
from node.pull import REQUEST_TIMEOUT_S
from swarm.protocol.messages import (
    FetchRequest,
    FetchStatus,
    Part,
    decode_fetch_reply,
    encode_fetch_reply,
    encode_fetch_request,
)
from swarm.protocol.payload import CHUNK_BYTES, OversizedError, manifest_of, payload_digest
from tests.federation import Federation

PAYLOAD = bytes(range(256)) * (5 * CHUNK_BYTES // 512)


async def fetch(
    node: Node,
    digest: bytes,
    *,
    sources: Sequence[int],
    payload_bytes_max: int = len(PAYLOAD),
) -> tuple[int, bytes]:
    """Fetch a payload, accept it, and read it from the store."""
    async with node.transfer.fetch(
        digest, sources=sources, payload_bytes_max=payload_bytes_max
    ) as received:
        await node.transfer.accept(received)
    payload = node.blobs.get(digest)
    assert payload is not None
    return received.codec, bytes(payload)


async def test_a_payload_is_withheld_until_the_requester_has_contributed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    federation.open_all()
    digest = payload_digest(Codec.FLOAT32, PAYLOAD)
    async with nodes(federation, tmp_path, indices=(0, 1), syncing=False) as (_, members, _n):
        members[0].blobs.put(Codec.FLOAT32, PAYLOAD)
        members[0].book.learn(federation[0].contribute(1, digest=digest))
        for part in Part:
            body = encode_fetch_request(FetchRequest(digest=digest, part=part, index=0))
            reply = await members[1].network.request(
                0, FETCH_PROTOCOL, body, reply_bytes_max=1 << 20, timeout_s=5
            )
            assert decode_fetch_reply(reply) == (FetchStatus.WITHHELD, b"")
        members[0].book.learn(federation[1].contribute(1))
        assert await fetch(members[1], digest, sources=(0,)) == (Codec.FLOAT32, PAYLOAD)


@pytest.mark.parametrize("lie", ["chunk", "manifest", "status", "stall", "cut"])
async def test_a_corrupt_source_is_left_for_another(
    tmp_path: Path, autojump_clock: MockClock, lie: str
) -> None:
    federation = Federation(4)
    digest = payload_digest(Codec.FLOAT32, PAYLOAD)
    manifest = manifest_of(Codec.FLOAT32, PAYLOAD)

    class Liar(Mute):
        asked = 0

        async def on_request(self, _peer: int, protocol: str, _body: bytes) -> bytes:
            if protocol == SYNC_PROTOCOL:
                raise UnavailableError("not now")
            self.asked += 1
            if lie == "stall":
                await trio.sleep_forever()
            if lie == "status":
                return b"\xff"
            if self.asked == 1 and lie != "manifest":
                return encode_fetch_reply(FetchStatus.OK, manifest.to_bytes())
            return encode_fetch_reply(FetchStatus.OK, b"" if lie == "cut" else bytes(CHUNK_BYTES))

    async with nodes(federation, tmp_path, indices=(0, 1), syncing=False) as (
        hub,
        members,
        nursery,
    ):
        members[0].blobs.put(Codec.FLOAT32, PAYLOAD)
        liar = Liar()
        await nursery.start(hub.network(3).run, liar)
        with trio.fail_after(REQUEST_TIMEOUT_S + 5):
            assert await fetch(members[1], digest, sources=(3,)) == (Codec.FLOAT32, PAYLOAD)
        assert liar.asked >= 1


async def test_a_fetch_waits_for_whoever_brings_the_payload(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    digest = payload_digest(Codec.FLOAT32, PAYLOAD)
    async with nodes(federation, tmp_path, indices=(0, 1), syncing=False) as (
        hub,
        members,
        nursery,
    ):
        hub.partition([[0], [1]])

        async def bring() -> None:
            await trio.sleep(60)
            hub.heal()
            await trio.sleep(60)
            members[0].blobs.put(Codec.FLOAT32, PAYLOAD)

        nursery.start_soon(bring)
        await fetch(members[1], digest, sources=(0,))
        assert 120 <= trio.current_time() < 130


async def test_a_payload_larger_than_was_announced_is_refused_before_it_is_pulled(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    digest = payload_digest(Codec.FLOAT32, PAYLOAD)
    async with nodes(federation, tmp_path, indices=(0, 1), syncing=False) as (_, members, _n):
        members[0].blobs.put(Codec.FLOAT32, PAYLOAD)
        with pytest.raises(OversizedError):
            await fetch(members[1], digest, sources=(0,), payload_bytes_max=1_000)
        assert members[1].network.traffic().bytes_received < 1_000
