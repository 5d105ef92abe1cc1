"""Who has finished does not go while another one may still need what only finished ones hold."""

from pathlib import Path
from random import Random

import pytest
import trio
from exchanging import Mute, Node, nodes, until
from trio.testing import MockClock

from node.compute import InlineCompute
from node.farewell import FAREWELL_S, SEEN_OFF, see_off
from node.network_memory import Conditions, MemoryHub
from node.world import World
from scenarios.simulator import _Silent
from tests.federation import Federation

NOTHING_PASSES = Conditions(loss=1.0)
SOON_S = 5.0


async def close_all(federation: Federation, members: dict[int, Node]) -> None:
    """Everybody's first and last record, and gossip of them."""
    for write in ("open", "close"):
        for index, node in members.items():
            author = federation[index]
            record = await node.write(author.open() if write == "open" else author.close(1))
            await node.exchange.publish(record)


async def leave(node: Node, own: int, hub: MemoryHub | None = None) -> float:
    """Take one's leave, with the network at the end; return how long that took, s."""
    began_s = trio.current_time()
    world = World(
        network=node.network, compute=InlineCompute(), disk=InlineCompute(),
        time_ms=lambda: 1_000, random=Random(own), log=_Silent(),
    )  # fmt: skip
    await see_off(node.exchange, world, node.book, own=own)
    if hub is not None:
        hub.crash(own)
    return trio.current_time() - began_s


def lengths(node: Node) -> set[int]:
    return set(node.journal.counts().values())


async def test_where_everybody_has_everything_nobody_waits(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    async with nodes(federation, tmp_path) as (hub, members, _):
        await close_all(federation, members)
        await until(lambda: all(len(m.book.closed) == 4 for m in members.values()), 60)
        for index, node in members.items():
            assert await leave(node, index, hub) < SOON_S


async def test_one_whom_no_answer_reached_is_not_left_without_the_end(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    async with nodes(federation, tmp_path) as (hub, members, nursery):
        for other in (0, 2, 3):
            hub.shape(other, 1, NOTHING_PASSES)
        await close_all(federation, members)
        await until(lambda: all(lengths(members[m]) == {2} for m in (0, 2, 3)), 60)
        assert len(members[1].journal.counts()) == 1
        for index in (0, 2, 3):
            assert len(members[index].book.closed) == 4, "by the round alone it could go"
            nursery.start_soon(leave, members[index], index, hub)
        await trio.sleep(30)
        assert hub.peers(1) == [0, 2, 3]
        for other in (0, 2, 3):
            hub.shape(other, 1, None)
        await until(lambda: hub.peers(1) == [], FAREWELL_S - 30)
        assert members[1].journal.counts() == {(index, 0): 2 for index in range(4)}
        assert await leave(members[1], 1) == 0.0, "nobody else is there"


async def test_one_who_says_nothing_holds_nobody_up_for_long(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, object]] = []
    monkeypatch.setattr(
        _Silent, "warning", lambda _self, event, **of: said.append((event, of.get("peers")))
    )
    federation = Federation(4)
    async with nodes(federation, tmp_path, indices=(0, 1, 2)) as (hub, members, nursery):
        nursery.start_soon(hub.network(3).run, Mute())
        await close_all(federation, members)
        await until(lambda: all(len(m.book.closed) == 3 for m in members.values()), 60)
        assert await leave(members[0], 0) == pytest.approx(FAREWELL_S, abs=1)
        assert ("left_behind", [3]) in said


async def test_who_has_forked_is_not_waited_for(tmp_path: Path, autojump_clock: MockClock) -> None:
    federation = Federation(4)
    async with nodes(federation, tmp_path, indices=(0, 1, 2)) as (hub, members, nursery):
        nursery.start_soon(hub.network(3).run, Mute())
        await close_all(federation, members)
        await until(lambda: all(len(m.book.closed) == 3 for m in members.values()), 60)
        members[0].book.freeze(3, 0, 1)
        assert await leave(members[0], 0) < SOON_S


async def test_only_the_next_few_are_seen_to(tmp_path: Path, autojump_clock: MockClock) -> None:
    count = SEEN_OFF + 3
    federation = Federation(count)
    early = tuple(range(count - 1))
    async with nodes(federation, tmp_path, indices=early) as (hub, members, nursery):
        nursery.start_soon(hub.network(count - 1).run, Mute())
        await close_all(federation, members)
        await until(lambda: all(len(m.book.closed) == len(early) for m in members.values()), 60)
        assert await leave(members[0], 0) < SOON_S
        assert await leave(members[count - 2], count - 2) > FAREWELL_S - 1
