"""Records between real nodes' exchanges over a simulated network."""

from pathlib import Path

import pytest
import trio
from exchanging import Mute, nodes, until
from trio.testing import MockClock

from ledger.errors import PeerError
from ledger.record import Kind, Rejection
from node.exchange import REQUEST_TIMEOUT_S
from node.network import FETCH_PROTOCOL, SYNC_PROTOCOL
from swarm.protocol.messages import (
    Head,
    Hello,
    SyncReply,
    encode_sync_reply,
    encode_sync_request,
)
from tests.federation import Federation, digest_of

INTERVAL_S = 2.0


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
            hello = Hello(heads={(3, 0): Head(2**50, bytes(32))}, round=1, phase=0, time_ms=0)
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


async def test_one_who_claims_heads_without_end_makes_nobody_compare_without_pause(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    asked_s: list[float] = []
    news: list[bytes] = []

    class Honest(Mute):
        async def on_request(self, _peer: int, _protocol: str, _body: bytes) -> bytes:
            asked_s.append(trio.current_time())
            envelopes = tuple(news)
            news.clear()
            hello = Hello(heads={}, round=1, phase=0, time_ms=0)
            return encode_sync_reply(SyncReply(hello=hello, envelopes=envelopes))

    lie = encode_sync_request(
        Hello(heads={(3, 0): Head(2**50, bytes(32))}, round=1, phase=0, time_ms=0)
    )
    async with nodes(federation, tmp_path, indices=(0,)) as (hub, _, nursery):
        liar = hub.network(3)
        nursery.start_soon(hub.network(2).run, Honest())
        nursery.start_soon(liar.run, Mute())
        await until(lambda: bool(asked_s) and 0 in liar.connected(), 5)

        async def claim(for_s: float) -> None:
            with trio.move_on_after(for_s):
                while True:
                    await liar.request(0, SYNC_PROTOCOL, lie, reply_bytes_max=1 << 20, timeout_s=5)
                    await trio.sleep(0.01)

        async def after_the_next() -> int:
            count = len(asked_s)
            await until(lambda: len(asked_s) > count, 2 * INTERVAL_S)
            return len(asked_s)

        asked_s.clear()
        await claim(60)
        assert len(asked_s) < 2 * 60 / INTERVAL_S + 10
        nursery.start_soon(claim, 5 * INTERVAL_S)
        news.append(federation[2].open().signed.envelope())
        count = await after_the_next()
        await until(lambda: len(asked_s) > count, 0.3)
        await trio.sleep(10 * INTERVAL_S)
        count = await after_the_next()
        await claim(0.005)
        await until(lambda: len(asked_s) > count, 0.2)


async def test_a_newcomer_behind_a_flood_of_tiny_records_still_catches_up(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    federation[3].open()
    for number in range(3_000):
        body = Rejection(target_id=digest_of(number), reason=1)
        federation[3].write(Kind.REJECTION, number // 100, body)
    async with nodes(federation, tmp_path, indices=(0, 1)) as (hub, members, _n):
        hub.partition([[0], [1]])
        log = federation[3].records
        for at in range(0, len(log), 1_000):
            chunk = [record.signed.envelope() for record in log[at : at + 1_000]]
            await members[0].journal.ingest(chunk)
        hub.heal()
        await until(lambda: members[1].journal.counts() == {(3, 0): 3_001}, 30)
        assert 0 in members[1].synced


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
