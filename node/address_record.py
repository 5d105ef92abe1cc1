"""Where a member can be dialled now, signed by its network key. Spec: docs/wire.md §10.

Room: node. Law: hostile until opened. `open_address_record` is the only way to a record of another
member, and every address in it has one of the forms that a peer may name.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ledger.canonical import Value, decode, encode
from ledger.errors import ConfigError, PeerError, VerificationError
from ledger.keys import SIGNATURE_BYTES, Signer, verify
from node.addresses import Address, is_foreign, parse_address

RECORD_VERSION: Final = 1
ADDRESSES_MAX: Final = 8
ADDRESS_CHARACTERS_MAX: Final = 280
"""The longest name that DNS allows has 253."""
RECORD_BYTES_MAX: Final = 4_096
SEQUENCE_MAX: Final = 2**53 - 1
_DOMAIN: Final = b"swarm/address/v1\n"
_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_NUMBER: Final = re.compile(r"\d+|0[xX][0-9A-Fa-f]*")
_OWN_NAMES: Final = ("localhost", "local")
"""Last labels that mean another machine at every site."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AddressRecord:
    """One member's own word. No addresses: it can be dialled nowhere, and dials the others."""

    author: int
    epoch: int
    sequence: int
    addresses: tuple[Address, ...]
    envelope: bytes

    @property
    def age(self) -> tuple[int, int]:
        """Compare records of one author by this: the greater is the newer."""
        return self.epoch, self.sequence


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What the roster says of a member, as far as its address records need it.

    here: whether the charter itself dials it on this machine or link (a test, one LAN).
    """

    network_key: bytes
    epoch: int
    here: bool


def sign_address_record(
    signer: Signer, *, net: bytes, author: int, epoch: int, sequence: int, addresses: Sequence[str]
) -> bytes:
    """Return the envelope of a record, not checked: its author opens it as the others will."""
    spelt: list[Value] = [text.encode() for text in addresses]
    record = encode([RECORD_VERSION, net, author, epoch, sequence, spelt])
    return encode([record, signer.sign(_DOMAIN + record)])


def open_address_record(
    envelope: bytes, *, net: bytes, known: Mapping[int, Known]
) -> AddressRecord:
    """Read, verify and check a record. Raises PeerError; an address that is no good spoils it all.

    1. Canonical, bounded, [record, signature]. 2. Of this network, by a member, in its epoch.
    3. Signed by that member's network key. 4. Every address has an allowed form.
    """
    match decode(envelope, bytes_max=RECORD_BYTES_MAX):
        case [bytes(record), bytes(signature)] if len(signature) == SIGNATURE_BYTES:
            pass
        case _:
            raise PeerError("an address record is not [record, signature]")
    match decode(record, bytes_max=RECORD_BYTES_MAX):
        case [version, bytes(its_net), int(author), int(epoch), int(sequence), list(spelt)] if (
            version == RECORD_VERSION and its_net == net
        ):
            pass
        case _:
            raise PeerError("an address record of another version, shape or network")
    member = known.get(author)
    if member is None or member.epoch != epoch:
        raise PeerError(f"an address record of author {author}, epoch {epoch}: no such member")
    try:
        verify(member.network_key, _DOMAIN + record, signature)
    except VerificationError:
        raise PeerError(f"an address record that author {author} did not sign") from None
    if len(spelt) > ADDRESSES_MAX:
        raise PeerError(f"an address record with {len(spelt)} addresses")
    return AddressRecord(
        author=author,
        epoch=epoch,
        sequence=sequence,
        addresses=tuple(allowed_address(_text(one), here=member.here) for one in spelt),
        envelope=envelope,
    )


def is_here(text: str) -> bool:
    """Return whether a charter's address lies on this machine or link."""
    address = parse_address(text)
    if address.kind in ("ip4", "ip6"):
        return not is_foreign(address.host)
    return address.host.rpartition(".")[2].lower() in _OWN_NAMES


def _text(spelt: object) -> str:
    if not isinstance(spelt, bytes) or len(spelt) > ADDRESS_CHARACTERS_MAX or not spelt.isascii():
        raise PeerError("an address in a record is no short ASCII text")
    return spelt.decode("ascii")


def allowed_address(text: str, *, here: bool) -> Address:
    """Parse an address that somebody told. Raises PeerError unless it may be dialled for that."""
    try:
        address = parse_address(text)
    except ConfigError as error:
        raise PeerError(str(error)) from None
    if address.peer_id is not None or address.port == 0:
        raise PeerError(f"address {text!r}: port 0 and /p2p/ are of no use to others")
    if address.kind in ("ip4", "ip6"):
        _check_ip(address, here=here)
    else:
        _check_name(address, here=here)
    return replace(address, guarded=not here)


def _check_ip(address: Address, *, here: bool) -> None:
    """No scope ids (`%eth0`): such a text means a network card of one machine, and may be any text."""
    found, is_elsewhere = ipaddress.ip_address(address.host), here or is_foreign(address.host)
    if "%" in address.host or found.is_unspecified or found.is_multicast or not is_elsewhere:
        raise PeerError(f"address {address.text!r}: not one at which others could dial it")


def _check_name(address: Address, *, here: bool) -> None:
    """Names only: resolvers take "127.1" and "0x7f000001" for addresses."""
    *_, last = labels = address.host.removesuffix(".").split(".")
    if len(address.host) > 253 or not all(map(_LABEL.fullmatch, labels)) or _NUMBER.fullmatch(last):
        raise PeerError(f"address {address.text!r}: {address.host!r} is no host name")
    if last.lower() in _OWN_NAMES and not here:
        raise PeerError(f"address {address.text!r}: another machine at every site")
