"""A real process is killed in the middle of a transfer over real sockets: the next one goes on from there."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import trio
from network_swarm import free_port
from transfer_process import network, transfer_of

from node.network import FETCH_PROTOCOL
from node.transfer import Transfer
from swarm.protocol.fetch import WINDOW_MAX
from swarm.protocol.messages import Part, decode_fetch_request
from swarm.protocol.payload import CHUNK_BYTES, payload_digest

pytestmark = pytest.mark.processes

CHUNKS = 20
PAYLOAD = Random(1).randbytes(CHUNKS * CHUNK_BYTES - 9)
UNDER_WAY_MAX = WINDOW_MAX
SERVED_S = 0.1
"""Each chunk takes so long, that there is a middle to be killed in."""


class Source:
    """Serves chunks one by one, and tells when somebody has half of them."""

    def __init__(self, transfer: Transfer) -> None:
        self.asked: list[int] = []
        self.half = trio.Event()
        self._transfer = transfer
        self.line = trio.Lock()

    async def on_gossip(self, peer: int, message: bytes) -> None:
        """Nothing is announced here."""

    async def on_request(self, peer: int, protocol: str, body: bytes) -> bytes:
        assert protocol == FETCH_PROTOCOL
        request = decode_fetch_request(body)
        if request.part is Part.CHUNK:
            async with self.line:
                await trio.sleep(SERVED_S)
                self.asked.append(request.index)
                if len(self.asked) > CHUNKS / 2 + UNDER_WAY_MAX:
                    self.half.set()
        return await self._transfer.on_request(peer, body)


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


async def test_killed_half_way_a_node_fetches_only_the_other_half(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    ports = [free_port(), free_port()]
    digest = payload_digest(1, PAYLOAD)
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here.parent.parent), str(here)])

    def start() -> subprocess.Popen[bytes]:
        line = [sys.executable, here / "transfer_process.py", tmp_path / "1", digest.hex()]
        process = subprocess.Popen(
            [*line, *map(str, ports)], env={**os.environ, "PYTHONPATH": paths}
        )
        started.append(process)
        return process

    net = network(0, ports)
    transfer = transfer_of(net, tmp_path / "0")
    transfer.blobs.put(1, PAYLOAD)
    source = Source(transfer)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(net.run, source)
            victim = start()
            await source.half.wait()
            victim.send_signal(signal.SIGKILL)
            await trio.to_thread.run_sync(victim.wait)
            async with source.line:  # what the dead one had asked for is answered by now
                served = len(source.asked)
            partial = transfer_of(net, tmp_path / "1").blobs.resume(digest)
            assert partial is not None
            missing = set(range(CHUNKS)) - partial.held
            partial.close()
            survivor = start()
            assert await trio.to_thread.run_sync(survivor.wait) == 0
            nursery.cancel_scope.cancel()
    assert transfer_of(net, tmp_path / "1").blobs.get(digest) == PAYLOAD
    print(f"killed with {CHUNKS - len(missing)} of {CHUNKS} chunks")  # noqa: T201
    assert len(missing) <= CHUNKS / 2
    assert sorted(source.asked[served:]) == sorted(missing), "it asked for nothing that it had"
