"""Records and payloads between real nodes' exchanges over a simulated network."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
import trio
from trio.testing import MockClock

from ledger.errors import PeerError, UnavailableError
from ledger.record import Codec, Kind, Record, Rejection, Verified
from ledger.store import Store
from node.blobs import BlobStore
from node.compute import InlineCompute
from node.exchange import REQUEST_TIMEOUT_S, Exchange
from node.journal import Journal
from node.network import FETCH_PROTOCOL, SYNC_PROTOCOL
from node.network_memory import Conditions, MemoryHub, MemoryNetwork
from node.world import World
from scenarios.simulator import _Silent
from swarm.protocol.book import RoundBook
from swarm.protocol.messages import (
    FetchRequest,
    FetchStatus,
    Hello,
    Part,
    SyncReply,
    decode_fetch_reply,
    encode_fetch_reply,
    encode_fetch_request,
    encode_sync_reply,
)
from swarm.protocol.payload import CHUNK_BYTES, OversizedError, manifest_of, payload_digest
from tests.federation import Federation, digest_of

INTERVAL_S = 2.0
PAYLOAD = bytes(range(256)) * (5 * CHUNK_BYTES // 512)


@dataclass
class Node:
    """An exchange with everything real around it but the round machine."""

    network: MemoryNetwork
    journal: Journal
    blobs: BlobStore
    book: RoundBook
    exchange: Exchange = field(init=False)
    synced: set[int] = field(default_factory=set)
    failure: Exception | None = None

    def records_stored(self, records: Sequence[Verified[Record]]) -> None:
        for record in records:
            self.book.learn(record)

    def peer_synced(self, peer: int) -> None:
        self.synced.add(peer)

    def failed(self, error: Exception) -> None:
        self.failure = error

    def standing(self) -> tuple[int, int]:
        return 1, 2

    async def write(self, record: Verified[Record]) -> Verified[Record]:
        """Write what the test's pen wrote, with this node's own pen."""
        value = record.value
        written = await self.journal.append(Kind(value.kind), value.round, value.body)  # type: ignore[arg-type]
        self.book.learn(written)
        return written


class Mute:
    """A member that is connected and never answers."""

    async def on_gossip(self, _peer: int, _message: bytes) -> None:
        """Hear it."""

    async def on_request(self, _peer: int, _protocol: str, _body: bytes) -> bytes:
        await trio.sleep_forever()
        raise AssertionError


@asynccontextmanager
async def nodes(
    federation: Federation,
    path: Path,
    *,
    conditions: Conditions | None = None,
    indices: Sequence[int] = (0, 1, 2, 3),
    syncing: bool = True,
) -> AsyncIterator[tuple[MemoryHub, dict[int, Node], trio.Nursery]]:
    hub = MemoryHub(seed=5, conditions=conditions)
    with ExitStack() as stack:
        async with trio.open_nursery() as nursery:
            made = {}
            for index in indices:
                network = hub.network(index)
                world = World(
                    network=network,
                    compute=InlineCompute(),
                    disk=InlineCompute(),
                    time_ms=lambda: 1_000,
                    random=Random(index),
                    log=_Silent(),
                )
                journal = Journal(
                    store=stack.enter_context(Store.open(path / f"{index}.db")),
                    roster=federation.roster,
                    own=index,
                    signer=federation[index].signer,
                    disk=world.disk,
                    time_ms=world.time_ms,
                )
                blobs = BlobStore(path / f"{index}.blobs")
                node = Node(network, journal, blobs, RoundBook(federation.roster))
                node.exchange = Exchange(
                    world=world, journal=journal, blobs=blobs, book=node.book, listener=node
                )
                await nursery.start(run, node)
                made[index] = node
            for node in made.values():
                if syncing:
                    nursery.start_soon(node.exchange.sync_forever, INTERVAL_S)
            yield hub, made, nursery
            nursery.cancel_scope.cancel()


async def run(node: Node, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    await node.network.run(node.exchange, task_status=task_status)


async def until(what: Callable[[], bool], within_s: float) -> None:
    with trio.fail_after(within_s):
        while not what():  # noqa: ASYNC110 - looks from outside, as an operator would
            await trio.sleep(0.05)


async def test_a_published_record_reaches_everybody_by_gossip(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    async with nodes(federation, tmp_path, syncing=False) as (_, members, _n):
        record = await members[0].write(federation[0].open())
        await members[0].exchange.publish(record)
        await until(lambda: all((0, 0) in m.journal.counts() for m in members.values()), 1)


async def test_without_any_gossip_comparing_heads_alone_brings_everything(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    async with nodes(federation, tmp_path) as (_, members, _n):
        for index, node in members.items():
            await node.write(federation[index].open())
        everything = {(index, 0): 1 for index in range(4)}
        await until(lambda: all(m.journal.counts() == everything for m in members.values()), 10)
        await until(lambda: all(len(m.synced) == 3 for m in members.values()), 10)


async def test_a_silent_member_stops_no_comparison_with_the_others(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    async with nodes(federation, tmp_path, indices=(0, 1, 2)) as (hub, members, nursery):
        nursery.start_soon(hub.network(3).run, Mute())
        await trio.sleep(5)
        for number in range(5):
            body = Rejection(target_id=digest_of(number), reason=1)
            if number == 0:
                await members[0].write(federation[0].open())
            await members[0].journal.append(Kind.REJECTION, 1, body)
            wanted = number + 2
            await until(
                lambda n=wanted: members[1].journal.counts().get((0, 0)) == n, 2 * INTERVAL_S
            )


async def test_one_who_always_has_one_record_more_does_not_hold_up_the_others(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    federation[3].open()

    class Endless(Mute):
        async def on_request(self, _peer: int, _protocol: str, _body: bytes) -> bytes:
            await trio.sleep(REQUEST_TIMEOUT_S - 1)
            pen = federation[3]
            pen.write(Kind.REJECTION, 1, Rejection(target_id=digest_of(pen.head), reason=1))
            hello = Hello(heads={(3, 0): 2**50}, round=1, phase=0, time_ms=0)
            envelopes = tuple(record.signed.envelope() for record in pen.records)
            return encode_sync_reply(SyncReply(hello=hello, envelopes=envelopes))

    async with nodes(federation, tmp_path, indices=(0, 1, 2)) as (hub, members, nursery):
        nursery.start_soon(hub.network(3).run, Endless())
        await trio.sleep(100)
        await members[0].write(federation[0].open())
        await until(lambda: (0, 0) in members[1].journal.counts(), 2 * INTERVAL_S)
        assert 3 not in members[1].synced


async def test_one_dangling_record_does_not_make_the_swarm_compare_without_pause(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    federation[3].open()
    federation[3].contribute(1)
    dangling = federation[3].contribute(2)
    async with nodes(federation, tmp_path) as (_, members, _n):
        await trio.sleep(10)
        await members[3].exchange.publish(dangling)
        await trio.sleep(5)
        before = members[0].network.traffic().bytes_sent
        await trio.sleep(60)
        sent = members[0].network.traffic().bytes_sent - before
        hello_bytes, exchanges = 120, 60 / INTERVAL_S * 3 * 2 * 2
        assert sent < hello_bytes * exchanges


async def test_a_newcomer_behind_a_flood_of_tiny_records_still_catches_up(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    federation[3].open()
    for number in range(3_000):
        body = Rejection(target_id=digest_of(number), reason=1)
        federation[3].write(Kind.REJECTION, 1, body)
    async with nodes(federation, tmp_path, indices=(0, 1)) as (hub, members, _n):
        hub.partition([[0], [1]])
        log = federation[3].records
        for at in range(0, len(log), 1_000):
            chunk = [record.signed.envelope() for record in log[at : at + 1_000]]
            await members[0].journal.ingest(chunk)
        hub.heal()
        await until(lambda: members[1].journal.counts() == {(3, 0): 3_001}, 30)
        assert 0 in members[1].synced


# Payloads


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
        codec, payload = await members[1].exchange.fetch(
            digest, sources=(0,), payload_bytes_max=len(PAYLOAD)
        )
        assert (codec, payload) == (Codec.FLOAT32, PAYLOAD)


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
            _, payload = await members[1].exchange.fetch(
                digest, sources=(3,), payload_bytes_max=len(PAYLOAD)
            )
        assert payload == PAYLOAD
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
        await members[1].exchange.fetch(digest, sources=(0,), payload_bytes_max=len(PAYLOAD))
        assert 120 <= trio.current_time() < 130


async def test_a_payload_larger_than_was_announced_is_refused_before_it_is_pulled(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    digest = payload_digest(Codec.FLOAT32, PAYLOAD)
    async with nodes(federation, tmp_path, indices=(0, 1), syncing=False) as (_, members, _n):
        members[0].blobs.put(Codec.FLOAT32, PAYLOAD)
        with pytest.raises(OversizedError):
            await members[1].exchange.fetch(digest, sources=(0,), payload_bytes_max=1_000)
        assert members[1].network.traffic().bytes_received < 1_000


async def test_nonsense_is_refused_and_harms_nobody(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    async with nodes(federation, tmp_path, indices=(0, 1)) as (_, members, _n):
        for protocol in (SYNC_PROTOCOL, FETCH_PROTOCOL):
            for body in (b"", b"\x00", bytes(100_000), b"\x91" * 2_000):
                with pytest.raises(PeerError):
                    await members[1].network.request(
                        0, protocol, body, reply_bytes_max=1 << 20, timeout_s=5
                    )
        await members[1].network.broadcast(b"\x93\x01")
        await members[0].write(federation[0].open())
        await until(lambda: (0, 0) in members[1].journal.counts(), 10)
        assert members[0].failure is None
