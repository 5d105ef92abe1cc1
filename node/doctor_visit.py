"""One short stay in the swarm, listening nowhere, to ask for the time and for connections.

Room: node. Law: answers nobody, signs nothing, and says of the ledger what the node would say.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from ledger.errors import PeerError, StoreError, UnavailableError
from ledger.store import Store
from node.config import SiteConfig
from node.identity import Identity
from node.line import line_of
from node.network import (
    REACH_PROTOCOL,
    REQUEST_BYTES_MAX,
    SYNC_PROTOCOL,
    Network,
    OtherFederationError,
    Peer,
)
from node.telemetry import get_log
from swarm.protocol.messages import Head, Heads, Hello, decode_sync_reply, encode_sync_request
from swarm.protocol.reach import Reach, Sight, decode_reach, encode_reach

VISIT_S: Final = 8.0
REQUEST_TIMEOUT_S: Final = 5.0
POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Visited:
    """What was learnt. Whoever did not answer in time is missing."""

    skews_s: dict[int, float] = field(default_factory=dict)
    views: dict[int, Reach] = field(default_factory=dict)
    foreign: set[int] = field(default_factory=set)
    records: list[bytes] = field(default_factory=list)
    """Address records that they passed on, not opened yet."""


async def visit(
    config: SiteConfig, identity: Identity, own: int, *, net: bytes, peers: Sequence[Peer]
) -> Visited:
    """Ask members that answered a dial."""
    from node.libp2p import Libp2pNetwork

    visited = Visited()
    if not peers:
        return visited
    network = Libp2pNetwork(
        own_index=own,
        network_seed=identity.network_seed,
        listen=(),
        peers=peers,
        net=net,
        log=get_log(),
        line=line_of(config),
    )
    heads = _heads(config)

    async def serve(*, task_status: Any) -> None:
        await network.run(_Silent(), task_status=task_status)

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        with trio.move_on_after(VISIT_S):
            async with trio.open_nursery() as asking:
                for peer in peers:
                    asking.start_soon(_ask, network, peer.index, heads, visited)
        nursery.cancel_scope.cancel()
    return visited


async def _ask(network: Network, peer: int, heads: Heads, visited: Visited) -> None:
    """Ask until there is an answer: one of two connections may close just when it is used."""
    while True:
        while peer not in network.connected():  # noqa: ASYNC110 - the network tells nobody
            await trio.sleep(POLL_S)
        try:
            await _ask_once(network, peer, heads, visited)
        except OtherFederationError:
            visited.foreign.add(peer)
        except UnavailableError:
            await trio.sleep(POLL_S)
            continue
        except PeerError:
            pass
        return


async def _ask_once(network: Network, peer: int, heads: Heads, visited: Visited) -> None:
    asked_ms, asked_s = _now_ms(), trio.current_time()
    hello = Hello(heads=heads, round=0, phase=0, time_ms=asked_ms)
    reply = await _request(network, peer, SYNC_PROTOCOL, encode_sync_request(hello))
    half_way_ms = (trio.current_time() - asked_s) * 500
    theirs_ms = decode_sync_reply(reply).hello.time_ms
    visited.skews_s[peer] = (theirs_ms - asked_ms - half_way_ms) / 1000
    connected = dict.fromkeys(network.connected(), Sight.CONNECTED)
    ours = encode_reach(Reach(sights=connected, carries=False))
    view = decode_reach(await _request(network, peer, REACH_PROTOCOL, ours))
    visited.views[peer] = view
    visited.records.extend(view.records)


async def _request(network: Network, peer: int, protocol: str, body: bytes) -> bytes:
    return await network.request(
        peer, protocol, body, reply_bytes_max=REQUEST_BYTES_MAX, timeout_s=REQUEST_TIMEOUT_S
    )


def _heads(config: SiteConfig) -> Heads:
    """Say what this site holds, so that a peer does not send it all again."""
    try:
        with Store.open(config.paths.ledger, read_only=True) as store:
            return {log: Head(head.next_seq, head.prev_id) for log, head in store.heads().items()}
    except StoreError:
        return {}


class _Silent:
    """Takes part in nothing."""

    async def on_gossip(self, peer: int, message: bytes) -> None:
        """Let it pass."""

    async def on_request(self, peer: int, protocol: str, body: bytes) -> bytes:  # noqa: ARG002
        """Answer nobody."""
        raise PeerError("only a doctor is here; the node does not run yet")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
