"""A secured connection whose writes end whole or with the connection, never in between."""

from typing import Final, final

import trio
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.security.secure_session import SecureSession

WRITE_S: Final = 30.0
"""One write to a socket; then the connection is closed."""


@final
class Session(SecureSession):
    """A noise session that no cancelled task can garble."""

    async def write(self, data: bytes) -> None:
        """Write all, or close the connection."""
        with trio.move_on_after(WRITE_S) as scope:
            scope.shield = True  # a half-written frame would garble every stream after it
            await super().write(data)
        if scope.cancelled_caught:
            await self.close()
            raise ConnectionClosedError(f"write stalled for {WRITE_S:g} s")
