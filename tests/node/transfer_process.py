"""A node's transfers without the rest of a node: fetches one payload over real sockets, and says so.

Run as `transfer_process.py DIR DIGEST PORT OWN_PORT`: member 1, which asks member 0 at PORT.
"""

import sys
from pathlib import Path
from random import Random

import trio
from network_swarm import NET, Log, Service, peers_on, seeds

from node.blobs import BlobStore
from node.compute import ThreadCompute
from node.libp2p import Libp2pNetwork
from node.transfer import Transfer
from node.world import World
from swarm.protocol.book import RoundBook

sys.path.insert(0, str(Path(__file__).parent.parent / "ledger"))

from ledger_factory import Federation


def network(own: int, ports: list[int]) -> Libp2pNetwork:
    return Libp2pNetwork(
        own_index=own,
        network_seed=seeds(2)[own],
        listen=[f"/ip4/127.0.0.1/tcp/{ports[own]}"],
        peers=peers_on(ports),
        net=NET,
        log=Log(),
    )


def transfer_of(net: Libp2pNetwork, directory: Path) -> Transfer:
    world = World(
        network=net,
        compute=ThreadCompute(),
        disk=ThreadCompute(),
        time_ms=lambda: 1_000,
        random=Random(1),
        log=Log(),
    )
    book = RoundBook(Federation(2).roster)
    return Transfer(world=world, blobs=BlobStore(directory), book=book, behind=lambda: None)


async def main(directory: Path, digest: bytes, ports: list[int]) -> None:
    net = network(1, ports)
    transfer = transfer_of(net, directory)
    async with trio.open_nursery() as nursery:
        await nursery.start(net.run, Service())
        async with transfer.fetch(digest, sources=(0,), payload_bytes_max=1 << 30) as received:
            await transfer.accept(received)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(
        main,
        Path(sys.argv[1]),
        bytes.fromhex(sys.argv[2]),
        [int(sys.argv[3]), int(sys.argv[4])],
    )
