"""What waits to be written to one connection: small things first, payloads in turns.

Streams put in what they have to send; one task takes it out. So nobody who gives up cuts a write in
two, a ping waits for one batch and not for a payload, and many small frames leave with one send.
Spec: docs/adr/0012. Knows no socket, no clock.
"""

from collections import deque
from typing import Final, Protocol, final

import trio

from node.libp2p.frames import FrameError
from node.libp2p.session import MESSAGE_BYTES_MAX

BATCH_BYTES: Final = 4 * MESSAGE_BYTES_MAX
"""Most bytes of a stream that leave before it is another's turn."""
SMALL_BYTES: Final = 16 * 1024
"""What is no longer does not wait for a turn."""
HEADERS_MAX: Final = 1024
"""Headers that wait for a peer that does not read; more end the connection."""


class Sender(Protocol):
    """A stream that has something to send."""

    def waiting_bytes(self) -> int:
        """How much it could send now."""

    def take(self, bytes_max: int) -> list[bytes | memoryview]:
        """Return a frame with up to bytes_max, cut into messages; none if the peer has no room now."""


@final
class Outbox:
    """Headers, small writes, large writes: three lanes."""

    def __init__(self) -> None:
        self._headers: list[bytes] = []
        self._small: deque[Sender] = deque()
        self._large: deque[Sender] = deque()
        self._news = trio.Event()

    def put_header(self, frame: bytes) -> None:
        """Send a frame without body. Raises FrameError if the peer takes none any more."""
        if len(self._headers) >= HEADERS_MAX:
            raise FrameError("the peer makes us answer and does not read")
        self._headers.append(frame)
        self._news.set()

    def put(self, sender: Sender) -> None:
        """Send what a stream has, when it is its turn."""
        lane = self._small if sender.waiting_bytes() <= SMALL_BYTES else self._large
        lane.append(sender)
        self._news.set()

    def take_small(self) -> list[bytes | memoryview]:
        """Take headers and small writes, joined into messages; none if there are none."""
        frames: list[bytes | memoryview] = list(self._headers)
        self._headers.clear()
        size = 0
        while self._small and size < BATCH_BYTES:
            taken = self._small.popleft().take(SMALL_BYTES)
            size += sum(map(len, taken))
            frames += taken
        joined = b"".join(frames)
        return [
            joined[at : at + MESSAGE_BYTES_MAX] for at in range(0, len(joined), MESSAGE_BYTES_MAX)
        ]

    def next_large(self) -> Sender | None:
        """Take out the stream whose turn it is."""
        return self._large.popleft() if self._large else None

    def put_back(self, sender: Sender) -> None:
        """Let a stream wait for another turn."""
        self._large.append(sender)

    async def wait(self, *, large: bool = True) -> None:
        """Return when there is something to write; unless large, something small."""
        while not (self._headers or self._small or (large and self._large)):
            self._news = trio.Event()
            await self._news.wait()

    @property
    def is_empty(self) -> bool:
        """Nothing waits."""
        return not (self._headers or self._small or self._large)
