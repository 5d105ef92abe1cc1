"""Between a network and its handlers: bounded, and no exception passes. Both networks use it."""

from collections import Counter
from typing import Final, final

import trio

from ledger.errors import PeerError, UnavailableError
from node.framing import Status, error_text
from node.limits import Deduplicator, TokenBucket
from node.network import GOSSIP_QUEUE_MAX, REQUEST_BYTES_MAX, SERVING_MAX, EventLog, Handlers

_TOO_MANY: Final = b"too many requests at once"
_FAILED: Final = b"the peer failed to answer"


@final
class RequestDesk:
    """Answers requests, a bounded number per peer at once."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._serving: Counter[int] = Counter()

    async def answer(
        self, handlers: Handlers, peer: int, protocol: str, body: bytes
    ) -> tuple[Status, bytes]:
        """Return what to reply; every error becomes an error reply."""
        if self._serving[peer] >= SERVING_MAX:
            return Status.BUSY, _TOO_MANY
        self._serving[peer] += 1
        try:
            reply = await handlers.on_request(peer, protocol, body)
        except PeerError as error:
            return Status.REFUSED, error_text(error)
        except UnavailableError as error:
            return Status.BUSY, error_text(error)
        except Exception as error:  # noqa: BLE001 - no handler stops the network
            self._log.warning("handler_failed", where=protocol, peer=peer, error=repr(error))
            return Status.FAILED, _FAILED
        finally:
            self._serving[peer] -= 1
        if len(reply) > REQUEST_BYTES_MAX:
            error_field = f"reply of {len(reply)} bytes"
            self._log.warning("handler_failed", where=protocol, peer=peer, error=error_field)
            return Status.FAILED, _FAILED
        return Status.OK, reply


@final
class GossipInbox:
    """Drops copies, queues what is new, and hands it over one by one.

    A queue and a task of its own, because a gossip handler may wait for the reply to a request.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._seen = Deduplicator()
        self._drops = TokenBucket(rate_per_s=0.1, burst=1)
        self._send, self._receive = trio.open_memory_channel[tuple[int, bytes]](GOSSIP_QUEUE_MAX)

    @property
    def waiting(self) -> int:
        """Messages that wait for the handler, at most GOSSIP_QUEUE_MAX."""
        return self._receive.statistics().current_buffer_used

    def put(self, author: int, message: bytes) -> None:
        """Take a message that came in."""
        now_s = trio.current_time()
        if not self._seen.is_new(author, message, now_s=now_s):
            return
        try:
            self._send.send_nowait((author, message))
        except trio.WouldBlock:
            if self._drops.take(now_s=now_s):
                self._log.warning("gossip_dropped", reason="the handler is too slow")

    async def run(self, handlers: Handlers) -> None:
        """Hand messages over until cancelled."""
        async for author, message in self._receive:
            try:
                await handlers.on_gossip(author, message)
            except Exception as error:  # noqa: BLE001 - no handler stops the network
                self._log.warning("handler_failed", where="gossip", peer=author, error=repr(error))
