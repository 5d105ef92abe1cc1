"""Requests and gossip over real loopback sockets, two processes. Run: make bench.

Limits: a payload of 100 MB in 1 MiB requests at no less than REQUEST_MB_S_MIN; one gossip
message costs no node more than GOSSIP_CPU_MS_MAX. Measured on 2 cores at 2.5 GHz.
"""

import resource
import subprocess
import sys
import time
from typing import Final

import trio
from nacl.signing import SigningKey

from node.libp2p import Libp2pNetwork
from node.network import FETCH_PROTOCOL, Peer

REQUEST_MB_S_MIN: Final = 30.0
GOSSIP_CPU_MS_MAX: Final = 12.0
PAYLOAD_BYTES: Final = 100_000_000
CHUNK_BYTES: Final = 1024 * 1024
MESSAGES: Final = 200
PORTS: Final = (14_801, 14_802)
SEEDS: Final = (b"\x01" * 32, b"\x02" * 32)


class _Quiet:
    def debug(self, event: str, **fields: object) -> None: ...

    info = warning = debug


class _Service:
    def __init__(self) -> None:
        self.chunk = bytes(CHUNK_BYTES)
        self.heard = 0

    async def on_gossip(self, peer: int, message: bytes) -> None:  # noqa: ARG002
        self.heard += 1

    async def on_request(self, peer: int, protocol: str, body: bytes) -> bytes:  # noqa: ARG002
        if body == b"cpu":
            return f"{cpu_s()} {self.heard}".encode()
        return self.chunk


def cpu_s() -> float:
    """CPU seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def network(index: int) -> Libp2pNetwork:
    """One of the two members."""
    peers = [
        Peer(
            index=i,
            name=str(i),
            network_key=bytes(SigningKey(seed).verify_key),
            addresses=(f"/ip4/127.0.0.1/tcp/{PORTS[i]}",),
        )
        for i, seed in enumerate(SEEDS)
    ]
    return Libp2pNetwork(
        own_index=index,
        network_seed=SEEDS[index],
        listen=peers[index].addresses,
        peers=peers,
        net=bytes(32),
        log=_Quiet(),
    )


async def serve() -> None:
    """Be the other process."""
    await network(1).run(_Service())


async def ask(net: Libp2pNetwork, body: bytes) -> bytes:
    """One request."""
    return await net.request(1, FETCH_PROTOCOL, body, reply_bytes_max=CHUNK_BYTES, timeout_s=30)


async def fetch(net: Libp2pNetwork, *, at_once: int) -> float:
    """Fetch the payload; returns MB/s."""
    chunks = iter(range(PAYLOAD_BYTES // CHUNK_BYTES))
    start_s = time.perf_counter()

    async def worker() -> None:
        for _ in chunks:
            await ask(net, b"chunk")

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(worker)
    return PAYLOAD_BYTES / 1e6 / (time.perf_counter() - start_s)


async def measure() -> bool:
    """Print every figure; return whether all limits hold."""
    net = network(0)
    holds = True
    async with trio.open_nursery() as nursery:
        start_s = time.perf_counter()
        await nursery.start(net.run, _Service())
        while not net.connected():  # noqa: ASYNC110 - the other process is not ours to wait for
            await trio.sleep(0.01)
        print(f"connected after {time.perf_counter() - start_s:.2f} s (the other's start included)")
        for at_once in (1, 4):
            before, there = cpu_s(), float((await ask(net, b"cpu")).split()[0])
            rate = await fetch(net, at_once=at_once)
            there = float((await ask(net, b"cpu")).split()[0]) - there
            print(
                f"requests, {at_once} at once: {rate:.0f} MB/s for 100 MB in 1 MiB, "
                f"CPU {cpu_s() - before:.2f} s asking, {there:.2f} s answering"
            )
            holds &= rate >= REQUEST_MB_S_MIN
        await trio.sleep(2)
        before, start = cpu_s(), (await ask(net, b"cpu")).split()
        for number in range(MESSAGES):
            await net.broadcast(number.to_bytes(4, "big") * 256)
            await trio.sleep(0.02)
        await trio.sleep(0.5)
        end = (await ask(net, b"cpu")).split()
        sender_ms = (cpu_s() - before) / MESSAGES * 1e3
        receiver_ms = (float(end[0]) - float(start[0])) / MESSAGES * 1e3
        heard = int(end[1]) - int(start[1])
        print(
            f"gossip of 1 KiB: {sender_ms:.1f} ms CPU sending, {receiver_ms:.1f} ms receiving, "
            f"{heard} of {MESSAGES} heard"
        )
        holds &= max(sender_ms, receiver_ms) <= GOSSIP_CPU_MS_MAX
        start_s = time.perf_counter()
        for _ in range(100):
            await net.request(1, FETCH_PROTOCOL, b"cpu", reply_bytes_max=99, timeout_s=9)
        print(f"small request: {(time.perf_counter() - start_s) * 10:.1f} ms")
        nursery.cancel_scope.cancel()
    return holds


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        trio.run(serve)
    with subprocess.Popen([sys.executable, __file__, "serve"]) as other:  # noqa: S603 - ourselves
        try:
            holds = trio.run(measure)
        finally:
            other.kill()
    sys.exit(0 if holds else 1)
