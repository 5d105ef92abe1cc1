"""One node in a process of its own, to be attacked: answers an honest member, and says what it holds."""

import os
import sys
from pathlib import Path

import trio
from network_swarm import NET, Log, peers_on, seeds

from node.libp2p import Libp2pNetwork
from node.libp2p.muxer import as_yamux
from node.links import Timing

HANDSHAKE_S = 3.0
BAD = 2  # the bad member's index


class Service:
    """Answers what the victim holds, or zeros, or late."""

    network: Libp2pNetwork

    async def on_gossip(self, peer: int, message: bytes) -> None: ...

    async def on_request(self, _peer: int, _protocol: str, body: bytes) -> bytes:
        word, _, rest = body.partition(b" ")
        match word:
            case b"held":
                return b"%d %d" % (rss_bytes(), streams_of_bad(self.network))
            case b"zeros":
                return bytes(int(rest))
            case b"sleep":
                await trio.sleep(float(rest))
        return body[:64]


def rss_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def streams_of_bad(network: Libp2pNetwork) -> int:
    """Streams that the bad member has open on one connection, the most on any."""
    assert network._life is not None
    muxed = [as_yamux(one.muxed_conn) for one in network._life.connections.open(BAD)]
    return max((sum(not one.is_ours(at) for at in one._streams) for one in muxed), default=0)


async def main(ports: list[int]) -> None:
    service = Service()
    service.network = network = Libp2pNetwork(
        own_index=0,
        network_seed=seeds(9)[0],
        listen=[f"/ip4/127.0.0.1/tcp/{ports[0]}"],
        peers=peers_on(ports),
        net=NET,
        log=Log(),
        timing=Timing(dial_s=HANDSHAKE_S),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(network.run, service)
        print("ready", flush=True)  # noqa: T201 - the test waits for it
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, [int(port) for port in sys.argv[1:]])
