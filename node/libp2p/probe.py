"""One dial for the doctor, that disturbs nobody."""

import trio
from libp2p.crypto.ed25519 import create_new_key_pair as ed25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.security.security_multistream import SecurityMultistream

from ledger.errors import UnavailableError
from node.addresses import TCP_SHARE, Address, connect
from node.libp2p.gate import GatedNoise, offered
from node.libp2p.members import addresses, peer_id
from node.libp2p.quiet import forwarded_log
from node.libp2p.reasons import LOST, handshake_reason, not_a_member
from node.libp2p.wire import Wire
from node.network import Peer


async def probe_member(
    *, network_seed: bytes, peer: Peer, timeout_s: float = 5.0, psk: bytes | None = None
) -> str | None:
    """Dial a member as the node would, and hang up. Returns None, or why it does not work.

    Stops before a connection counts as one, so that a node that runs meanwhile is not disturbed.
    The reason begins with one of: DNS, refused, unreachable, timeout, wrong key, no swarm node,
    wrong pre-shared key, no pre-shared key, not a member.
    """
    if not peer.addresses:
        return "no address in the charter: it has to dial us"
    target = peer_id(peer.network_key)
    noises = offered(ed25519_key_pair(network_seed), lambda found: found == target)
    reasons: list[str] = []
    for address in addresses(peer):
        reason: str | None = f"timeout: {address.text} does not finish the handshake"
        with trio.move_on_after(timeout_s), forwarded_log(None):
            reason = await _probe_address(noises, target, address, timeout_s=timeout_s, psk=psk)
        if reason is None:
            return None
        reasons.append(reason)
    return "; ".join(reasons)


async def _probe_address(
    noises: dict[TProtocol, GatedNoise],
    target: ID,
    address: Address,
    *,
    timeout_s: float,
    psk: bytes | None,
) -> str | None:
    try:
        stream = await connect(address, timeout_s=timeout_s * TCP_SHARE)
    except UnavailableError as error:
        return str(error)
    async with stream:
        wire = Wire(stream, is_initiator=True, psk=psk)
        try:
            session = await SecurityMultistream(noises).secure_outbound(wire, target)
        except Exception as error:  # noqa: BLE001 - a stranger's bytes raise all kinds of errors
            return handshake_reason(error, address, wire.psk_problem)
        try:
            await session.read(1)  # it speaks next, unless it refused us
        except LOST:
            return not_a_member(address)
    return None
