"""Two versions of the program in one swarm: each asks the other in what both know, over real sockets too.

The newer one is made here: it speaks another /swarm/sync, incompatible with today's, and writes records
of a kind that today's does not know. Spec: docs/wire.md §2.4.
"""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from exchanging import nodes, until
from network_swarm import Log, free_port

import node.network_memory
from ledger.bundle import export_bundle
from ledger.record import decode_record, open_record
from ledger.store import Store
from ledger.verify import verify_bundles
from node.libp2p import Libp2pNetwork
from node.network import (
    SYNC_PROTOCOL,
    TASK_STATUS_IGNORED,
    Handlers,
    Network,
    Peer,
    TaskStatus,
    Traffic,
    UnspokenError,
)
from node.network_memory import MemoryNetwork
from scenarios.simulation.swarm import Calm
from scenarios.simulator import Swarm, identity_of, simulate
from tests.federation import Federation
from tests.simulated import swarm_of

NEWER_SYNC: Final = "/swarm/sync/2"
EXTENSION_KIND: Final = 40_000
OLD, NEW = (0, 1), (2, 3)


class NewerNetwork:
    """A network of the next version: packs what it compares, where the peer understands that."""

    def __init__(self, inner: Network) -> None:
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
        for index, member in members.items():
            await member.write(federation[index].open())
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


def test_a_swarm_of_two_versions_finishes_its_rounds_and_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    charter, sites = swarm_of(4, rounds=4)
    newer: dict[int, NewerNetwork] = {}
    stock = Calm.network

    def network_of(around: Calm, index: int) -> Network:
        inner = stock(around, index)
        return newer.setdefault(index, NewerNetwork(inner)) if index in NEW else inner

    async def writes_what_only_the_newer_knows(swarm: Swarm) -> None:
        while not (one := swarm.services.get(3)) or one.machine.round < 2:  # noqa: ASYNC110
            await trio.sleep(0.25)
        await one.journal.append(EXTENSION_KIND, one.book.reached(3), b"from the future")  # type: ignore[arg-type]

    async def negotiated(
        network: MemoryNetwork, peer: int, protocol: str, body: bytes, **limits: Any
    ) -> bytes:
        if protocol == NEWER_SYNC and peer not in NEW:
            raise UnspokenError(f"member {peer} does not speak {protocol}")
        return await asked(network, peer, protocol, body, **limits)

    asked = MemoryNetwork.request
    monkeypatch.setattr(MemoryNetwork, "request", negotiated)
    monkeypatch.setattr(node.network_memory, "check_request", lambda *_: None)
    monkeypatch.setattr(Calm, "network", network_of)
    outcome = simulate(
        charter=charter, sites=sites, directory=tmp_path, seed=21,
        faults=writes_what_only_the_newer_knows,
    )  # fmt: skip
    assert not outcome.failures, outcome.failures
    assert outcome.rounds_agreed == (4, 4, 4, 4)
    assert len(set(outcome.results)) == len(set(outcome.heads)) == 1
    assert newer[2].asked_in == newer[2].answered_in == {
        0: SYNC_PROTOCOL, 1: SYNC_PROTOCOL, 3: NEWER_SYNC,
    }  # fmt: skip
    with Store.open(tmp_path / "0.db", read_only=True) as store:
        kinds = [decode_record(one.record_bytes)[7] for one in store.records(author=3)]
        bundle = export_bundle(store, charter.source_bytes, tmp_path / "bundle")
    assert EXTENSION_KIND in kinds, "what is not known is stored and passed on"
    report = verify_bundles([bundle], charter.source_bytes, charter.digest_hex)
    assert report.verdict == "VERIFIED", report.to_text()


def open_record_of(federation: Federation, envelope: bytes) -> tuple[int, object]:
    from ledger.record import parse_envelope

    value = open_record(parse_envelope(envelope), roster=federation.roster).value
    return int(value.kind), value.body
