"""What a node may expect of a network. Knows no socket, no libp2p, no record.

Two implementations keep these promises: node/libp2p (hospitals) and
node/network_memory.py (the simulator). tests/node/test_network_contract.py is the exam of both.
Peers are roster indices: an implementation translates its own addresses and keys, and a
stranger (not on the roster) never becomes a peer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from ledger.errors import UnavailableError
from node.addresses import Address

RECORDS_PROTOCOL: Final = "/swarm/records/1"
"""The gossip topic: signed records, small and many."""
SYNC_PROTOCOL: Final = "/swarm/sync/1"
"""Requests that compare ledger heads and bring what is missing (anti-entropy)."""
FETCH_PROTOCOL: Final = "/swarm/fetch/1"
"""Requests for a piece of a payload."""
CHECKPOINT_PROTOCOL: Final = "/swarm/checkpoint/1"
"""Requests to cosign a log's head, and to share heads that a quorum has cosigned."""
ROSTER_PROTOCOL: Final = "/swarm/roster/1"
"""Roster updates, asked for by name of the roster before them."""
REACH_PROTOCOL: Final = "/swarm/reach/1"
"""Who is connected to whom, and where members can be dialled (node/reaching.py)."""
FORWARD_PROTOCOL: Final = "/swarm/forward/1"
"""Sealed requests that another member carries (node/forwarding.py)."""
SERVICE_PROTOCOLS: Final = (
    SYNC_PROTOCOL,
    FETCH_PROTOCOL,
    CHECKPOINT_PROTOCOL,
    ROSTER_PROTOCOL,
)
"""What a node's service answers, whether asked directly or through another member."""
REQUEST_PROTOCOLS: Final = (*SERVICE_PROTOCOLS, REACH_PROTOCOL, FORWARD_PROTOCOL)

GOSSIP_BYTES_MAX: Final = 64 * 1024
"""Longest gossip message. A record fits; a payload is fetched instead."""
REQUEST_BYTES_MAX: Final = 1024 * 1024 + 64 * 1024
"""Longest request body and longest reply body: one payload chunk and its envelope."""
ERROR_BYTES_MAX: Final = 256
"""Longest text of an error reply."""
GOSSIP_QUEUE_MAX: Final = 256
"""Gossip messages that wait for the handler; what comes on top is dropped."""
SERVING_MAX: Final = 16
"""Requests of one peer that are handled at once; one more gets UnavailableError."""
REQUESTS_MAX: Final = SERVING_MAX // 2
"""Requests to one peer that are on their way at once; further ones wait, within their time."""


class BusyError(UnavailableError):
    """The peer itself says that it cannot answer now: it is there, and the way to it works."""


class UnspokenError(UnavailableError):
    """The peer does not speak this protocol: an older node. It is asked again in one that it knows."""


class OtherFederationError(UnavailableError):
    """A member answers, but speaks for another charter: one of the two holds the wrong file."""


class TaskStatus(Protocol):
    """The part of trio.TaskStatus that is used here (nursery.start passes one)."""

    def started(self, value: None = None) -> None: ...  # noqa: D102


class _Ignored:
    def started(self, value: None = None) -> None:
        """Nobody waits."""


TASK_STATUS_IGNORED: Final[TaskStatus] = _Ignored()


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """One member as the network sees it.

    index: place on the roster. name: for log lines. network_key: Ed25519 public key, 32 bytes.
    addresses: multiaddrs ("/ip4/10.0.0.7/tcp/4001", "/dns4/…/tcp/…"); none = it dials us.
    """

    index: int
    name: str
    network_key: bytes = field(repr=False)
    addresses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.index < 0:
            raise ValueError(f"a peer's index is its place on the roster, got {self.index}")
        if len(self.network_key) != 32:
            raise ValueError(f"network key of {self.name}: 32 bytes, got {len(self.network_key)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """Bytes since the network started to run.

    Counted at one place in both implementations: the frames of requests and replies (header and
    body) and the bodies of gossip, as they are written to and read from streams. A gossip message
    counts once per peer it is sent to and once per author and copy that is read. Encryption,
    muxer, identify and ping are not in it.
    """

    bytes_sent: int = 0
    bytes_received: int = 0


class Handlers(Protocol):
    """What the service gives to the network. Neither method can bring the network down."""

    async def on_gossip(self, peer: int, message: bytes) -> None:
        """Take a message that `peer` wrote (not: forwarded).

        Called for one message after the other; a slow handler fills a bounded queue, and what
        does not fit in is dropped. An exception is logged and the message is gone.
        """

    async def on_request(self, peer: int, protocol: str, body: bytes) -> bytes:
        """Answer a request; may run many times at once, also for one peer (bounded).

        PeerError (bad request) and UnavailableError (not now): the requester gets the first line
        and raises the same. Any other exception, or a reply longer than REQUEST_BYTES_MAX:
        logged as handler_failed, the requester learns only that we failed (PeerError).
        """
        ...


class Network(Protocol):
    """Best-effort messages between members.

    Promised: every message and request comes from the member that it names (transport
    authenticated against the roster); nothing longer than the limits reaches a handler; no peer,
    no stranger and no handler can stop the network; lost peers are redialled forever; every wait
    has a deadline.
    Not promised: delivery, order, or word of a loss. Gossip arrives at most once, in any order,
    perhaps never. A request may have been handled although it raised UnavailableError, so
    requests must be safe to repeat.
    """

    async def run(
        self, handlers: Handlers, *, task_status: TaskStatus = TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled, then leave cleanly (no task, socket or connection remains).

        task_status.started() is called once peers can reach us. Raises ConfigError, one line,
        if we cannot listen where the configuration says. Runs once per object.
        """

    async def broadcast(self, message: bytes) -> None:
        """Send to every connected peer, best effort; never back to ourselves.

        The same bytes sent twice by one member within a minute arrive once. Returns before
        delivery and does nothing while the network does not run. Raises ValueError if the message is empty or
        longer than GOSSIP_BYTES_MAX.
        """

    async def request(
        self, peer: int, protocol: str, body: bytes, *, reply_bytes_max: int, timeout_s: float
    ) -> bytes:
        """Ask one peer and return its reply. Several may be on their way to one peer (REQUESTS_MAX).

        Raises UnavailableError (not connected, connection lost, no reply in timeout_s, peer too
        busy: retry later or ask another) or PeerError (an error reply, or a reply longer than
        reply_bytes_max, which is refused before it is read: do not repeat). ValueError: body
        longer than REQUEST_BYTES_MAX, unknown protocol or index: our own bug.
        """
        ...

    def connected(self) -> frozenset[int]:
        """Peers that a request could reach now, as far as we know; never ourselves."""
        ...

    def last_seen_s(self) -> Mapping[int, float]:
        """When each peer was last heard, in seconds of trio.current_time(). Never heard: absent."""
        ...

    def traffic(self) -> Traffic:
        """Bytes sent and received so far."""
        ...


class Dialling(Protocol):
    """What a network can say and be told of its dials, where there are any."""

    def redirect(self, peer: int, addresses: Sequence[Address]) -> None:
        """Dial a peer at these addresses from now on, in this order; at once if it is away."""

    def redial(self, peer: int) -> None:
        """Dial a peer that is away now, not when its turn comes."""

    def failures(self) -> Mapping[int, str]:
        """Return why the newest dial of each peer that is away failed, as node.addresses words it."""
        ...

    def listening(self) -> tuple[str, ...]:
        """Return the addresses that it really listens on."""
        ...


class EventLog(Protocol):
    """A structlog-like bound logger: an event name and fields."""

    def debug(self, event: str, **fields: object) -> object: ...  # noqa: D102
    def info(self, event: str, **fields: object) -> object: ...  # noqa: D102
    def warning(self, event: str, **fields: object) -> object: ...  # noqa: D102


def check_gossip(message: bytes) -> None:
    """Raise ValueError unless `message` may be broadcast."""
    if not 0 < len(message) <= GOSSIP_BYTES_MAX:
        raise ValueError(f"a gossip message has 1 to {GOSSIP_BYTES_MAX} bytes, got {len(message)}")


def check_request(
    protocol: str, body: bytes, reply_bytes_max: int, *, spoken: Sequence[str] = REQUEST_PROTOCOLS
) -> None:
    """Raise ValueError unless a request with these parts may be sent."""
    if protocol not in spoken:
        raise ValueError(f"no such request protocol: {protocol}")
    if len(body) > REQUEST_BYTES_MAX:
        raise ValueError(f"a request has up to {REQUEST_BYTES_MAX} bytes, got {len(body)}")
    if not 0 <= reply_bytes_max <= REQUEST_BYTES_MAX:
        raise ValueError(f"reply_bytes_max is 0 to {REQUEST_BYTES_MAX}, got {reply_bytes_max}")
