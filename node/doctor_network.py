"""The doctor's look outside: whether members can be dialled, and their clocks agree with ours.

Room: node. Law: dials as the node would, says where it stands as the node would, and hangs up; it
stores and signs nothing.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import trio

from ledger.charter import Charter
from ledger.errors import ConfigError, PeerError, StoreError, UnavailableError
from ledger.store import Store
from node.config import SiteConfig
from node.findings import Finding, fail, ok, warn
from node.identity import Identity
from node.line import line_of
from node.network import REQUEST_BYTES_MAX, SYNC_PROTOCOL, OtherFederationError, Peer
from node.telemetry import get_log
from swarm.protocol.messages import Head, Heads, Hello, decode_sync_reply, encode_sync_request

if TYPE_CHECKING:
    from node.libp2p import Libp2pNetwork

DIAL_TIMEOUT_S: Final = 5.0
CLOCK_TIMEOUT_S: Final = 8.0
POLL_S: Final = 0.1
SKEW_WARN_S: Final = 30.0
SKEW_FAIL_S: Final = 600.0

CHARTER_FAULT: Final = "charter: "
_MISCONFIGURED: Final = (CHARTER_FAULT, "wrong key", "not a member")
_PSK_FAULTS: Final = ("wrong pre-shared key", "no pre-shared key")


def check_network(
    config: SiteConfig, charter: Charter, identity: Identity, own: int, *, running: bool
) -> Iterator[Finding]:
    """Dial every other member, then compare clocks with those that answered."""
    peers = [
        Peer(index=m.index, name=m.name, network_key=m.network_key, addresses=m.addresses)
        for m in charter.members
        if m.index != own
    ]
    psk = line_of(config).psk
    reasons = trio.run(_dial_all, identity.network_seed, peers, psk)
    for peer in peers:
        yield _dialled(peer, reasons[peer.index])
    reached = [peer for peer in peers if reasons[peer.index] is None]
    if not reached:
        yield warn("clock", "not checked: no member answers yet", "run the doctor again later")
    elif running:
        yield ok("clock", "not checked while this site's node runs")
    else:
        visit = _Visit(config, charter, identity, own, reached)
        trio.run(visit.compare)
        yield from visit.findings()


async def _dial_all(
    network_seed: bytes, peers: Sequence[Peer], psk: bytes | None
) -> dict[int, str | None]:
    from node.libp2p import probe_member

    reasons: dict[int, str | None] = {}

    async def dial(peer: Peer) -> None:
        try:
            reasons[peer.index] = await probe_member(
                network_seed=network_seed, peer=peer, timeout_s=DIAL_TIMEOUT_S, psk=psk
            )
        except ConfigError as error:
            reasons[peer.index] = f"{CHARTER_FAULT}{error}"

    async with trio.open_nursery() as nursery:
        for peer in peers:
            nursery.start_soon(dial, peer)
    return reasons


def _dialled(peer: Peer, reason: str | None) -> Finding:
    if reason is None:
        return ok("dial", f"{peer.name} answers")
    if not peer.addresses:
        return ok("dial", f"{peer.name} has no address: it dials this site")
    if reason.startswith(_PSK_FAULTS):
        return fail("dial", f"{peer.name}: {reason}", "bring the same psk_file to all members")
    if reason.startswith(_MISCONFIGURED):
        return fail("dial", f"{peer.name}: {reason}", "compare both sites' charter digest")
    return warn(
        "dial",
        f"{peer.name}: {reason}",
        "it may not run yet; if it does, ask both firewalls for this port",
    )


@dataclass(slots=True)
class _Visit:
    """One short stay in the swarm, listening nowhere, to ask the members for the time."""

    config: SiteConfig
    charter: Charter
    identity: Identity
    own: int
    peers: list[Peer]
    skews_s: dict[int, float] = field(default_factory=dict)
    foreign: set[int] = field(default_factory=set)

    async def compare(self) -> None:
        """Fill ``skews_s``; whoever does not answer in time is missing there."""
        from node.libp2p import Libp2pNetwork

        network = Libp2pNetwork(
            own_index=self.own,
            network_seed=self.identity.network_seed,
            listen=(),
            peers=self.peers,
            net=self.charter.net,
            log=get_log(),
            line=line_of(self.config),
        )
        heads = self._heads()
        async with trio.open_nursery() as nursery:
            await nursery.start(self._serve, network)
            with trio.move_on_after(CLOCK_TIMEOUT_S):
                async with trio.open_nursery() as asking:
                    for peer in self.peers:
                        asking.start_soon(self._ask, network, peer.index, heads)
            nursery.cancel_scope.cancel()

    async def _serve(self, network: "Libp2pNetwork", *, task_status: Any) -> None:
        await network.run(_Silent(), task_status=task_status)

    async def _ask(self, network: "Libp2pNetwork", peer: int, heads: Heads) -> None:
        while peer not in network.connected():  # noqa: ASYNC110 - the network tells nobody
            await trio.sleep(POLL_S)
        asked_ms, asked_s = _now_ms(), trio.current_time()
        hello = Hello(heads=heads, round=0, phase=0, time_ms=asked_ms)
        try:
            reply = await network.request(
                peer,
                SYNC_PROTOCOL,
                encode_sync_request(hello),
                reply_bytes_max=REQUEST_BYTES_MAX,
                timeout_s=DIAL_TIMEOUT_S,
            )
            theirs_ms = decode_sync_reply(reply).hello.time_ms
        except OtherFederationError:
            self.foreign.add(peer)
            return
        except (UnavailableError, PeerError):
            return
        half_way_ms = (trio.current_time() - asked_s) * 500
        self.skews_s[peer] = (theirs_ms - asked_ms - half_way_ms) / 1000

    def _heads(self) -> Heads:
        """Say what this site holds, so that a peer does not send it all again."""
        try:
            with Store.open(self.config.paths.ledger, read_only=True) as store:
                return {
                    log: Head(head.next_seq, head.prev_id) for log, head in store.heads().items()
                }
        except StoreError:
            return {}

    def findings(self) -> Iterator[Finding]:
        """One line for each member that was asked."""
        for peer in self.peers:
            if peer.index in self.foreign:
                yield fail(
                    "charter",
                    f"{peer.name} holds another one",
                    "compare `swarm-node charter digest` at both sites",
                )
            elif peer.index not in self.skews_s:
                yield warn(
                    "clock", f"{peer.name} did not tell the time", "run the doctor again later"
                )
            if peer.index not in self.skews_s:
                continue
            skew_s = self.skews_s[peer.index]
            said = f"{peer.name}'s is {spelt(abs(skew_s))} {'ahead' if skew_s > 0 else 'behind'}"
            if abs(skew_s) > SKEW_FAIL_S:
                yield fail(
                    "clock", said, "set this machine's clock by NTP, or tell the other site to"
                )
            elif abs(skew_s) > SKEW_WARN_S:
                yield warn("clock", said, "let both machines follow NTP")
            else:
                yield ok("clock", f"agrees with {peer.name}'s within {SKEW_WARN_S:g} s")


class _Silent:
    """Takes part in nothing."""

    async def on_gossip(self, peer: int, message: bytes) -> None:
        """Let it pass."""

    async def on_request(self, peer: int, protocol: str, body: bytes) -> bytes:  # noqa: ARG002
        """Answer nobody."""
        raise PeerError("only a doctor is here; the node does not run yet")


def spelt(skew_s: float) -> str:
    """Return ``45 s``, ``12 min``, ``9 h``, ``10 days``."""
    for unit, size_s in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if skew_s >= 2 * size_s:
            return f"{skew_s / size_s:.0f} {unit}"
    return f"{skew_s:.0f} s"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
