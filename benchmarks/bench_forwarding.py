"""A request through a carrier beside a direct one, over real sockets. Run: make bench.

Three members in one process; two of them accept no connection and so reach each other through the
third. Limit: a carried payload moves at least SHARE_MIN times as fast as a direct one (it crosses the
network twice and is sealed besides).
"""

import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final

import trio
from nacl.signing import SigningKey
from network_worker import Quiet, peers_on, seed

from node.forwarding import ForwardingNetwork
from node.libp2p import Libp2pNetwork
from node.network import FETCH_PROTOCOL, Peer
from node.sealed import Sealer

SHARE_MIN: Final = 0.1
CHUNK_BYTES: Final = 1024 * 1024
CHUNKS: Final = 40
ASKED: Final = 100
PORT: Final = 14_790
NET: Final = bytes(32)


class Zeros:
    """Answers with as many bytes as the request says."""

    async def on_gossip(self, peer: int, message: bytes) -> None:
        """Let it pass."""

    async def on_request(self, peer: int, protocol: str, body: bytes) -> bytes:  # noqa: ARG002
        """Send zeros."""
        return bytes(int(body))


def member(index: int, peers: list[Peer]) -> ForwardingNetwork:
    """One of them; only member 0 listens."""
    inner = Libp2pNetwork(
        own_index=index,
        network_seed=seed(index),
        listen=peers[0].addresses if index == 0 else (),
        peers=peers,
        net=NET,
        log=Quiet(),
    )
    keys = {i: bytes(SigningKey(seed(i)).verify_key) for i in range(3)}
    return ForwardingNetwork(
        inner,
        names={peer.index: peer.name for peer in peers},
        sealer=Sealer(own=index, network_seed=seed(index), keys=keys, net=NET),
        log=Quiet(),
        uniform=secrets.SystemRandom().random,
        bytes_per_s=1e9,
    )


async def seconds(repeat: int, ask: Callable[[], Awaitable[bytes]]) -> float:
    """Return how long so many requests take, one after the other."""
    started_s = time.perf_counter()
    for _ in range(repeat):
        await ask()
    return time.perf_counter() - started_s


async def main() -> None:
    """Measure and compare."""
    first = peers_on([PORT])[0]
    peers = [first, *(
        Peer(index=i, name=str(i), network_key=bytes(SigningKey(seed(i)).verify_key))
        for i in (1, 2)
    )]  # fmt: skip
    networks = [member(index, peers) for index in range(3)]
    async with trio.open_nursery() as nursery:
        for network in networks:
            await nursery.start(network.run, Zeros())
        with trio.fail_after(30):
            while networks[1].carriers() != {2: 0}:  # noqa: ASYNC110 - the network tells nobody
                await trio.sleep(0.05)

        async def ask(peer: int, count: int) -> bytes:
            return await networks[1].request(
                peer, FETCH_PROTOCOL, str(count).encode(), reply_bytes_max=CHUNK_BYTES, timeout_s=30
            )

        speed = {}
        for how, peer in (("direct", 0), ("carried", 2)):
            await ask(peer, 1)
            speed[how] = (
                CHUNKS
                * CHUNK_BYTES
                / await seconds(CHUNKS, lambda peer=peer: ask(peer, CHUNK_BYTES))
            )
            small_s = await seconds(ASKED, lambda peer=peer: ask(peer, 1)) / ASKED
            print(f"{how:8} {speed[how] / 1e6:6.0f} MB/s   {small_s * 1e3:5.2f} ms a small request")
        nursery.cancel_scope.cancel()
    share = speed["carried"] / speed["direct"]
    print(f"carried / direct: {share:.2f} (limit {SHARE_MIN})")
    assert share >= SHARE_MIN


if __name__ == "__main__":
    trio.run(main)
