"""Chunks under way at once: a bound, turns, and no way for one peer to keep them all."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import trio
from exchanging import Mute, nodes
from test_transfer import SLOW, fetch
from trio.testing import MockClock

from ledger.errors import PeerError, UnavailableError
from ledger.record import Codec
from node.network import SYNC_PROTOCOL
from node.pull import CHUNK_TIMEOUT_S
from node.slots import SLOTS_MAX, Slot, Slots, each_max
from swarm.protocol.fetch import pack_chunks
from swarm.protocol.messages import (
    FetchStatus,
    Part,
    decode_fetch_request,
    encode_fetch_reply,
)
from swarm.protocol.payload import CHUNK_BYTES, manifest_of
from tests.federation import Federation

CHUNKS = 8
PAYLOADS = [bytes([number]) * (CHUNKS * CHUNK_BYTES) for number in range(6)]
MANIFESTS = {
    manifest.digest: manifest for manifest in (manifest_of(Codec.FLOAT32, one) for one in PAYLOADS)
}
PATIENCE_S = 2.0


class Promising(Mute):
    """A member that says that it has every chunk, and answers for one as it is told."""

    def __init__(self, for_a_chunk: Callable[[], Awaitable[bytes]]) -> None:
        self._for_a_chunk = for_a_chunk

    async def on_request(self, _peer: int, protocol: str, body: bytes) -> bytes:
        if protocol == SYNC_PROTOCOL:
            raise UnavailableError("not now")
        request = decode_fetch_request(body)
        if request.part is Part.CHUNK:
            return await self._for_a_chunk()
        if request.part is Part.MANIFEST:
            return encode_fetch_reply(FetchStatus.OK, MANIFESTS[request.digest].to_bytes())
        return encode_fetch_reply(FetchStatus.OK, pack_chunks(range(CHUNKS), CHUNKS))


async def test_so_many_at_once_in_turn_and_only_so_many_for_one_peer(
    autojump_clock: MockClock,
) -> None:
    slots = Slots(each_max=2, most=3)
    held: list[tuple[int, Slot]] = []

    async def take(number: int, peer: int) -> None:
        held.append((number, await slots.take(peer, patience_s=100.0)))

    async with trio.open_nursery() as nursery:
        for number, peer in enumerate((7, 7, 7, 8, 8)):
            nursery.start_soon(take, number, peer)
            await trio.sleep(0.01)
        assert [number for number, _ in held] == [0, 1, 3], "the third of peer 7 has to wait"
        slots.give_back(held[2][1])
        await trio.sleep(0.01)
        assert [number for number, _ in held] == [0, 1, 3, 4]
        slots.give_back(held[0][1])
        await trio.sleep(0.01)
        assert [number for number, _ in held] == [0, 1, 3, 4, 2]


async def test_what_does_not_come_counts_no_more_and_who_gives_up_takes_nothing(
    autojump_clock: MockClock,
) -> None:
    slots = Slots(each_max=1, most=1)
    silent = await slots.take(1, patience_s=PATIENCE_S)
    with trio.move_on_after(PATIENCE_S / 2) as impatient:
        await slots.take(2, patience_s=PATIENCE_S)
    assert impatient.cancelled_caught
    await slots.take(3, patience_s=PATIENCE_S)
    assert trio.current_time() == PATIENCE_S
    slots.give_back(silent)  # late, and of no effect
    with trio.move_on_after(PATIENCE_S / 2) as impatient:
        await slots.take(4, patience_s=PATIENCE_S)
    assert impatient.cancelled_caught


def test_liars_within_f_never_have_all_slots_while_there_are_slots_for_all() -> None:
    for tolerated in range(5):
        assert tolerated * each_max(tolerated) < SLOTS_MAX


async def test_a_member_that_says_it_has_all_and_brings_nothing_stops_no_download(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async def silent() -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    federation = Federation(4)
    async with nodes(federation, tmp_path, conditions=SLOW, indices=(0, 1, 2), syncing=False) as (
        hub,
        members,
        nursery,
    ):
        await nursery.start(hub.network(3).run, Promising(silent))
        for number, payload in enumerate(PAYLOADS):
            members[number % 2].blobs.put(Codec.FLOAT32, payload)
        async with trio.open_nursery() as fetches:
            for number, digest in enumerate(MANIFESTS):
                fetches.start_soon(partial(fetch, members[2], digest, sources=(number % 2,)))
        # Two sources of a chunk a second: 24 s without the liar.
        assert trio.current_time() < CHUNK_TIMEOUT_S / 1.5


async def test_a_member_that_promises_a_chunk_and_refuses_it_is_not_asked_without_pause(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    asked = 0

    async def refuse() -> bytes:
        nonlocal asked
        asked += 1
        return encode_fetch_reply(FetchStatus.NOT_HELD)

    federation = Federation(4)
    async with nodes(federation, tmp_path, indices=(0, 1), syncing=False) as (
        hub,
        members,
        nursery,
    ):
        await nursery.start(hub.network(3).run, Promising(refuse))
        with trio.move_on_after(30.0):
            await fetch(members[1], next(iter(MANIFESTS)), sources=(3,))
        assert asked < 60, "in half a minute"
        assert members[1].transfer.corrupted() == {}


async def test_a_member_whose_disk_fails_is_not_said_to_corrupt(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async def fail() -> bytes:
        raise PeerError("member-3: disk I/O error")

    federation = Federation(4)
    async with nodes(federation, tmp_path, indices=(0, 1), syncing=False) as (
        hub,
        members,
        nursery,
    ):
        await nursery.start(hub.network(3).run, Promising(fail))
        members[0].blobs.put(Codec.FLOAT32, PAYLOADS[0])
        digest = next(iter(MANIFESTS))
        assert (await fetch(members[1], digest, sources=(3,)))[1] == PAYLOADS[0]
        assert members[1].transfer.corrupted() == {}
