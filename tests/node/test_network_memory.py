"""What the simulator's network does on purpose: faults, from one seed, in virtual time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from network_swarm import Member, Service
from trio.testing import MockClock

from ledger.errors import UnavailableError
from node.network import FETCH_PROTOCOL, SERVING_MAX
from node.network_memory import Conditions, MemoryHub


@asynccontextmanager
async def simulated(hub: MemoryHub, count: int) -> AsyncIterator[list[Member]]:
    async with trio.open_nursery() as nursery:
        members = [Member(i, lambda i=i: hub.network(i), nursery) for i in range(count)]
        for member in members:
            await member.start()
        yield members
        nursery.cancel_scope.cancel()


def texts(member: Member) -> list[bytes]:
    return [text for _, text in member.service.gossip]


def run_storm(seed: int, conditions: Conditions) -> list[list[tuple[int, bytes]]]:
    """100 messages of 3 members; what each member got, in order."""

    async def storm() -> list[list[tuple[int, bytes]]]:
        hub = MemoryHub(seed=seed, conditions=conditions)
        async with simulated(hub, 3) as members:
            for number in range(100):
                member = members[number % 3]
                member.nursery.start_soon(member.network.broadcast, b"%d" % number)
                await trio.sleep(0.01)
            await trio.sleep(100)
            return [list(member.service.gossip) for member in members]

    return trio.run(storm, clock=MockClock(autojump_threshold=0))


BAD = Conditions(loss=0.2, delay_s=0.05, jitter_s=0.2, duplicate=0.3, bandwidth_bytes_s=100)


def test_the_same_seed_delivers_the_same_messages_in_the_same_order() -> None:
    assert run_storm(7, BAD) == run_storm(7, BAD)
    assert run_storm(7, BAD) != run_storm(8, BAD)


def test_loss_and_jitter_lose_and_reorder_but_never_repeat() -> None:
    for got in run_storm(3, BAD):
        assert 30 < len(got) < 65, "about a fifth of 66 or 67 is lost"
        assert len(set(got)) == len(got), "delivered twice"
        assert got != sorted(got, key=lambda item: int(item[1])), "nothing was reordered"


def test_a_perfect_network_delivers_everything_in_order() -> None:
    for index, got in enumerate(run_storm(3, Conditions())):
        assert [int(text) for _, text in got] == [n for n in range(100) if n % 3 != index]


async def test_a_partition_separates_and_heals(autojump_clock: MockClock) -> None:
    hub = MemoryHub(seed=1)
    async with simulated(hub, 4) as members:
        hub.partition([[0, 1], [2, 3]])
        assert members[0].network.connected() == {1}
        await members[0].network.broadcast(b"within")
        await trio.sleep(1)
        assert [texts(m) for m in members] == [[], [b"within"], [], []]
        with pytest.raises(UnavailableError):
            await members[0].ask(2, b"hello")
        hub.heal()
        assert members[0].network.connected() == {1, 2, 3}
        await members[0].network.broadcast(b"healed")
        assert await members[0].ask(2, b"hello") == b"hello"
        await trio.sleep(1)
        assert [texts(m)[-1:] for m in members[1:]] == [[b"healed"]] * 3


async def test_a_one_way_cut_eats_replies_until_it_is_noticed(autojump_clock: MockClock) -> None:
    hub = MemoryHub(seed=1, conditions=Conditions(detect_s=10, reconnect_s=1))
    async with simulated(hub, 2) as members:
        await trio.sleep(5)
        hub.block(1, 0)
        assert members[0].network.connected() == {1}
        with pytest.raises(UnavailableError, match="no reply"):
            await members[0].ask(1, b"heard but not answered")
        assert len(members[1].service.requests) == 1
        await trio.sleep(6)
        assert members[0].network.connected() == frozenset()
        assert trio.current_time() - members[0].network.last_seen_s()[1] > 10
        hub.unblock(1, 0)
        assert members[0].network.connected() == frozenset()
        await trio.sleep(1)
        assert await members[0].ask(1, b"again") == b"again"


async def test_a_crash_is_noticed_and_a_restart_is_a_new_network(autojump_clock: MockClock) -> None:
    hub = MemoryHub(seed=1)
    async with simulated(hub, 2) as members:
        members[0].nursery.start_soon(crash_later, hub, 1)
        with trio.fail_after(5), pytest.raises(UnavailableError, match="connection lost"):
            await members[0].ask(1, b"sleep 100", s=1000)
        crashed = members[1].network
        await crashed.broadcast(b"from the grave")
        with pytest.raises(UnavailableError):
            await members[1].ask(0, b"from the grave")
        await members[1].stop()
        await members[1].start()
        assert await members[0].ask(1, b"again") == b"again"
        assert not members[0].service.gossip


async def crash_later(hub: MemoryHub, index: int) -> None:
    await trio.sleep(1)
    hub.crash(index)


async def test_a_slow_link_takes_its_time_and_only_that_link(autojump_clock: MockClock) -> None:
    hub = MemoryHub(seed=1)
    async with simulated(hub, 3) as members:
        hub.shape(1, 0, Conditions(bandwidth_bytes_s=1000, delay_s=2))
        start_s = trio.current_time()
        await members[0].ask(2, b"zeros 10000", bytes_max=10_000)
        assert trio.current_time() == start_s
        await members[0].ask(1, b"zeros 10000", bytes_max=10_000, s=60)
        assert trio.current_time() - start_s == pytest.approx(12.006)


async def test_a_lost_request_costs_its_deadline(autojump_clock: MockClock) -> None:
    hub = MemoryHub(seed=1, conditions=Conditions(loss=1))
    async with simulated(hub, 2) as members:
        start_s = trio.current_time()
        with pytest.raises(UnavailableError, match="no reply in 7 s"):
            await members[0].ask(1, b"hello", s=7)
        assert trio.current_time() - start_s == 7


async def test_a_duplicated_request_is_handled_twice(autojump_clock: MockClock) -> None:
    hub = MemoryHub(seed=1, conditions=Conditions(duplicate=1))
    async with simulated(hub, 2) as members:
        assert await members[0].ask(1, b"once") == b"once"
        await trio.sleep(1)
        assert len(members[1].service.requests) == 2


async def test_one_peer_cannot_occupy_a_member(autojump_clock: MockClock) -> None:
    hub = MemoryHub(seed=1)
    async with simulated(hub, 3) as members:
        for _ in range(SERVING_MAX):
            members[0].nursery.start_soon(ask_quietly, members[0])
        await trio.sleep(1)
        with pytest.raises(UnavailableError, match="too many"):
            await members[0].ask(1, b"one more")
        assert await members[2].ask(1, b"another member") == b"another member"


async def ask_quietly(member: Member) -> None:
    await member.network.request(1, FETCH_PROTOCOL, b"sleep 9", reply_bytes_max=9, timeout_s=99)


async def test_a_gossip_handler_may_ask_the_network(autojump_clock: MockClock) -> None:
    class Curious(Service):
        async def on_gossip(self, peer: int, message: bytes) -> None:
            self.gossip.append((peer, await members[1].ask(peer, message)))

    hub = MemoryHub(seed=1)
    async with simulated(hub, 2) as members:
        await members[1].stop()
        members[1].service = Curious()
        await members[1].start()
        await members[0].network.broadcast(b"fetch it")
        await trio.sleep(1)
        assert members[1].service.gossip == [(0, b"fetch it")]


def test_impossible_conditions_are_refused() -> None:
    for wrong in ({"loss": 1.1}, {"delay_s": -1}, {"bandwidth_bytes_s": 0}):
        with pytest.raises(ValueError, match=r"share|times|bandwidth"):
            Conditions(**wrong)
