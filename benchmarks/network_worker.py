"""One process of an exchange: has a payload, serves it, and fetches that of every other process.

Run by bench_network.py: `network_worker.py KIND INDEX BYTES PORT…`. Says "ready" once it is connected
with all; each line on stdin starts one exchange, and one line of JSON says what it took.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import trio
from nacl.signing import SigningKey

from node.libp2p import Libp2pNetwork
from node.network import FETCH_PROTOCOL, Peer

CHUNK_BYTES: Final = 1024 * 1024
AT_ONCE: Final = 4
"""Chunks under way from one peer."""
STOCK_PROTOCOL: Final = "/bench/1"

Fetch: TypeAlias = Callable[[int], Awaitable[None]]


class Quiet:
    """A log that nobody reads."""

    def debug(self, event: str, **fields: object) -> None:
        """Drop it."""

    info = warning = debug


def seed(index: int) -> bytes:
    """The key of a member."""
    return bytes([index + 1]) * 32


def peers_on(ports: list[int]) -> list[Peer]:
    """The members of an exchange."""
    return [
        Peer(
            index=index,
            name=str(index),
            network_key=bytes(SigningKey(seed(index)).verify_key),
            addresses=(f"/ip4/127.0.0.1/tcp/{port}",),
        )
        for index, port in enumerate(ports)
    ]


def cpu_s() -> float:
    """CPU seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Exchange:
    """Our payload, and room for those of the others."""

    def __init__(self, index: int, bytes_count: int, ports: list[int]) -> None:
        self.index, self.bytes_count, self.ports = index, bytes_count, ports
        self.others = [other for other in range(len(ports)) if other != index]
        self.rss_before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.payload = [
            os.urandom(min(CHUNK_BYTES, bytes_count - start))
            for start in range(0, bytes_count, CHUNK_BYTES)
        ]
        self.room = {other: bytearray(bytes_count) for other in self.others}

    def take(self, other: int, start: int, chunk: bytes) -> None:
        """Put a piece where it belongs."""
        self.room[other][start : start + len(chunk)] = chunk

    async def serve_commands(self, fetch: Fetch) -> None:
        """Do one exchange for each line that comes in."""
        print("ready", flush=True)
        while await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            started_s, cpu_before_s = time.perf_counter(), cpu_s()
            async with trio.open_nursery() as nursery:
                for other in self.others:
                    nursery.start_soon(fetch, other)
            peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            said = {
                "seconds": time.perf_counter() - started_s,
                "cpu_s": cpu_s() - cpu_before_s,
                "above_base_bytes": (peak_kb - self.rss_before_kb) * 1024,
            }
            print(json.dumps(said), flush=True)

    # Ours

    async def on_gossip(self, peer: int, message: bytes) -> None:
        """Take nothing."""

    async def on_request(self, peer: int, protocol: str, body: bytes) -> bytes:  # noqa: ARG002
        """Serve one chunk."""
        return self.payload[int(body) // CHUNK_BYTES]

    async def run_ours(self) -> None:
        """Exchange over the node's network."""
        network = Libp2pNetwork(
            own_index=self.index,
            network_seed=seed(self.index),
            listen=[f"/ip4/127.0.0.1/tcp/{self.ports[self.index]}"],
            peers=peers_on(self.ports),
            net=bytes(32),
            log=Quiet(),
        )

        async def fetch(other: int) -> None:
            starts = iter(range(0, self.bytes_count, CHUNK_BYTES))

            async def one_after_the_other() -> None:
                for start in starts:
                    chunk = await network.request(
                        other,
                        FETCH_PROTOCOL,
                        b"%d" % start,
                        reply_bytes_max=CHUNK_BYTES,
                        timeout_s=60,
                    )
                    self.take(other, start, chunk)

            async with trio.open_nursery() as fetching:
                for _ in range(AT_ONCE):
                    fetching.start_soon(one_after_the_other)

        async with trio.open_nursery() as nursery:
            await nursery.start(network.run, self)
            while len(network.connected()) < len(self.others):  # noqa: ASYNC110
                await trio.sleep(0.01)
            await self.serve_commands(fetch)
            nursery.cancel_scope.cancel()

    # libp2p as it comes

    async def run_stock(self) -> None:
        """Exchange over an unmodified libp2p host: noise, yamux, one stream a payload."""
        from libp2p import new_host
        from libp2p.abc import INetStream
        from libp2p.crypto.ed25519 import create_new_key_pair
        from libp2p.crypto.x25519 import create_new_key_pair as x25519_key_pair
        from libp2p.custom_types import TProtocol
        from libp2p.peer.id import ID
        from libp2p.peer.peerinfo import PeerInfo
        from libp2p.security.noise.transport import PROTOCOL_ID, Transport
        from multiaddr import Multiaddr

        keys = create_new_key_pair(seed(self.index))
        noise = Transport(keys, noise_privkey=x25519_key_pair().private_key)
        host = new_host(keys, sec_opt={PROTOCOL_ID: noise})

        async def serve(stream: INetStream) -> None:
            await stream.read(1)
            for chunk in self.payload:
                await stream.write(chunk)
            await stream.close()

        def info(other: int) -> PeerInfo:
            key = create_new_key_pair(seed(other)).public_key
            return PeerInfo(ID.from_pubkey(key), [address(other)])

        def address(index: int) -> Multiaddr:
            return Multiaddr(f"/ip4/127.0.0.1/tcp/{self.ports[index]}")

        async def fetch(other: int) -> None:
            stream = await host.new_stream(info(other).peer_id, [TProtocol(STOCK_PROTOCOL)])
            await stream.write(b".")
            start = 0
            while start < self.bytes_count:
                piece = await stream.read(CHUNK_BYTES)
                self.take(other, start, piece)
                start += len(piece)
            await stream.close()

        host.set_stream_handler(TProtocol(STOCK_PROTOCOL), serve)
        async with host.run([address(self.index)]):
            await trio.sleep(1)
            for other in self.others:
                if other < self.index:
                    await host.connect(info(other))
            await trio.sleep(1)
            await self.serve_commands(fetch)
            await host.get_network().close()


if __name__ == "__main__":
    kind, index, count, *ports = sys.argv[1:]
    exchange = Exchange(int(index), int(count), [int(port) for port in ports])
    trio.run(exchange.run_ours if kind == "ours" else exchange.run_stock)
