"""Where a member listens: multiaddr text, names, ports. Knows no libp2p.

Understood: /ip4/A/tcp/P, /ip6/A/tcp/P, /dns4/H/tcp/P, /dns6/H/tcp/P, /dns/H/tcp/P, each with or
without /p2p/ID at the end.
"""

import errno
import ipaddress
import socket
from dataclasses import dataclass
from typing import Final

import trio

from ledger.errors import ConfigError, UnavailableError

_FAMILIES: Final = {
    "ip4": socket.AF_INET,
    "ip6": socket.AF_INET6,
    "dns4": socket.AF_INET,
    "dns6": socket.AF_INET6,
    "dns": socket.AF_UNSPEC,
}
TCP_SHARE: Final = 0.75
"""Of a dial's time, for name and TCP: so that a firewall that drops is told from a silent program."""
_EXAMPLE: Final = "/ip4/192.0.2.7/tcp/4001 or /dns4/swarm.hospital.example/tcp/4001"


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """One parsed multiaddr."""

    text: str
    kind: str  # ip4, ip6, dns4, dns6, dns
    host: str
    port: int
    peer_id: str | None
    guarded: bool = False
    """A peer told it: what its name resolves to must be an address that a peer may name."""

    @property
    def family(self) -> int:
        """Address family for the socket module."""
        return _FAMILIES[self.kind]


def parse_address(text: str) -> Address:
    """Parse a multiaddr. Raises ConfigError, one line, that shows how one looks."""
    match text.split("/"):
        case ["", kind, host, "tcp", port, *rest] if kind in _FAMILIES and host:
            pass
        case _:
            raise ConfigError(f"address {text!r}: write it like {_EXAMPLE}")
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ConfigError(f"address {text!r}: {port!r} is not a port from 0 to 65535")
    if kind in ("ip4", "ip6"):
        try:
            fits = ipaddress.ip_address(host).version == int(kind[2])
        except ValueError:
            fits = False
        if not fits:
            raise ConfigError(f"address {text!r}: {host!r} is not an {kind} address")
    match rest:
        case []:
            peer_id = None
        case ["p2p", peer_id] if peer_id:
            pass
        case _:
            raise ConfigError(f"address {text!r}: only /p2p/ID may follow the port")
    return Address(text=text, kind=kind, host=host, port=int(port), peer_id=peer_id)


def is_foreign(ip: str) -> bool:
    """Return whether an IP address may lie at another site: not this machine, link or a group."""
    found = ipaddress.ip_address(ip.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None) or found
    return not (
        mapped.is_loopback or mapped.is_link_local or mapped.is_multicast or mapped.is_unspecified
    )


def check_listen(text: str) -> str | None:
    """Return why a node cannot listen there and what to change, or None if it can.

    Binds and lets go. Exclusively, because libp2p's own sockets share a port (SO_REUSEPORT): two
    nodes with one port would each get some of the other's connections and no error.
    """
    try:
        address = parse_address(text)
    except ConfigError as error:
        return str(error)
    if address.kind not in ("ip4", "ip6"):
        return f"cannot listen on {text}: write the machine's own address, or /ip4/0.0.0.0/tcp/…"
    with socket.socket(address.family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
            probe.listen(1)
        except OSError as error:
            return f"cannot listen on {text}: {_listen_advice(error, address.port)}"
    return None


async def resolve(address: Address, *, timeout_s: float) -> list[str]:
    """Return the IP addresses of an address. Raises UnavailableError "DNS: …"."""
    if address.kind in ("ip4", "ip6"):
        return [address.host]
    with trio.move_on_after(timeout_s):
        try:
            found = await trio.socket.getaddrinfo(
                address.host, address.port, family=address.family, type=socket.SOCK_STREAM
            )
        except (OSError, ValueError) as error:  # ValueError: a name that IDNA cannot spell
            text = getattr(error, "strerror", None) or str(error)
            raise UnavailableError(f"DNS: {address.host}: {text.lower()}") from error
        ips = [str(entry[4][0]) for entry in found]
        allowed = [ip for ip in ips if not address.guarded or is_foreign(ip)]
        if not allowed:
            raise UnavailableError(f"DNS: {address.host}: {ips[0]} is not for peers to name")
        return allowed
    raise UnavailableError(f"DNS: {address.host}: no answer in {timeout_s:g} s")


async def connect(address: Address, *, timeout_s: float) -> trio.SocketStream:
    """Open a TCP connection. Raises UnavailableError that says why not in a few words.

    A name may have several addresses, and one of them lead nowhere: each has its share of the time.
    """
    deadline_s = trio.current_time() + timeout_s
    reason = ""
    ips = await resolve(address, timeout_s=timeout_s)
    for place, ip in enumerate(ips):
        where = f"{ip}:{address.port}" if ":" not in ip else f"[{ip}]:{address.port}"
        share_s = max(deadline_s - trio.current_time(), 0) / (len(ips) - place)
        reason = f"timeout: no answer from {where} in {share_s:.2g} s (firewall?)"
        with trio.move_on_after(share_s):
            try:
                return await trio.open_tcp_stream(ip, address.port)
            except (OSError, ValueError) as error:  # ValueError: a scope id that is no text for DNS
                reason = _connect_reason(error, where)
    raise UnavailableError(reason)


def _connect_reason(error: OSError | ValueError, where: str) -> str:
    causes: list[BaseException | None] = [error, error.__cause__]
    if isinstance(error.__cause__, BaseExceptionGroup):
        causes += error.__cause__.exceptions
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return f"refused: nothing listens on {where}"
    for cause in causes:
        if isinstance(cause, OSError) and cause.strerror:
            return f"unreachable: {where}: {cause.strerror.lower()}"
    return f"unreachable: {where}"


def _listen_advice(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use; stop the other program or change the port"
    if error.errno == errno.EACCES:
        return f"port {port} needs administrator rights; choose one above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have that address; use /ip4/0.0.0.0/tcp/…"
    return (error.strerror or str(error)).lower()
