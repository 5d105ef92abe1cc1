"""Finding members on the same LAN by multicast DNS: unsigned hints, tried after everything else.

Room: node. Law: off unless the site says `[network] mdns = true`; who is not on the roster is ignored, and
who is found still has to show its key in the handshake. libp2p's own discovery is not used: it takes
everybody in, and dials by itself. Spec: https://github.com/libp2p/specs/blob/master/discovery/mdns.md
"""

import ipaddress
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final, final

import trio
from zeroconf import Error as ZeroconfError
from zeroconf import (  # type: ignore[attr-defined] # its __all__ lacks the last
    ServiceBrowser,
    ServiceInfo,
    ServiceListener,
    Zeroconf,
    get_all_addresses,
)

from ledger.errors import PeerError
from node.address_record import ADDRESSES_MAX, allowed_address
from node.addresses import Address, is_foreign, parse_address
from node.network import EventLog

SERVICE: Final = "_p2p._udp.local."
TXT_BYTES_MAX: Final = 255
LOOKUP_MS: Final = 2_000
SERVICES_MAX: Final = 256
"""Services whose goodbye is heeded, the newest: anybody on the LAN can make up any number of them."""

Hint = Callable[[int, Sequence[Address]], None]


@final
class LanSearch:
    """Tells the LAN where this node listens, and the address book whom it found there."""

    def __init__(
        self,
        *,
        own_key: str,
        members: Mapping[str, int],
        listening: Callable[[], Sequence[str]],
        hint: Hint,
        log: EventLog,
        interfaces: Sequence[str] | None = None,
    ) -> None:
        """own_key, members: libp2p's names of network keys. interfaces: by address; None = all."""
        self._own_key = own_key
        self._members = {key: index for key, index in members.items() if key != own_key}
        self._listening = listening
        self._hint = hint
        self._log = log
        self._interfaces = interfaces
        self._here = bool(interfaces) and not any(map(is_foreign, interfaces or ()))
        self._services: dict[str, int] = {}

    async def run(self) -> None:
        """Search until cancelled. Whatever goes wrong on the LAN costs a line in the log, no more."""
        token = trio.lowlevel.current_trio_token()
        opened: list[Zeroconf] = []
        try:
            with self._failing():
                await trio.to_thread.run_sync(self._open, opened, token)
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                for one in opened:
                    with self._failing():
                        await trio.to_thread.run_sync(_close, one)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Log what zeroconf raises: also for a name that somebody else on the LAN claims to have."""
        try:
            yield
        except (ZeroconfError, OSError, RuntimeError) as error:
            self._log.warning("mdns_failed", why=str(error) or repr(error))

    def _open(self, opened: list[Zeroconf], token: trio.lowlevel.TrioToken) -> None:
        """In a thread: zeroconf waits for its own."""
        zeroconf = Zeroconf(interfaces=list(self._interfaces)) if self._interfaces else Zeroconf()
        opened.append(zeroconf)
        own = f"{secrets.token_hex(20)}.{SERVICE}"
        ServiceBrowser(zeroconf, SERVICE, listener=_Listener(self, token, own))
        if addresses := self._own_addresses():
            zeroconf.register_service(_service(own, addresses, self._own_key))

    def _own_addresses(self) -> list[Address]:
        """Return what this node listens on, with its machine's addresses in place of 0.0.0.0."""
        found: list[Address] = []
        for text in self._listening():
            address = parse_address(text)
            host = ipaddress.ip_address(address.host)
            hosts = [address.host]
            if host.is_unspecified and host.version == 4:
                hosts = [ip for ip in get_all_addresses() if is_foreign(ip)]
            found += [parse_address(f"/{address.kind}/{ip}/tcp/{address.port}") for ip in hosts]
        return found[:ADDRESSES_MAX]

    def found(self, service: str, texts: Sequence[bytes]) -> None:
        """Take one service's addresses, in the network's own thread; pass on those of a member."""
        addresses: list[Address] = []
        member: int | None = None
        for text in texts[:ADDRESSES_MAX]:
            address, _, key = text.decode("ascii", errors="replace").rpartition("/p2p/")
            if (member := self._members.get(key)) is None:
                return
            try:
                addresses.append(allowed_address(address, here=self._here))
            except PeerError as error:
                self._log.debug("mdns_refused", peer=member, why=str(error))
        if member is not None and addresses:
            self._services.pop(service, None)
            self._services[service] = member
            if len(self._services) > SERVICES_MAX:
                del self._services[next(iter(self._services))]
            self._log.info("mdns_found", peer=member, addresses=[one.text for one in addresses])
            self._hint(member, addresses)

    def refused(self, service: str, error: Exception) -> None:
        """Note that a service could not be asked for."""
        self._log.debug("mdns_refused", service=service, why=repr(error))

    def gone(self, service: str) -> None:
        """Forget a service that said goodbye."""
        if (member := self._services.pop(service, None)) is not None:
            self._hint(member, ())


@final
class _Listener(ServiceListener):
    """Lives in zeroconf's thread."""

    def __init__(self, search: LanSearch, token: trio.lowlevel.TrioToken, own: str) -> None:
        self._search = search
        self._token = token
        self._own = own

    def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        """Ask for a service's addresses."""
        if name == self._own:
            return
        try:
            info = zc.get_service_info(type_, name, LOOKUP_MS)
            properties = info.properties if info is not None else {}
        except Exception as error:  # noqa: BLE001 - a stranger's name must not end zeroconf's thread
            self._tell(partial(self._search.refused, name, error))
            return
        texts = [
            value
            for key, value in properties.items()
            if key.startswith(b"dnsaddr") and value is not None and len(value) <= TXT_BYTES_MAX
        ]
        self._tell(partial(self._search.found, name, texts))

    def update_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        """Ask again."""
        self.add_service(zc, type_, name)

    def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:  # noqa: ARG002
        """Pass the goodbye on."""
        self._tell(partial(self._search.gone, name))

    def _tell(self, what: Callable[[], None]) -> None:
        try:
            self._token.run_sync_soon(what)
        except trio.RunFinishedError:
            return  # the node has left


def _service(name: str, addresses: Sequence[Address], own_key: str) -> ServiceInfo:
    """Spell our addresses as libp2p does: `dnsaddr=/ip4/…/tcp/…/p2p/KEY`, the first without number."""
    properties = {
        f"dnsaddr{place or ''}": f"{one.text}/p2p/{own_key}" for place, one in enumerate(addresses)
    }
    return ServiceInfo(
        type_=SERVICE,
        name=name,
        port=addresses[0].port,
        properties=properties,
        server=f"{name.partition('.')[0]}.local.",
        parsed_addresses=[one.host for one in addresses],
    )


def _close(zeroconf: Zeroconf) -> None:
    zeroconf.unregister_all_services()
    zeroconf.close()
