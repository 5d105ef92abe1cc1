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
from network_swarm import free_port, until
from transfer_process import network, transfer_of
from trio.testing import wait_all_tasks_blocked

from node.network import FETCH_PROTOCOL
from node.transfer import Transfer
from swarm.protocol.messages import Part, decode_fetch_request
from swarm.protocol.payload import CHUNK_BYTES, payload_digest

pytestmark = pytest.mark.processes

CHUNKS = 96
PAYLOAD_BYTES = CHUNKS * CHUNK_BYTES - 9
"""100 MB."""
HALF = CHUNKS // 2


class Source:
    """Serves half of the chunks, and lets who asks for more wait until it may go on."""

    def __init__(self, transfer: Transfer) -> None:
        self.asked: list[int] = []
        self.goes_on = trio.Event()
        self._transfer = transfer

    async def on_gossip(self, peer: int, message: bytes) -> None:
        """Nothing is announced here."""

    async def on_request(self, peer: int, protocol: str, body: bytes) -> bytes:
        assert protocol == FETCH_PROTOCOL
        request = decode_fetch_request(body)
        if request.part is Part.CHUNK:
            self.asked.append(request.index)
            if len(self.asked) > HALF:
                await self.goes_on.wait()
        return await self._transfer.on_request(peer, body)


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def chunks_in(directory: Path, payload: bytes) -> set[int]:
    """Chunks of a payload that its file in ``directory`` holds, found without asking a node."""
    held = set()
    for path in directory.glob("*.incoming"):
        with path.open("rb") as file:
            for index in range(CHUNKS):
                at = index * CHUNK_BYTES
                file.seek(at)
                if file.read(CHUNK_BYTES) == payload[at : at + CHUNK_BYTES]:
                    held.add(index)
    return held


async def test_killed_half_way_a_node_fetches_only_the_other_half(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    payload = Random(1).randbytes(PAYLOAD_BYTES)
    ports = [free_port(), free_port()]
    digest = payload_digest(1, payload)
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here.parent.parent), str(here)])

    def start() -> subprocess.Popen[bytes]:
        line = [here / "transfer_process.py", tmp_path / "1", digest.hex(), *ports]
        process = subprocess.Popen(
            [sys.executable, *map(str, line)], env={**os.environ, "PYTHONPATH": paths}
        )
        started.append(process)
        return process

    net = network(0, ports)
    transfer = transfer_of(net, tmp_path / "0")
    transfer.blobs.put(1, payload)
    source = Source(transfer)
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            await nursery.start(net.run, source)
            victim = start()
            await until(lambda: len(source.asked) >= HALF, s=60)
            await until(lambda: len(chunks_in(tmp_path / "1", payload)) == HALF, s=60)
            victim.send_signal(signal.SIGKILL)
            await trio.to_thread.run_sync(victim.wait)
            await until(lambda: not net.connected())
            await wait_all_tasks_blocked()
            missing = set(range(CHUNKS)) - chunks_in(tmp_path / "1", payload)
            assert len(missing) == HALF
            source.asked.clear()
            source.goes_on.set()
            survivor = start()
            assert await trio.to_thread.run_sync(survivor.wait) == 0
            nursery.cancel_scope.cancel()
    assert transfer_of(net, tmp_path / "1").blobs.get(digest) == payload
    assert sorted(source.asked) == sorted(missing), "it asked for nothing that it had"
