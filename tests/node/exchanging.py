"""Real nodes but for their round machines, over a simulated network: for tests of what they exchange."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import trio

from ledger.fork import Fork
from ledger.record import Kind, Record, Verified
from ledger.store import Store
from node.blobs import BlobStore
from node.compute import InlineCompute
from node.exchange import Exchange
from node.journal import Journal
from node.network import FETCH_PROTOCOL, Network
from node.network_memory import Conditions, MemoryHub
from node.transfer import Transfer
from node.world import World
from scenarios.simulator import _Silent
from swarm.protocol.book import RoundBook
from swarm.protocol.payload import CHUNK_BYTES
from tests.federation import Federation

INTERVAL_S = 2.0
PAYLOAD = bytes(range(256)) * (5 * CHUNK_BYTES // 512)


@dataclass
class Node:
    """An exchange with everything real around it but the round machine."""

    network: Network
    journal: Journal
    blobs: BlobStore
    book: RoundBook
    exchange: Exchange = field(init=False)
    transfer: Transfer = field(init=False)
    synced: set[int] = field(default_factory=set)
    forks: list[Fork] = field(default_factory=list)
    failure: Exception | None = None

    def records_stored(self, records: Sequence[Verified[Record]]) -> None:
        for record in records:
            self.book.learn(record)

    def forks_found(self, forks: Sequence[Fork]) -> None:
        self.forks += forks

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
    network_of: Callable[[int], Network] | None = None,
) -> AsyncIterator[tuple[MemoryHub, dict[int, Node], trio.Nursery]]:
    hub = MemoryHub(seed=5, conditions=conditions)
    with ExitStack() as stack:
        async with trio.open_nursery() as nursery:
            made = {}
            for index in indices:
                network = network_of(index) if network_of else hub.network(index)
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
                node.transfer = Transfer(
                    world=world, blobs=blobs, book=node.book, behind=lambda: None
                )
                node.exchange = Exchange(
                    world=world,
                    journal=journal,
                    book=node.book,
                    listener=node,
                    answers={FETCH_PROTOCOL: node.transfer.on_request},
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
