"""Payloads between real nodes over a simulated network."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
import trio
from exchanging import Mute, Node, nodes, until
from network_swarm import Log
from trio.testing import MockClock

from ledger.errors import UnavailableError
from ledger.record import Codec
from node.blobs import BlobStore
from node.network import FETCH_PROTOCOL, SYNC_PROTOCOL
from node.network_memory import Conditions
from node.pull import CHUNK_TIMEOUT_S, REQUEST_TIMEOUT_S, Pull
from node.transfer import Transfer
from swarm.protocol.fetch import WINDOW_MAX, pack_chunks, unpack_chunks
from swarm.protocol.messages import (
    FetchRequest,
    FetchStatus,
    Part,
    decode_fetch_reply,
    decode_fetch_request,
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
    payload_bytes_max: int = 100 * CHUNK_BYTES,
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


async def test_a_slow_member_does_not_come_between_a_payload_and_its_author(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The author hears late that the asker has contributed; meanwhile a slow one has been asked."""
    federation = Federation(6)
    federation.open_all()
    small = PAYLOAD[:1_000]
    digest = payload_digest(Codec.FLOAT32, small)

    class Slow(Mute):
        asked = 0

        async def on_request(self, _peer: int, _protocol: str, _body: bytes) -> bytes:
            self.asked += 1
            await trio.sleep_forever()
            raise AssertionError

    async with nodes(federation, tmp_path, indices=(0, 1), syncing=False) as (
        hub,
        members,
        nursery,
    ):
        members[0].blobs.put(Codec.FLOAT32, small)
        members[0].book.learn(federation[0].contribute(1, digest=digest))
        slow = [Slow() for _ in range(4)]
        for index, one in enumerate(slow, start=2):
            await nursery.start(hub.network(index).run, one)
        hub.conditions = Conditions(delay_s=0.01)
        started_s = trio.current_time()
        heard_s = started_s + 0.3

        async def hear() -> None:
            await trio.sleep_until(heard_s)
            members[0].book.learn(federation[1].contribute(1))

        nursery.start_soon(hear)
        await fetch(members[1], digest, sources=(0,))
        assert trio.current_time() < heard_s + 0.5
        assert sum(one.asked for one in slow) == 1, "the others are asked one after the other"


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


# Several sources, parts, restarts


LONG = Random(3).randbytes(12 * CHUNK_BYTES + 5)
LONG_DIGEST = payload_digest(Codec.FLOAT32, LONG)
CHUNKS = 13
SLOW = Conditions(bandwidth_bytes_s=CHUNK_BYTES)


@dataclass
class Counting:
    """Who asked a node for which chunk."""

    asked: list[tuple[int, int]] = field(default_factory=list)


def count_requests(node: Node) -> Counting:
    """Watch what a node is asked for."""
    counting = Counting()
    node.transfer.on_request = counted(node.transfer, counting)  # type: ignore[method-assign]
    node.exchange._answers = {FETCH_PROTOCOL: node.transfer.on_request}
    return counting


def counted(transfer: Transfer, counting: Counting) -> Callable[[int, bytes], Awaitable[bytes]]:
    real = transfer.on_request

    async def on_request(peer: int, body: bytes) -> bytes:
        request = decode_fetch_request(body)
        if request.part is Part.CHUNK:
            counting.asked.append((peer, request.index))
        return await real(peer, body)

    return on_request


async def test_three_sources_are_three_times_as_fast_as_one(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    async with nodes(federation, tmp_path, conditions=SLOW, syncing=False) as (_, members, _n):
        for index in (0, 1, 2):
            members[index].blobs.put(Codec.FLOAT32, LONG)
        watched = [count_requests(members[index]) for index in (0, 1, 2)]
        assert await fetch(members[3], LONG_DIGEST, sources=(0, 1, 2)) == (Codec.FLOAT32, LONG)
        assert trio.current_time() < CHUNKS / 3 + 5
        assert all(len(one.asked) >= 2 for one in watched), [one.asked for one in watched]
        asked = [index for one in watched for _, index in one.asked]
        assert set(asked) == set(range(CHUNKS))
        assert len(asked) <= CHUNKS + 4, "hardly a chunk came twice"


async def test_those_who_fetch_the_same_payload_serve_each_other_what_they_have(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    fast = Conditions(bandwidth_bytes_s=50 * CHUNK_BYTES)
    async with nodes(federation, tmp_path, conditions=fast, syncing=False) as (hub, members, _n):
        members[0].blobs.put(Codec.FLOAT32, LONG)
        for index in (1, 2, 3):
            hub.shape(0, index, SLOW)
        source = count_requests(members[0])
        async with trio.open_nursery() as nursery:
            for index in (1, 2, 3):
                nursery.start_soon(partial(fetch, members[index], LONG_DIGEST, sources=(0,)))
        assert all(members[index].blobs.get(LONG_DIGEST) == LONG for index in (1, 2, 3))
        assert len(source.asked) < 2.5 * CHUNKS, "without swarming it is three times the payload"


async def test_a_relay_that_corrupts_is_counted_and_left_and_the_author_is_not_blamed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    manifest = manifest_of(Codec.FLOAT32, LONG)

    class Relay(Mute):
        served = 0

        async def on_request(self, _peer: int, protocol: str, body: bytes) -> bytes:
            if protocol == SYNC_PROTOCOL:
                raise UnavailableError("not now")
            match decode_fetch_request(body).part:
                case Part.MANIFEST:
                    return encode_fetch_reply(FetchStatus.OK, manifest.to_bytes())
                case Part.HELD:
                    return encode_fetch_reply(
                        FetchStatus.OK, pack_chunks(range(CHUNKS), len(manifest.chunks))
                    )
            self.served += 1
            return encode_fetch_reply(FetchStatus.OK, bytes(CHUNK_BYTES))

    async with nodes(federation, tmp_path, conditions=SLOW, indices=(0, 1), syncing=False) as (
        hub,
        members,
        nursery,
    ):
        members[0].blobs.put(Codec.FLOAT32, LONG)
        relay = Relay()
        await nursery.start(hub.network(3).run, relay)
        assert (await fetch(members[1], LONG_DIGEST, sources=(0,)))[1] == LONG
        assert 1 <= relay.served <= WINDOW_MAX
        assert members[1].transfer.corrupted() == {3: 1}


async def test_a_part_is_withheld_like_the_whole(tmp_path: Path, autojump_clock: MockClock) -> None:
    federation = Federation(4)
    federation.open_all()
    async with nodes(federation, tmp_path, conditions=SLOW, indices=(0, 1, 2), syncing=False) as (
        _,
        members,
        nursery,
    ):
        members[0].blobs.put(Codec.FLOAT32, LONG)
        for record in (
            federation[0].contribute(1, digest=LONG_DIGEST),
            federation[1].contribute(1),
        ):
            for node in members.values():
                node.book.learn(record)
        nursery.start_soon(partial(fetch, members[1], LONG_DIGEST, sources=(0,)))
        await until(lambda: any(p.bytes_held for p in members[1].transfer.progress()), 20)
        for part in Part:
            body = encode_fetch_request(FetchRequest(digest=LONG_DIGEST, part=part, index=0))
            reply = await members[2].network.request(
                1, FETCH_PROTOCOL, body, reply_bytes_max=1 << 20, timeout_s=30
            )
            assert decode_fetch_reply(reply) == (FetchStatus.WITHHELD, b"")
        members[1].book.learn(federation[2].contribute(1))
        body = encode_fetch_request(FetchRequest(digest=LONG_DIGEST, part=Part.HELD, index=0))
        reply = await members[2].network.request(
            1, FETCH_PROTOCOL, body, reply_bytes_max=1 << 20, timeout_s=30
        )
        status, held = decode_fetch_reply(reply)
        assert status is FetchStatus.OK
        assert 0 < len(unpack_chunks(held, CHUNKS)) < CHUNKS


async def test_what_a_silent_source_was_asked_for_is_soon_asked_of_another(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    manifest = manifest_of(Codec.FLOAT32, LONG)

    class Silent(Mute):
        async def on_request(self, _peer: int, protocol: str, body: bytes) -> bytes:
            if protocol == SYNC_PROTOCOL:
                raise UnavailableError("not now")
            if decode_fetch_request(body).part is Part.CHUNK:
                await trio.sleep_forever()
            return encode_fetch_reply(FetchStatus.OK, manifest.to_bytes())

    async with nodes(
        federation, tmp_path, conditions=Conditions(delay_s=0.01), indices=(0, 1), syncing=False
    ) as (hub, members, nursery):
        members[0].blobs.put(Codec.FLOAT32, LONG)
        await nursery.start(hub.network(3).run, Silent())
        assert (await fetch(members[1], LONG_DIGEST, sources=(0, 3)))[1] == LONG
        assert trio.current_time() < CHUNK_TIMEOUT_S / 6


async def test_a_payload_that_is_wanted_twice_comes_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    async with nodes(federation, tmp_path, indices=(0, 1), syncing=False) as (_, members, _n):
        members[0].blobs.put(Codec.FLOAT32, LONG)
        source = count_requests(members[0])
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(partial(fetch, members[1], LONG_DIGEST, sources=(0,)))
        assert len(source.asked) == CHUNKS


async def test_what_came_before_a_restart_does_not_come_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    async with nodes(federation, tmp_path, conditions=SLOW, indices=(0, 1), syncing=False) as (
        _,
        members,
        _n,
    ):
        members[0].blobs.put(Codec.FLOAT32, LONG)
        source = count_requests(members[0])
        with trio.move_on_after(CHUNKS / 2):
            await fetch(members[1], LONG_DIGEST, sources=(0,))
        first = len(source.asked)
        members[1].blobs = BlobStore(tmp_path / "1.blobs")
        members[1].transfer = Transfer(
            world=members[1].transfer._world,
            blobs=members[1].blobs,
            book=members[1].book,
            behind=lambda: None,
        )
        assert (await fetch(members[1], LONG_DIGEST, sources=(0,)))[1] == LONG
        again = {index for _, index in source.asked[:first]} & {i for _, i in source.asked[first:]}
        assert len(again) <= WINDOW_MAX, "only what was under way when it died"
        assert len(source.asked) - first < CHUNKS * 0.75


async def test_a_refused_payload_leaves_nothing_behind(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    async with nodes(federation, tmp_path, indices=(0, 1), syncing=False) as (_, members, _n):
        members[0].blobs.put(Codec.FLOAT32, LONG)
        async with members[1].transfer.fetch(
            LONG_DIGEST, sources=(0,), payload_bytes_max=len(LONG)
        ) as received:
            assert received.payload == LONG
            await members[1].transfer.refuse(received)
        assert list((tmp_path / "1.blobs").iterdir()) == []
        assert members[1].transfer.active() == frozenset()


async def test_without_room_a_node_asks_for_nothing_and_goes_on_when_there_is_some(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    async with nodes(federation, tmp_path, indices=(0, 1), syncing=False) as (_, members, _n):
        members[0].blobs.put(Codec.FLOAT32, LONG)
        source = count_requests(members[0])
        blobs = members[1].blobs
        old = blobs.put(Codec.FLOAT32, bytes(1_000))
        blobs.bytes_max = len(LONG) + 999
        tidied: list[float] = []

        async def tidy() -> None:
            tidied.append(trio.current_time())
            if trio.current_time() > 100:
                blobs.remove([old])
            await trio.lowlevel.checkpoint()

        members[1].transfer.tidy = tidy
        assert (await fetch(members[1], LONG_DIGEST, sources=(0,)))[1] == LONG
        assert 100 < trio.current_time() < 150
        assert len(tidied) > 2
        assert len(source.asked) == CHUNKS


async def test_how_far_a_transfer_is_can_be_seen_and_a_long_one_is_in_the_log(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    slow = Conditions(bandwidth_bytes_s=CHUNK_BYTES / 3)
    async with nodes(federation, tmp_path, conditions=slow, indices=(0, 1), syncing=False) as (
        _,
        members,
        nursery,
    ):
        members[0].blobs.put(Codec.FLOAT32, LONG)
        transfer, log = members[1].transfer, Log()
        transfer._log = log
        nursery.start_soon(transfer.log_forever)

        async def contribution() -> None:
            async with transfer.fetch(
                LONG_DIGEST, sources=(0,), payload_bytes_max=len(LONG), member=2
            ) as received:
                await transfer.accept(received)

        async with trio.open_nursery() as fetching:
            fetching.start_soon(contribution)
            await trio.sleep(25)
            (seen,) = transfer.progress()
            assert (seen.member, seen.sources, seen.bytes_count) == (2, 1, len(LONG))
            assert seen.bytes_held == pytest.approx(25 / 3 * CHUNK_BYTES, abs=1.5 * CHUNK_BYTES)
            assert seen.bytes_s == pytest.approx(CHUNK_BYTES / 3, rel=0.35)
            shown = seen.to_json("hospital-c")
            assert shown["member"] == "hospital-c"
            assert 0.2 < shown["mb_s"] < 0.5
        assert transfer.progress() == []
        lines = log.named("transfer")
        assert lines, "a transfer of more than ten seconds is told of"
        assert {line["member"] for line in lines} == {"hospital-c"}
        assert all(line["mb"] < line["of_mb"] == 12.6 for line in lines)


def test_what_the_disks_thread_lets_go_of_still_has_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = iter([SimpleNamespace(manifest=manifest_of(Codec.FLOAT32, PAYLOAD)), None])
    monkeypatch.setattr(Pull, "partial", property(lambda _: next(reads)), raising=False)
    assert object.__new__(Pull).bytes_count == len(PAYLOAD)
