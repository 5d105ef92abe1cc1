"""Nobody off the roster gets past the handshake, in neither direction.

Two are offered, which differ in the cipher only: AES-GCM, which processors of today do three or four
times as fast, to whoever knows it, and libp2p's own. Spec: docs/wire.md §2.
"""

from collections.abc import Callable
from typing import Final, final

from libp2p.abc import IRawConnection, ISecureConn
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.security.exceptions import HandshakeFailure
from libp2p.security.noise.patterns import PatternXX
from libp2p.security.noise.transport import PROTOCOL_ID as STOCK_NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.secure_session import SecureSession

from node.libp2p.narrowed import narrow
from node.libp2p.session import Session
from node.libp2p.wire import Wire

AES_NOISE: Final = TProtocol("/swarm/noise-aesgcm/1")
_AES_SUITE: Final = b"Noise_XX_25519_AESGCM_SHA256"


@final
class GatedNoise(NoiseTransport):
    """The stock handshake, for those only whom admits() knows; then our session."""

    def __init__(
        self, keys: KeyPair, admits: Callable[[ID], bool], *, suite: bytes | None = None
    ) -> None:
        """suite: the noise protocol's name; None: libp2p's."""
        narrow()  # nobody shakes hands without it
        super().__init__(keys, noise_privkey=x25519_key_pair().private_key)
        self._admits = admits
        self._suite = suite

    def get_pattern(self) -> PatternXX:
        """Return what a handshake begins with."""
        pattern = PatternXX(self.local_peer, self.libp2p_privkey, self.noise_privkey, None)
        pattern.protocol_name = self._suite or pattern.protocol_name
        return pattern

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


def offered(keys: KeyPair, admits: Callable[[ID], bool]) -> dict[TProtocol, GatedNoise]:
    """Return the ways to secure a connection, the one to propose first at the front."""
    return {
        AES_NOISE: GatedNoise(keys, admits, suite=_AES_SUITE),
        STOCK_NOISE: GatedNoise(keys, admits),
    }
