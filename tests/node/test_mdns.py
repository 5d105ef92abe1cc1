"""Members on one LAN find each other without an address; strangers and nonsense are ignored.

Real multicast, on the loopback interface; nothing here has been tried between machines.
"""

import secrets
import socket
from collections.abc import Sequence

import pytest
import trio
from network_swarm import NET, Log, Service, seeds, until
from zeroconf import EventLoopBlocked, NonUniqueNameException, ServiceInfo, Zeroconf

from node.addresses import Address
from node.libp2p import Libp2pNetwork, peer_id_text
from node.mdns import SERVICE, SERVICES_MAX, LanSearch, _Listener
from node.network import Peer

LOOPBACK = "127.0.0.1"


def multicast_works() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        try:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(LOOPBACK))
            sender.sendto(b"", ("224.0.0.251", 5353))
        except OSError:
            return False
    return True


def members() -> list[Peer]:
    from nacl.signing import SigningKey

    return [
        Peer(index=i, name=f"site {i}", network_key=bytes(SigningKey(seed).verify_key))
        for i, seed in enumerate(seeds(2))
    ]


KEYS = {peer_id_text(peer.network_key): peer.index for peer in members()}


def search_of(own: int, listening: Sequence[str], hint: object, log: Log) -> LanSearch:
    (key,) = [key for key, index in KEYS.items() if index == own]
    return LanSearch(
        own_key=key, members=KEYS, listening=lambda: listening,
        hint=hint, log=log, interfaces=[LOOPBACK],  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.skipif(not multicast_works(), reason="no multicast on the loopback interface")
async def test_two_members_without_any_address_meet_on_one_lan() -> None:
    networks = [
        Libp2pNetwork(
            own_index=own, network_seed=seeds(2)[own], listen=[f"/ip4/{LOOPBACK}/tcp/0"],
            peers=members(), net=NET, log=Log(),
        )
        for own in range(2)
    ]  # fmt: skip
    stranger = await trio.to_thread.run_sync(announce_a_stranger)
    async with trio.open_nursery() as nursery:
        logs = [Log(), Log()]
        for own, network in enumerate(networks):
            await nursery.start(network.run, Service())
            search = search_of(own, network.listening(), network.redirect, logs[own])
            nursery.start_soon(search.run)
        await until(lambda: all(len(network.connected()) == 1 for network in networks), s=30)
        for log in logs:
            assert {one["peer"] for one in log.named("mdns_found")} <= {0, 1}
        nursery.cancel_scope.cancel()
    await trio.to_thread.run_sync(stranger.close)


def announce_a_stranger() -> Zeroconf:
    """Say on the LAN that a node of another federation is there."""
    zeroconf = Zeroconf(interfaces=[LOOPBACK])
    service = ServiceInfo(
        type_=SERVICE, name=f"{secrets.token_hex(20)}.{SERVICE}", port=1, server="other.local.",
        properties={"dnsaddr": f"/ip4/{LOOPBACK}/tcp/1/p2p/12D3KooWStranger"},
        parsed_addresses=[LOOPBACK],
    )  # fmt: skip
    zeroconf.register_service(service)
    return zeroconf


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWStranger", "/ip4/192.0.2.7/tcp/4001", "/p2p/",
        "/ip4/169.254.169.254/tcp/80/p2p/{}", "/ip4/127.0.0.1/tcp/22/p2p/{}",
        "/ip4/224.0.0.251/tcp/5353/p2p/{}", "/unix/x/p2p/{}", "\xff\xfe/p2p/{}", "",
        "/ip6/2001:db8::1%eth0/tcp/4001/p2p/{}", "/ip6/fe80::1%a..b/tcp/4001/p2p/{}",
    ],
)  # fmt: skip
def test_strangers_and_addresses_that_no_member_has_give_no_hint(text: str) -> None:
    hints: list[tuple[int, Sequence[Address]]] = []
    keys = list(KEYS)
    search = LanSearch(
        own_key=keys[0], members=KEYS, listening=tuple,
        hint=lambda member, found: hints.append((member, found)), log=Log(),
    )  # fmt: skip
    search.found("service", [text.format(keys[1]).encode("latin-1")])
    search.found("ourselves", [f"/ip4/192.0.2.7/tcp/1/p2p/{keys[0]}".encode()])
    assert hints == []
    search.found("member", [f"/ip4/192.0.2.7/tcp/4001/p2p/{keys[1]}".encode()] * 100)
    ((member, found),) = hints
    assert (member, {one.text for one in found}) == (1, {"/ip4/192.0.2.7/tcp/4001"})
    assert all(one.guarded for one in found)
    search.gone("member")
    assert hints[-1] == (1, ())


class AsksNobody:
    """As much of zeroconf as fails before anything is sent."""

    def get_service_info(self, type_: str, name: str, _timeout_ms: int) -> ServiceInfo:
        return ServiceInfo(type_, name)


@pytest.mark.parametrize(
    "name", ["x._other._tcp.local.", "a" * 64 + "." + SERVICE, f"\x01.{SERVICE}"]
)
async def test_a_strangers_name_does_not_end_the_search(name: str) -> None:
    log = Log()
    search = search_of(0, (), print, log)
    listener = _Listener(search, trio.lowlevel.current_trio_token(), own="own")
    listener.add_service(AsksNobody(), SERVICE, name)  # type: ignore[arg-type]
    await until(lambda: bool(log.named("mdns_refused")))


def test_made_up_services_do_not_fill_the_memory() -> None:
    hints: list[tuple[int, Sequence[Address]]] = []
    search = search_of(0, (), lambda member, found: hints.append((member, found)), Log())
    (key,) = [key for key, index in KEYS.items() if index == 1]
    for number in range(3 * SERVICES_MAX):
        search.found(f"{number}.{SERVICE}", [f"/ip4/{LOOPBACK}/tcp/4001/p2p/{key}".encode()])
        search.found(f"real.{SERVICE}", [f"/ip4/{LOOPBACK}/tcp/4002/p2p/{key}".encode()])
    assert len(search._services) == SERVICES_MAX
    search.gone(f"real.{SERVICE}")
    assert hints[-1] == (1, ()), "of the newest the goodbye is heeded"


@pytest.mark.parametrize(
    "fault",
    [
        NonUniqueNameException(), EventLoopBlocked(), RuntimeError("No interfaces to listen on"),
        OSError(19, "No such device"),
    ],
    ids=repr,
)  # fmt: skip
async def test_whatever_the_lan_does_to_zeroconf_costs_two_lines_and_not_the_node(
    monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    class Failing:
        def close(self) -> None: ...

        def unregister_all_services(self) -> None:
            raise fault

    def opened(_search: LanSearch, opened: list[object], _token: object) -> None:
        opened.append(Failing())
        raise fault

    monkeypatch.setattr(LanSearch, "_open", opened)
    log = Log()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(search_of(0, (), print, log).run)
        await until(lambda: bool(log.named("mdns_failed")))
        nursery.cancel_scope.cancel()
    assert [one["why"] for one in log.named("mdns_failed")] == [str(fault) or repr(fault)] * 2
