"""Addresses as an operator writes them, and what he is told when they do not work."""

import socket
import sys
from contextlib import ExitStack
from typing import Any

import pytest
import trio

from ledger.errors import ConfigError, UnavailableError
from node.addresses import check_listen, connect, parse_address, resolve


@pytest.mark.parametrize(
    ("text", "host", "port", "peer_id"),
    [
        ("/ip4/10.0.0.7/tcp/4001", "10.0.0.7", 4001, None),
        ("/ip6/::1/tcp/0", "::1", 0, None),
        (
            "/dns4/swarm.hospital.example/tcp/443/p2p/12D3Koo",
            "swarm.hospital.example",
            443,
            "12D3Koo",
        ),
    ],
)
def test_the_usual_addresses_are_understood(
    text: str, host: str, port: int, peer_id: str | None
) -> None:
    address = parse_address(text)
    assert (address.host, address.port, address.peer_id) == (host, port, peer_id)
    assert address.text == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0.7:4001",
        "/ip4/10.0.0.7/udp/4001",
        "/ip4/10.0.0.7/tcp/65536",
        "/ip4/10.0.0.7/tcp/-1",
        "/ip4/10.0.0.7/tcp/٣",
        "/ip4/10.0.0/tcp/1",
        "/ip4/::1/tcp/1",
        "/ip6/10.0.0.7/tcp/1",
        "/dns4//tcp/1",
        "/ip4/10.0.0.7/tcp/1/ws",
        "/ip4/10.0.0.7/tcp/1/p2p/",
    ],
)
def test_anything_else_is_refused_with_the_address_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_address(text)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert repr(text) in (check_listen(text) or "")


def test_a_port_can_be_listened_on_or_the_reason_says_why_not() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        other.listen()
        assert "in use" in (check_listen(f"/ip4/127.0.0.1/tcp/{port}") or "")
        assert "in use" in (check_listen(f"/ip4/0.0.0.0/tcp/{port}") or "")
    assert check_listen(f"/ip4/127.0.0.1/tcp/{port}") is None
    assert "does not have that address" in (check_listen("/ip4/192.0.2.1/tcp/0") or "")
    assert "own address" in (check_listen("/dns4/example/tcp/1") or "")


async def test_a_restart_is_not_held_up_by_the_connections_of_the_last_run() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    near = await trio.open_tcp_stream("127.0.0.1", port)
    far = await listener.accept()
    await listener.aclose()
    await far.aclose()  # its end now waits for ours
    assert check_listen(f"/ip4/127.0.0.1/tcp/{port}") is None
    await near.aclose()


async def test_names_are_resolved_and_failures_say_dns() -> None:
    found = await resolve(parse_address("/dns4/localhost/tcp/1"), timeout_s=5)
    assert "127.0.0.1" in found
    with pytest.raises(UnavailableError, match=r"^DNS: nowhere\.invalid"):
        await resolve(parse_address("/dns4/nowhere.invalid/tcp/1"), timeout_s=20)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("/ip6/2001:db8::1%" + "a" * 70 + "/tcp/4001", "^unreachable: "),
        ("/ip6/2001:db8::1%\x00a.b..c/tcp/4001", "^unreachable: "),
        ("/dns4/" + "a" * 70 + ".example/tcp/4001", "^DNS: "),
        ("/dns4/a..b/tcp/4001", "^DNS: "),
    ],
)
async def test_a_text_that_no_socket_takes_is_an_address_that_does_not_work(
    text: str, reason: str
) -> None:
    with pytest.raises(UnavailableError, match=reason):
        await connect(parse_address(text), timeout_s=5)


async def test_an_operators_own_address_may_have_a_scope_id() -> None:
    try:
        [listener] = await trio.open_tcp_listeners(0, host="::1")
    except OSError:
        pytest.skip("no IPv6")
    port = listener.socket.getsockname()[1]
    stream = await connect(parse_address(f"/ip6/::1%1/tcp/{port}"), timeout_s=5)
    await stream.aclose()
    await listener.aclose()


@pytest.mark.skipif(sys.platform != "linux", reason="a full backlog swallows connections on Linux")
async def test_a_machine_that_swallows_packets_is_a_timeout() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        address = parse_address(f"/ip4/127.0.0.1/tcp/{deaf.getsockname()[1]}")
        full = [await connect(address, timeout_s=1)]
        with pytest.raises(UnavailableError, match=r"^timeout: no answer"):
            for _ in range(9):  # the kernel lets in one or two more than it was told
                full.append(await connect(address, timeout_s=0.3))  # noqa: PERF401
        for stream in full:
            await stream.aclose()


class TwoAddresses(trio.abc.HostnameResolver):
    """A name service that knows one name, at two addresses."""

    async def getaddrinfo(self, *what: Any, **_how: Any) -> list[Any]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, what[1]))
            for ip in ("127.0.0.2", "127.0.0.1")
        ]

    async def getnameinfo(self, *_: Any) -> tuple[str, str]:
        raise NotImplementedError("nothing here asks for names")


@pytest.mark.skipif(sys.platform != "linux", reason="a full backlog swallows connections on Linux")
async def test_an_address_of_a_name_that_leads_nowhere_leaves_time_for_the_next() -> None:
    with socket.socket() as deaf, ExitStack() as stack:
        deaf.bind(("127.0.0.2", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        for _ in range(4):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(("127.0.0.2", port))
        [listener] = await trio.open_tcp_listeners(port, host="127.0.0.1")
        trio.socket.set_custom_hostname_resolver(TwoAddresses())
        address = parse_address(f"/dns4/swarm.example/tcp/{port}")
        stream = await connect(address, timeout_s=1)
        await stream.aclose()
        await listener.aclose()
        with pytest.raises(UnavailableError, match=r"^refused: nothing listens on 127\.0\.0\.1"):
            await connect(address, timeout_s=1)
