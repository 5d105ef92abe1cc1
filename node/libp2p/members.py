"""Who may talk to us: roster indices, libp2p's names for them, addresses. Knows no connection."""

from collections.abc import Sequence
from typing import Final, final

from libp2p.crypto.ed25519 import Ed25519PublicKey
from libp2p.crypto.ed25519 import create_new_key_pair as ed25519_key_pair
from libp2p.peer.id import ID

from ledger.errors import ConfigError
from node.addresses import Address, parse_address
from node.network import Peer


@final
class Members:
    """The others on the roster, by index and by peer id, and our own key.

    Raises ConfigError if a key or an address is none, or our key is not what the roster says.
    """

    def __init__(self, *, own_index: int, network_seed: bytes, peers: Sequence[Peer]) -> None:
        self.own_index: Final = own_index
        self.keys: Final = ed25519_key_pair(network_seed)
        self.own_id: Final = ID.from_pubkey(self.keys.public_key)
        self.peers: Final = {peer.index: peer for peer in peers if peer.index != own_index}
        self.ids: Final = {index: peer_id(peer.network_key) for index, peer in self.peers.items()}
        self.addresses: Final = {index: addresses(peer) for index, peer in self.peers.items()}
        self._indices = {found.to_bytes(): index for index, found in self.ids.items()}
        for peer in peers:
            if peer.index == own_index and peer_id(peer.network_key) != self.own_id:
                raise ConfigError(
                    f"the charter's network key of {peer.name} is not this site's: "
                    "use the key file that its member block was made from"
                )
        if self.own_id.to_bytes() in self._indices:
            raise ConfigError("another member of the charter has this site's network key")

    def index(self, id_bytes: bytes) -> int | None:
        """Return the roster index of a peer id, or None for a stranger (or ourselves)."""
        return self._indices.get(id_bytes)

    def known_index(self, found: ID) -> int:
        """Return the roster index of a peer that passed the gate."""
        return self._indices[found.to_bytes()]


def peer_id(network_key: bytes) -> ID:
    """Return libp2p's name of a key. Raises ConfigError if it is none."""
    try:
        return ID.from_pubkey(Ed25519PublicKey.from_bytes(network_key))
    except Exception as error:
        raise ConfigError(f"network key {network_key.hex()}: not an Ed25519 key") from error


def peer_id_text(network_key: bytes) -> str:
    """Return the libp2p name of a network key ("12D3Koo…"). Raises ConfigError if it is none."""
    return str(peer_id(network_key))


def addresses(peer: Peer) -> list[Address]:
    """Parse a peer's addresses. Raises ConfigError if one names another key."""
    found = [parse_address(text) for text in peer.addresses]
    expected = peer_id_text(peer.network_key)
    for address in found:
        if address.peer_id not in (None, expected):
            raise ConfigError(f"address {address.text!r} of {peer.name}: its key is {expected}")
    return found
