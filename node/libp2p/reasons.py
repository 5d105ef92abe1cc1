"""What libp2p's exceptions mean, in a few words for an operator."""

import re
from collections.abc import Iterator
from typing import Final

import trio
from libp2p.exceptions import BaseLibp2pError

from node.addresses import Address

LOST: Final = (BaseLibp2pError, OSError, trio.ClosedResourceError, trio.BrokenResourceError)
"""What reading from or writing to a broken connection raises."""
_ANSWERED_AS: Final = re.compile(r"remote_peer_id_from_pubkey=(\w+)")
_NOT_A_MEMBER: Final = "not a member: {} refused our key; compare the charters' digests"


def short(error: BaseException) -> str:
    """Return the first cause in one short line."""
    *_, root = _causes(error)
    return f"{type(root).__name__}: {str(root).partition(chr(10))[0]}"[:120].removesuffix(": ")


def not_a_member(address: Address) -> str:
    """Say that the other end refused us."""
    return _NOT_A_MEMBER.format(address.text)


def handshake_reason(error: Exception, address: Address, psk_problem: str | None) -> str:
    """Say why a handshake with an address failed."""
    if psk_problem is not None:
        return f"{psk_problem} ({address.text})"
    names = {type(cause).__name__ for cause in _causes(error)}
    if "PeerIDMismatchesPubkey" in names or "Peer ID mismatch" in str(error):
        found = _ANSWERED_AS.search(" ".join(str(cause) for cause in _causes(error)))
        whose = f"key {found[1]}" if found else "a key that is not this member's"
        return f"wrong key: {address.text} answers with {whose}"
    if "MuxerUpgradeFailure" in names:
        return not_a_member(address)
    return f"no swarm node: {address.text} does not shake hands, or asks for a psk_file ({short(error)})"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
