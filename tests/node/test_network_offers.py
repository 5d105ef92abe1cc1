"""A member with a good key that speaks another language: plaintext, SECIO, TLS or mplex is refused."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from libp2p import new_host
from libp2p.abc import IHost
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as x25519_key_pair
from libp2p.custom_types import TMuxerOptions, TProtocol, TSecurityOptions
from libp2p.network.config import ConnectionConfig
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.secio.transport import ID as SECIO
from libp2p.security.secio.transport import Transport as SecioTransport
from libp2p.security.tls.transport import PROTOCOL_ID as TLS
from libp2p.security.tls.transport import TLSTransport
from libp2p.stream_muxer.mplex.mplex import MPLEX_PROTOCOL_ID as MPLEX
from libp2p.stream_muxer.mplex.mplex import Mplex
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_ID
from libp2p.stream_muxer.yamux.yamux import Yamux as StockYamux
from multiaddr import Multiaddr  # type: ignore[import-untyped]
from network_swarm import NET, Log, Service, free_port, peers_on, seeds, until

from node.libp2p import Libp2pNetwork
from node.libp2p.gate import AES_NOISE
from node.links import Timing

YAMUX = TProtocol(YAMUX_ID)
QUICK = Timing(dial_s=2, redial_s=0.5)
REFUSED = ["/plaintext/2.0.0", SECIO, TLS, MPLEX]


def security(way: str, keys: KeyPair) -> TSecurityOptions:
    """What a stock host secures its connections with: one way alone."""
    match way:
        case "/plaintext/2.0.0":
            return {PLAINTEXT_PROTOCOL_ID: InsecureTransport(keys)}
        case "/secio/1.0.0":
            return {SECIO: SecioTransport(keys)}
        case "/tls/1.0.0":
            return {TLS: TLSTransport(keys)}
    return {NOISE: NoiseTransport(keys, noise_privkey=x25519_key_pair().private_key)}


@asynccontextmanager
async def stock_host_of_one_way(way: str) -> AsyncIterator[tuple[IHost, int]]:
    """Member 1 as an unmodified libp2p host, and its port."""
    keys, port = create_new_key_pair(seeds(2)[1]), free_port()
    muxers: TMuxerOptions = {MPLEX: Mplex} if way == MPLEX else {YAMUX: StockYamux}
    host = new_host(
        keys,
        sec_opt=security(way, keys),
        muxer_opt=muxers,
        connection_config=ConnectionConfig(min_connections=0, low_watermark=0, high_watermark=0),
    )
    async with host.run([Multiaddr(f"/ip4/127.0.0.1/tcp/{port}")]):
        yield host, port
        await host.get_network().close()


@asynccontextmanager
async def our_network(
    own_port: int, port: int, *, dials: bool
) -> AsyncIterator[tuple[Libp2pNetwork, Log]]:
    """Member 0 as we make it, and its log."""
    log = Log()
    peers = peers_on([own_port, port])
    network = Libp2pNetwork(
        own_index=0,
        network_seed=seeds(2)[0],
        listen=peers[0].addresses,
        peers=peers,
        net=NET,
        log=log,
        timing=QUICK,
    )
    if not dials:
        network.redirect(1, [])
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(network.run, Service()))
        yield network, log
        nursery.cancel_scope.cancel()


def said_why(error: BaseException | None) -> Iterator[str]:
    """Every reason that stands behind an exception of libp2p."""
    while error is not None:
        yield str(error)
        for one in getattr(error, "errors", ()):
            yield from said_why(one)
        error = error.__cause__


async def call(host: IHost, own_port: int) -> None:
    """Let a stock host dial member 0."""
    called = ID.from_pubkey(create_new_key_pair(seeds(2)[0]).public_key)
    await host.connect(PeerInfo(called, [Multiaddr(f"/ip4/127.0.0.1/tcp/{own_port}")]))


@pytest.mark.parametrize("way", REFUSED)
async def test_who_dials_us_with_another_language_is_told_no(way: str) -> None:
    own_port = free_port()
    async with (
        stock_host_of_one_way(way) as (host, port),
        our_network(own_port, port, dials=False) as (network, _),
    ):
        with trio.fail_after(3), pytest.raises(Exception, match="unable to connect") as caught:
            await call(host, own_port)
        # Refused by name, before either end has begun with it.
        assert f"{way}, response='na'" in " ".join(said_why(caught.value))
        assert not network.connected()
        assert not host.get_network().get_connections()


@pytest.mark.parametrize("way", REFUSED)
async def test_we_dial_nobody_with_another_language(way: str) -> None:
    async with (
        stock_host_of_one_way(way) as (host, port),
        our_network(free_port(), port, dials=True) as (network, log),
    ):
        await until(lambda: len(log.named("dial_failed")) >= 2, s=3)
        if way != MPLEX:
            reason = str(log.named("dial_failed")[0]["reason"])
            assert f"not supported: tried ['{AES_NOISE}', '{NOISE}']" in reason
        assert not network.connected()
        assert not host.get_network().get_connections()


@pytest.mark.parametrize("dials", [True, False])
async def test_the_same_host_with_noise_and_yamux_is_a_member(*, dials: bool) -> None:
    own_port = free_port()
    async with (
        stock_host_of_one_way(NOISE) as (host, port),
        our_network(own_port, port, dials=dials) as (network, _),
    ):
        if not dials:
            await call(host, own_port)
        await until(lambda: network.connected() == {1}, s=3)
