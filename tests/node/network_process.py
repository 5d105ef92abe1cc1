"""Three nodes under load in one process, until SIGINT. Run by a test that reads what is printed."""

import signal

import trio
from network_swarm import Member, running_swarm

from ledger.errors import UnavailableError


async def load(member: Member, peer: int) -> None:
    for number in range(10**6):
        try:
            await member.ask(peer, b"zeros 300000", bytes_max=300_000)
            await member.network.broadcast(b"%d %d" % (member.index, number))
        except UnavailableError:
            return


async def main() -> None:
    with trio.open_signal_receiver(signal.SIGINT) as interrupts:
        async with running_swarm("libp2p", 3) as members, trio.open_nursery() as nursery:
            for member in members:
                nursery.start_soon(load, member, (member.index + 1) % 3)
                nursery.start_soon(load, member, (member.index + 2) % 3)
            await trio.sleep(0.5)
            print("under load", flush=True)  # noqa: T201 - the test waits for it
            async for _ in interrupts:
                break
            for member in members:
                nursery.start_soon(member.stop)
    print("left", flush=True)  # noqa: T201


if __name__ == "__main__":
    trio.run(main)
