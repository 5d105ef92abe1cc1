"""A few members on one network, in memory or over real loopback sockets, for the tests here."""

import itertools
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
from nacl.signing import SigningKey

from ledger.errors import PeerError, UnavailableError
from node.network import FETCH_PROTOCOL, Network, Peer
from node.network_memory import MemoryHub

NET = bytes(range(32))


@dataclass
class Log:
    """Collects events."""

    events: list[tuple[str, str, dict[str, object]]] = field(default_factory=list)

    def debug(self, event: str, **fields: object) -> None:
        self.events.append(("debug", event, fields))

    def info(self, event: str, **fields: object) -> None:
        self.events.append(("info", event, fields))

    def warning(self, event: str, **fields: object) -> None:
        self.events.append(("warning", event, fields))

    def named(self, name: str) -> list[dict[str, object]]:
        return [fields for _, event, fields in self.events if event == name]


@dataclass
class Service:
    """Handlers that do what a request's body says."""

    gossip: list[tuple[int, bytes]] = field(default_factory=list)
    requests: list[tuple[int, str, bytes]] = field(default_factory=list)

    async def on_gossip(self, peer: int, message: bytes) -> None:
        self.gossip.append((peer, message))
        if message.startswith(b"raise"):
            raise RuntimeError("a bug in on_gossip")

    async def on_request(self, peer: int, protocol: str, body: bytes) -> bytes:
        self.requests.append((peer, protocol, body))
        word, _, rest = body.partition(b" ")
        match word:
            case b"raise":
                raise RuntimeError("a bug in on_request")
            case b"refuse":
                raise PeerError("that is not a request\nsecond line")
            case b"later":
                raise UnavailableError("ask me later")
            case b"zeros":
                return bytes(int(rest))
            case b"sleep":
                await trio.sleep(float(rest))
        return body


@dataclass
class Member:
    index: int
    make: Callable[[], Network]
    nursery: trio.Nursery
    service: Service = field(default_factory=Service)
    log: Log = field(default_factory=Log)
    network: Network = field(init=False)
    _scope: trio.CancelScope = field(init=False)
    _stopped: trio.Event = field(init=False)

    async def start(self) -> None:
        self.network = self.make()
        self._stopped = trio.Event()
        await self.nursery.start(self._run)

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            with trio.CancelScope() as self._scope:
                await self.network.run(self.service, task_status=task_status)
        finally:
            self._stopped.set()

    async def stop(self) -> None:
        self._scope.cancel()
        with trio.fail_after(10):
            await self._stopped.wait()

    async def ask(self, peer: int, body: bytes, *, bytes_max: int = 1024, s: float = 5) -> bytes:
        return await self.network.request(
            peer, FETCH_PROTOCOL, body, reply_bytes_max=bytes_max, timeout_s=s
        )


_ports = itertools.count(15_000 + os.getpid() * 37 % 12_000)


def free_port() -> int:
    """A port that nobody uses, below the range that the kernel gives to outgoing connections."""
    for candidate in _ports:
        port = 15_000 + candidate % 17_000
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError


def seeds(count: int) -> list[bytes]:
    return [bytes([index + 1]) * 32 for index in range(count)]


def peers_on(ports: list[int]) -> list[Peer]:
    return [
        Peer(
            index=index,
            name=f"site {index}",
            network_key=bytes(SigningKey(seed).verify_key),
            addresses=(f"/ip4/127.0.0.1/tcp/{ports[index]}",),
        )
        for index, seed in enumerate(seeds(len(ports)))
    ]


@asynccontextmanager
async def running_swarm(
    kind: str, count: int, *, start: bool = True, **options: object
) -> AsyncIterator[list[Member]]:
    """Members that run and, unless start is False, all see each other."""
    async with trio.open_nursery() as nursery:
        members: list[Member] = []
        if kind == "memory":
            hub = MemoryHub(seed=1)
            for index in range(count):
                log = Log()
                make = lambda i=index, log=log: hub.network(i, log=log)  # noqa: E731
                members.append(Member(index, make, nursery, log=log))
        else:
            from node.libp2p import Libp2pNetwork

            peers = peers_on([free_port() for _ in range(count)])
            for index, seed in enumerate(seeds(count)):
                log = Log()

                def make(i: int = index, seed: bytes = seed, log: Log = log) -> Network:
                    return Libp2pNetwork(
                        own_index=i,
                        network_seed=seed,
                        listen=peers[i].addresses,
                        peers=peers,
                        net=NET,
                        log=log,
                        **options,
                    )

                members.append(Member(index, make, nursery, log=log))
        if start:
            for member in members:
                await member.start()
            await all_connected(members)
        yield members
        for member in members:
            if hasattr(member, "network"):
                nursery.start_soon(member.stop)


async def all_connected(members: list[Member], *, s: float = 10) -> None:
    everybody = {member.index for member in members}
    for member in members:
        await until(lambda m=member: everybody - {m.index} <= m.network.connected(), s=s)


async def until(condition: Callable[[], bool], *, s: float = 10) -> None:
    with trio.fail_after(s):
        while not condition():  # noqa: ASYNC110 - the condition is another node's state
            await trio.sleep(0.01)
