"""Dialling a member: every address, once. When to dial is node.links' business."""

from typing import final

import trio
from libp2p.network.swarm import Swarm

from ledger.errors import UnavailableError
from node.addresses import TCP_SHARE, Address, connect
from node.libp2p.members import Members
from node.libp2p.reasons import handshake_reason, short
from node.libp2p.wire import Wire
from node.links import NO_ADDRESS


@final
class Dialler:
    """Dials without libp2p's own dialler.

    It does not read /etc/hosts, blocks a peer for 60 s after a failure, and waits 250 ms for a
    choice of transports that we do not offer.
    """

    def __init__(self, swarm: Swarm, members: Members, *, dial_s: float, psk: bytes | None) -> None:
        self._swarm = swarm
        self._members = members
        self._dial_s = dial_s
        self._psk = psk

    async def dial(self, peer: int) -> str | None:
        """Try every address once. Returns why none worked, or None."""
        if not self._members.addresses[peer]:
            return f"{NO_ADDRESS}: it has to dial us"
        reasons: list[str] = []
        for address in self._members.addresses[peer]:
            reason: str | None = f"timeout: {address.text} does not finish the handshake"
            with trio.move_on_after(self._dial_s):
                reason = await self._dial_address(peer, address)
            if reason is None:
                return None
            reasons.append(reason)
        return "; ".join(reasons)

    async def _dial_address(self, peer: int, address: Address) -> str | None:
        try:
            stream = await connect(address, timeout_s=self._dial_s * TCP_SHARE)
        except UnavailableError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - what a member names must not end the node
            return f"unreachable: {address.text} ({short(error)})"
        established = False
        wire = Wire(stream, is_initiator=True, psk=self._psk)
        try:
            await self._swarm.upgrade_outbound_raw_conn(wire, self._members.ids[peer])
            established = True
        except Exception as error:  # noqa: BLE001 - a stranger's bytes raise all kinds of errors
            return handshake_reason(error, address, wire.psk_problem)
        finally:
            if not established:
                stream.socket.close()
        return None
