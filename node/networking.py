"""A hospital's network, put together: libp2p, the address book, forwarding. Room: node.

Imported late: libp2p takes most of a second.
"""

import ipaddress
import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from ledger.keys import Signer
from ledger.roster import Roster
from ledger.store import Store
from node.address_book import STATE_KEY, AddressBook
from node.address_record import is_here
from node.addresses import is_foreign, parse_address
from node.compute import Compute
from node.config import SiteConfig
from node.forwarding import ForwardingNetwork
from node.identity import Identity
from node.libp2p import Libp2pNetwork, peer_id_text
from node.line import line_of
from node.network import Dialling, EventLog, Peer
from node.sealed import Sealer

if TYPE_CHECKING:
    from node.mdns import LanSearch

MB: Final = 1e6


def peers_of(roster: Roster) -> list[Peer]:
    """Return the members as the network sees them."""
    return [
        Peer(index=m.index, name=m.name, network_key=m.network_key, addresses=m.addresses)
        for m in roster.active
    ]


def sealer_of(roster: Roster, identity: Identity, own: int) -> Sealer:
    """Return what seals this member's requests."""
    keys = {m.index: m.network_key for m in roster.active if m.index != own}
    return Sealer(own=own, network_seed=identity.network_seed, keys=keys, net=roster.net)


def build_network(
    config: SiteConfig,
    roster: Roster,
    identity: Identity,
    own: int,
    *,
    store: Store,
    disk: Compute,
    log: EventLog,
) -> ForwardingNetwork:
    """Return the network of `swarm-node run`. Raises ConfigError, StoreError."""
    inner = Libp2pNetwork(
        own_index=own,
        network_seed=identity.network_seed,
        listen=config.listen,
        peers=peers_of(roster),
        net=roster.net,
        log=log,
        line=line_of(config),
    )
    book = AddressBook(
        roster=roster,
        own=own,
        signer=Signer(identity.network_seed),
        log=log,
        stored=store.state_get(STATE_KEY),
    )
    book.own_addresses = own_addresses(config, roster.member(own).addresses, inner)

    async def save(envelopes: bytes) -> None:
        await disk.run(store.state_put, STATE_KEY, envelopes)

    book.attach(redirect=inner.redirect, save=save)
    network = ForwardingNetwork(
        inner,
        names={m.index: m.name for m in roster.active},
        sealer=sealer_of(roster, identity, own),
        log=log,
        uniform=secrets.SystemRandom().random,
        book=book,
        dialling=inner,
        bytes_per_s=config.network.forward_mb_s * MB,
    )
    if config.network.mdns:
        network.background.append(_lan_search(roster, own, inner, book, log).run)
    return network


def _lan_search(
    roster: Roster, own: int, inner: Libp2pNetwork, book: AddressBook, log: EventLog
) -> "LanSearch":
    from node.mdns import LanSearch

    return LanSearch(
        own_key=peer_id_text(roster.member(own).network_key),
        members={peer_id_text(m.network_key): m.index for m in roster.active},
        listening=inner.listening,
        hint=book.hint,
        log=log,
    )


def own_addresses(
    config: SiteConfig, charter: Sequence[str], dialling: Dialling
) -> Callable[[], Sequence[str] | None]:
    """Return what says where others dial this site: told, or seen from where it listens.

    Nowhere, if it listens nowhere. What the site's operator set. Else the addresses that it listens on
    and that mean one machine to the others, if the charter lacks any of them; an address of a private
    network does so only where the charter has one of the kind, or none at all. Else as in the charter:
    a listener on 0.0.0.0 does not know how the outside calls it.
    """
    here = any(map(is_here, charter))
    inside = not charter or any(map(_is_private, charter))

    def means_this_machine(text: str) -> bool:
        host = parse_address(text).host
        if not inside and _is_private(text):
            return False
        return is_foreign(host) or (here and host not in ("0.0.0.0", "::"))  # noqa: S104

    def find() -> Sequence[str] | None:
        if not config.listen:
            return ()
        if config.network.addresses:
            return config.network.addresses
        seen = [text for text in dialling.listening() if means_this_machine(text)]
        return seen if set(seen) - set(charter) else None

    return find


def _is_private(text: str) -> bool:
    address = parse_address(text)
    return address.kind in ("ip4", "ip6") and ipaddress.ip_address(address.host).is_private
