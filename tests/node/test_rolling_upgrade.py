"""Two versions of the program in one swarm, over real sockets: each asks the other in what both know.

The newer one is made here: it speaks another /swarm/sync, incompatible with today's, and writes records
of a kind that today's does not know. Spec: docs/wire.md §2.4.
"""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from exchanging import nodes, until
from network_swarm import Log, free_port

from ledger.record import open_record
from node.libp2p import Libp2pNetwork
from node.network import (
    SYNC_PROTOCOL,
    TASK_STATUS_IGNORED,
    Handlers,
    Peer,
    TaskStatus,
    Traffic,
    UnspokenError,
)
from scenarios.simulator import identity_of
from tests.federation import Federation

NEWER_SYNC: Final = "/swarm/sync/2"
EXTENSION_KIND: Final = 40_000
OLD, NEW = (0, 1), (2, 3)


class NewerNetwork:
    """A network of the next version: packs what it compares, where the peer understands that."""

    def __init__(self, inner: Libp2pNetwork) -> None:
        self._inner = inner
        self._handlers: Handlers | None = None
        self.asked_in: dict[int, str] = {}
        self.answered_in: dict[int, str] = {}

    async def run(
        self, handlers: Handlers, *, task_status: TaskStatus = TASK_STATUS_IGNORED
    ) -> None:
        self._handlers = handlers
        await self._inner.run(self, task_status=task_status)

    async def on_gossip(self, peer: int, message: bytes) -> None:
        assert self._handlers is not None
        await self._handlers.on_gossip(peer, message)

    async def on_request(self, peer: int, protocol: str, body: bytes) -> bytes:
        assert self._handlers is not None
        if protocol in (SYNC_PROTOCOL, NEWER_SYNC):
            self.answered_in[peer] = protocol
        if protocol != NEWER_SYNC:
            return await self._handlers.on_request(peer, protocol, body)
        reply = await self._handlers.on_request(peer, SYNC_PROTOCOL, zlib.decompress(body))
        return zlib.compress(reply)

    async def request(
        self, peer: int, protocol: str, body: bytes, *, reply_bytes_max: int, timeout_s: float
    ) -> bytes:
        limits = {"reply_bytes_max": reply_bytes_max, "timeout_s": timeout_s}
        if protocol == SYNC_PROTOCOL and self.asked_in.get(peer) != SYNC_PROTOCOL:
            try:
                packed = zlib.compress(body)
                reply = await self._inner.request(peer, NEWER_SYNC, packed, **limits)  # type: ignore[arg-type]
                self.asked_in[peer] = NEWER_SYNC
                return zlib.decompress(reply)
            except UnspokenError:
                self.asked_in[peer] = SYNC_PROTOCOL
        return await self._inner.request(peer, protocol, body, **limits)  # type: ignore[arg-type]

    async def broadcast(self, message: bytes) -> None:
        await self._inner.broadcast(message)

    def connected(self) -> frozenset[int]:
        return self._inner.connected()

    def last_seen_s(self) -> Mapping[int, float]:
        return self._inner.last_seen_s()

    def traffic(self) -> Traffic:
        return self._inner.traffic()


def network(
    own: int, ports: Sequence[int], federation: Federation, log: Log
) -> Libp2pNetwork | NewerNetwork:
    """Member 0 and member 3 have no way to each other."""
    peers = [
        Peer(
            index=index,
            name=f"site {index}",
            network_key=identity_of(1, index).network_key,
            addresses=() if {own, index} == {0, 3} else (f"/ip4/127.0.0.1/tcp/{port}",),
        )
        for index, port in enumerate(ports)
    ]
    made = Libp2pNetwork(
        own_index=own, network_seed=identity_of(1, own).network_seed, listen=peers[own].addresses,
        peers=peers, net=federation.roster.net, log=log,
    )  # fmt: skip
    if own not in NEW:
        return made
    made.speak(NEWER_SYNC)
    return NewerNetwork(made)


async def test_an_older_and_a_newer_version_work_in_one_swarm(tmp_path: Path) -> None:
    federation = Federation(4)
    ports, logs = [free_port() for _ in range(4)], [Log() for _ in range(4)]
    networks = {own: network(own, ports, federation, logs[own]) for own in range(4)}
    async with nodes(federation, tmp_path, network_of=networks.__getitem__) as (_, members, _n):
        for index, node in members.items():
            await node.write(federation[index].open())
        await members[3].journal.append(EXTENSION_KIND, 0, b"from the future")  # type: ignore[arg-type]
        everything = {(0, 0): 1, (1, 0): 1, (2, 0): 1, (3, 0): 2}
        await until(lambda: all(m.journal.counts() == everything for m in members.values()), 20)
        newer = [networks[own] for own in NEW]
        assert isinstance(newer[0], NewerNetwork)
        assert isinstance(newer[1], NewerNetwork)
        await until(lambda: len(newer[0].asked_in) == 3 and len(newer[1].asked_in) == 2, 20)
        await until(lambda: len(newer[0].answered_in) == 3 and len(newer[1].answered_in) == 2, 20)
        assert newer[0].asked_in == newer[0].answered_in == {
            0: SYNC_PROTOCOL, 1: SYNC_PROTOCOL, 3: NEWER_SYNC,
        }  # fmt: skip
        assert newer[1].asked_in == newer[1].answered_in == {1: SYNC_PROTOCOL, 2: NEWER_SYNC}
        assert networks[0].connected() == {1, 2}, "it never met the newer record's author"
        envelopes = await members[0].journal.envelopes({(3, 0): 1})
        kept = [open_record_of(federation, envelope) for envelope in envelopes]
        assert (EXTENSION_KIND, b"from the future") in kept
    for log in logs:
        for event in ("record_refused", "sync_refused", "handler_failed", "peer_lost"):
            assert not log.named(event)


def open_record_of(federation: Federation, envelope: bytes) -> tuple[int, object]:
    from ledger.record import parse_envelope

    value = open_record(parse_envelope(envelope), roster=federation.roster).value
    return int(value.kind), value.body
