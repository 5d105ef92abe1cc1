"""Nobody off the roster gets past the handshake, in neither direction."""

from collections.abc import Callable
from typing import final

from libp2p.abc import IRawConnection, ISecureConn
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as x25519_key_pair
from libp2p.peer.id import ID
from libp2p.security.exceptions import HandshakeFailure
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.secure_session import SecureSession

from node.libp2p.session import Session
from node.libp2p.wire import Wire


@final
class GatedNoise(NoiseTransport):
    """The stock handshake, for those only whom admits() knows; then our session."""

    def __init__(self, keys: KeyPair, admits: Callable[[ID], bool]) -> None:
        super().__init__(keys, noise_privkey=x25519_key_pair().private_key)
        self._admits = admits

    async def secure_inbound(self, conn: IRawConnection) -> Session:
        """Shake hands as the called."""
        return await self._gate(await super().secure_inbound(conn), conn)

    async def secure_outbound(self, conn: IRawConnection, peer_id: ID) -> Session:
        """Shake hands as the caller."""
        return await self._gate(await super().secure_outbound(conn, peer_id), conn)

    async def _gate(self, shaken: ISecureConn, conn: IRawConnection) -> Session:
        if not isinstance(shaken, SecureSession) or not isinstance(conn, Wire):
            raise HandshakeFailure("noise gave an unknown kind of session")
        if not self._admits(shaken.get_remote_peer()):
            await shaken.close()
            raise HandshakeFailure("not on the roster")
        conn.trust()
        return Session(shaken, conn)
