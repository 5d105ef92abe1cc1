"""Which peers are there, and what to do about those that are not. Knows no libp2p, no socket.

One Link per peer remembers when the peer was heard and wakes whoever waits for it to come or go.
keep_dialling and watch_heartbeat are the two loops that a link lives by; what a dial or a ping is,
they are told.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, final

import trio

from node.backoff import FIRST_S, LAST_S, Backoff
from node.network import EventLog, Peer

_SETTLED_S: Final = 5.0
"""A connection that lasted so long starts the back-off anew."""
_REFUSALS_TOLD: Final = 2
NO_ADDRESS: Final = "no address"
"""How the reason begins for a member that can only be waited for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """How soon a network reacts.

    heartbeat_s: a peer not heard for so long is pinged; lower finds dead peers sooner, higher
      saves CPU (a ping costs about 1 ms). ping_s: silence after a ping that ends the connection;
      raise it on links with long stalls. dial_s: for one attempt, all of TCP and handshake.
      redial_s: the longest wait between attempts.
    """

    heartbeat_s: float = 4.0
    ping_s: float = 5.0
    dial_s: float = 8.0
    redial_s: float = LAST_S

    def __post_init__(self) -> None:
        if min(self.heartbeat_s, self.ping_s, self.dial_s, self.redial_s) <= 0:
            raise ValueError("times are positive")


@final
@dataclass(slots=True)
class Link:
    """The state of things with one peer. is_up() asks the network itself."""

    peer: Peer
    is_up: Callable[[], bool]
    log: EventLog
    last_seen_s: float | None = None
    reason: str | None = None
    """Why the newest dial failed."""
    _moved_s: float | None = None
    _was_up: bool = False
    _refusals: int = 0
    _changed: trio.Event = field(default_factory=trio.Event)

    def heard(self) -> None:
        """Note that the peer gave a sign of life."""
        self.last_seen_s = trio.current_time()

    def moved(self) -> None:
        """Note that the peer's end took a piece of a payload."""
        self._moved_s = trio.current_time()

    def is_silent_since(self, since_s: float) -> bool:
        """Whether nothing came, and nothing large went, after since_s."""
        return max(self.last_seen_s or since_s, self._moved_s or since_s) <= since_s

    def understood(self) -> None:
        """Note that the peer speaks for this federation."""
        self._refusals = 0

    def refused(self) -> None:
        """Note that the peer speaks for another; said once, and not for one that still starts."""
        self._refusals += 1
        if self._refusals == _REFUSALS_TOLD:
            self.log.warning(
                "other_charter", peer=self.peer.index, name=self.peer.name,
                hint="compare `swarm-node charter digest` at both sites",
            )  # fmt: skip

    def changed(self) -> None:
        """Note that a connection came or went: log, and wake who waits."""
        is_up = self.is_up()
        if is_up != self._was_up:
            self._was_up = is_up
            if is_up:
                self.reason = None
                self.log.info("peer_connected", peer=self.peer.index, name=self.peer.name)
            else:
                self.log.warning("peer_lost", peer=self.peer.index, name=self.peer.name)
        self._changed.set()
        self._changed = trio.Event()

    async def wait_change(self, *, timeout_s: float) -> None:
        """Return after the next change, or after timeout_s."""
        with trio.move_on_after(timeout_s):
            await self._changed.wait()


async def keep_dialling(
    link: Link,
    dial: Callable[[], Awaitable[str | None]],
    *,
    yields: bool,
    timing: Timing,
    uniform: Callable[[], float],
) -> None:
    """Keep a peer connected, forever. dial() returns None or why it failed.

    yields: let the peer dial first (of two that know each other's address one yields, so that
    there is one connection, not two).
    """
    backoff = Backoff(uniform, last_s=timing.redial_s)
    while True:
        if backoff.attempts == 0 and yields:
            await link.wait_change(timeout_s=FIRST_S)
        if not link.is_up() and (reason := await dial()) is not None:
            wait_s = backoff.next_s()
            link.reason = reason
            _log_failure(link, backoff.attempts, wait_s, reason)
            await link.wait_change(timeout_s=wait_s)
            continue
        since_s = trio.current_time()
        while link.is_up():
            await link.wait_change(timeout_s=1)
        if trio.current_time() - since_s >= _SETTLED_S:
            backoff.reset()
        else:
            await link.wait_change(timeout_s=backoff.next_s())


async def watch_heartbeat(
    link: Link,
    ping: Callable[[], Awaitable[None]],
    drop: Callable[[], Awaitable[None]],
    *,
    timing: Timing,
    uniform: Callable[[], float],
) -> None:
    """Ping a silent peer, and drop its connections if that brings no answer, forever."""
    while True:
        await trio.sleep(timing.heartbeat_s * (0.75 + 0.5 * uniform()))
        now_s = trio.current_time()
        heard_s = now_s if link.last_seen_s is None else link.last_seen_s
        if not link.is_up() or now_s - heard_s < timing.heartbeat_s / 2:
            continue
        deadline_s = now_s + timing.ping_s
        with trio.move_on_at(deadline_s) as scope:
            await ping()
        # On a slow line a payload may stand before the ping or its answer: while it moves, wait.
        # If this whole process was stuck, the answer may lie unread: ask again.
        is_silent = link.is_silent_since(now_s) and trio.current_time() - deadline_s < 1
        if scope.cancelled_caught and is_silent:
            link.log.debug("peer_silent", peer=link.peer.index, name=link.peer.name)
            await drop()


def _log_failure(link: Link, attempts: int, wait_s: float, reason: str) -> None:
    """Warn at the third attempt and then ever more seldom; the rest is for debugging."""
    loud = (attempts == 3 or attempts % 20 == 10) and not reason.startswith(NO_ADDRESS)
    tell = link.log.warning if loud else link.log.debug
    tell(
        "dial_failed",
        peer=link.peer.index,
        name=link.peer.name,
        attempts=attempts,
        retry_s=round(wait_s, 2),
        reason=reason,
    )
