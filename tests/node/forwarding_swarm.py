"""Members some of whom accept no connection, in memory or over real sockets, for the tests here."""

import itertools
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from random import Random

import trio
from nacl.signing import SigningKey
from network_swarm import NET, Log, Member, free_port, peers_on, seeds, until

from node.forwarding import BYTES_PER_S, ForwardingNetwork
from node.network import Network, Peer
from node.network_memory import MemoryHub
from node.sealed import Sealer


def sealer_of(index: int, count: int) -> Sealer:
    keys = {i: bytes(SigningKey(seed).verify_key) for i, seed in enumerate(seeds(count))}
    return Sealer(own=index, network_seed=seeds(count)[index], keys=keys, net=NET)


def wrapped(
    inner: Network, index: int, count: int, log: Log, *, bytes_per_s: float = BYTES_PER_S
) -> ForwardingNetwork:
    return ForwardingNetwork(
        inner,
        names={i: f"site {i}" for i in range(count)},
        sealer=sealer_of(index, count),
        log=log,
        uniform=Random(index).random,
        dialling=inner if hasattr(inner, "redirect") else None,  # type: ignore[arg-type]
        bytes_per_s=bytes_per_s,
    )


@asynccontextmanager
async def forwarding_swarm(
    kind: str,
    count: int,
    *,
    outbound_only: Collection[int],
    bytes_per_s: float = BYTES_PER_S,
) -> AsyncIterator[list[Member]]:
    """Members that run and all see each other, directly or through others."""
    async with trio.open_nursery() as nursery:
        members: list[Member] = []
        hub = MemoryHub(seed=1)
        for a, b in itertools.permutations(sorted(outbound_only), 2):
            hub.block(a, b)
        peers = [
            peer
            if peer.index not in outbound_only
            else Peer(index=peer.index, name=peer.name, network_key=peer.network_key)
            for peer in peers_on([free_port() for _ in range(count)])
        ]
        for index in range(count):
            log = Log()

            def make(index: int = index, log: Log = log) -> Network:
                if kind == "memory":
                    inner: Network = hub.network(index, log=log)
                else:
                    from node.libp2p import Libp2pNetwork

                    inner = Libp2pNetwork(
                        own_index=index,
                        network_seed=seeds(count)[index],
                        listen=peers[index].addresses,
                        peers=peers,
                        net=NET,
                        log=log,
                    )
                return wrapped(inner, index, count, log, bytes_per_s=bytes_per_s)

            members.append(Member(index, make, nursery, log=log))
        for member in members:
            await member.start()
        everybody = frozenset(range(count))
        for member in members:
            await until(lambda m=member: everybody - {m.index} == m.network.connected(), s=20)
        yield members
        for member in members:
            nursery.start_soon(member.stop)
