"""A network that reaches members through other members, sealed end to end. Spec: docs/wire.md §9.

Room: node. Law: wraps any Network and is one. A member with a direct connection is asked directly;
another one through whoever is connected to both; whoever carries can drop a request, not read or
alter it, nor have it answered twice. docs/adr/0013.
"""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Final, final

import trio

from ledger.errors import PeerError, UnavailableError
from node.address_book import AddressBook
from node.carrier import PAIR_MAX, Carrier
from node.framing import Status, raise_for_status
from node.limits import ReplayWindow, TokenBucket
from node.network import (
    FETCH_PROTOCOL,
    FORWARD_PROTOCOL,
    REACH_PROTOCOL,
    REQUEST_BYTES_MAX,
    SERVICE_PROTOCOLS,
    TASK_STATUS_IGNORED,
    BusyError,
    Dialling,
    EventLog,
    Handlers,
    Network,
    OtherFederationError,
    TaskStatus,
    Traffic,
    check_request,
)
from node.reaching import Reaching
from node.sealed import NO_SESSION, SESSION_BYTES, Asked, Sealer, label_of
from node.serving import RequestDesk

FORWARDED_BYTES_MAX: Final = REQUEST_BYTES_MAX - 1024
"""Longest body, either way, of what is carried: the box around it counts too."""
BYTES_PER_S: Final = 8e6
"""What a member carries for each pair unless its site.toml says otherwise."""
ANEW: Final = 4
"""Status of a sealed reply: ask again in this session, with a number above this one."""
ATTEMPTS_MAX: Final = 3
"""One to learn the session, one to ask, one if the target starts anew in between."""
NUMBER_MAX: Final = 2**53
ATTEMPT_S_MIN: Final = 1.0
PENALTY_S: Final = 1.0
PENALTY_S_MAX: Final = 60.0
DISTRUST_S: Final = 300.0
"""How long a carrier is passed over that brought something which the target did not seal."""


@dataclass(slots=True)
class _Path:
    """What is remembered of one carrier for one target."""

    failures: int = 0
    busy: int = 0
    until_s: float = -float("inf")
    took_s: float = 0.0
    slots: trio.Semaphore = field(default_factory=lambda: trio.Semaphore(PAIR_MAX))
    """An honest carrier takes no more at once, so more would only be sent away."""
    bulk: trio.Semaphore = field(default_factory=lambda: trio.Semaphore(PAIR_MAX - 1))
    """Parts of payloads leave a slot to everything else."""

    def failed(self, *, now_s: float, wait_s: float | None) -> None:
        if self.until_s > now_s and wait_s is None:
            return  # several requests that were under way fail for one reason
        self.failures += 1
        grown_s = min(PENALTY_S * 2 ** (self.failures - 1), PENALTY_S_MAX)
        self.until_s = now_s + (grown_s if wait_s is None else wait_s)

    def worked(self, took_s: float) -> None:
        self.failures = self.busy = 0
        self.took_s = took_s if not self.took_s else 0.75 * self.took_s + 0.25 * took_s


@dataclass(slots=True)
class _Talk:
    """Our side of talking to one target: the session it is in, and our next number there."""

    session: bytes = NO_SESSION
    number: int = 0
    is_carried: bool = False
    paths: dict[int, _Path] = field(default_factory=dict)


@final
class ForwardingNetwork:
    """One member's network (node.network.Network), over another one."""

    def __init__(
        self,
        inner: Network,
        *,
        names: Mapping[int, str],
        sealer: Sealer,
        log: EventLog,
        uniform: Callable[[], float],
        book: AddressBook | None = None,
        dialling: Dialling | None = None,
        bytes_per_s: float = BYTES_PER_S,
    ) -> None:
        """Names: of all members, by index. dialling: ``inner`` again, where it dials."""
        own = sealer.own
        self.inner = inner
        self.reaching = Reaching(
            inner,
            members=frozenset(names) - {own},
            carries=bytes_per_s > 0,
            uniform=uniform,
            log=log,
            book=book,
            dialling=dialling,
        )
        self.carrier = Carrier(inner, own=own, bytes_per_s=bytes_per_s)
        self._own = own
        self._names = names
        self._sealer = sealer
        self._log = log
        self._talks = {index: _Talk() for index in names if index != own}
        self._session = secrets.token_bytes(SESSION_BYTES)
        self._windows = {index: ReplayWindow() for index in self._talks}
        self._replays_told = TokenBucket(rate_per_s=0.1, burst=1)
        self._desk = RequestDesk(log)
        self._heard_s: dict[int, float] = {}
        self._handlers: Handlers | None = None
        self.background: list[Callable[[], Awaitable[None]]] = []
        """What runs beside the network once it listens."""

    # ---- node.network.Network

    async def run(
        self, handlers: Handlers, *, task_status: TaskStatus = TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled, then leave."""
        self._handlers = handlers
        async with trio.open_nursery() as nursery:
            await nursery.start(self._run_inner)
            nursery.start_soon(self.reaching.run)
            for task in self.background:
                nursery.start_soon(task)
            task_status.started()

    async def _run_inner(self, *, task_status: Any) -> None:
        await self.inner.run(self, task_status=task_status)

    async def broadcast(self, message: bytes) -> None:
        """Send to every connected peer; gossip of itself passes on what it hears."""
        await self.inner.broadcast(message)

    async def request(
        self, peer: int, protocol: str, body: bytes, *, reply_bytes_max: int, timeout_s: float
    ) -> bytes:
        """Ask one member, directly or through others."""
        check_request(protocol, body, reply_bytes_max)
        direct = peer in self.inner.connected() or protocol not in SERVICE_PROTOCOLS
        if direct or peer not in self._talks:
            return await self._ask_directly(
                peer, protocol, body, reply_bytes_max=reply_bytes_max, timeout_s=timeout_s
            )
        await trio.lowlevel.checkpoint()
        if len(body) > FORWARDED_BYTES_MAX:
            raise UnavailableError(f"{self._names[peer]}: too long to be carried")
        asked = Asked(
            session=NO_SESSION,
            sequence=0,
            protocol=protocol,
            reply_bytes_max=min(reply_bytes_max, FORWARDED_BYTES_MAX),
            body=body,
        )
        return await self._ask_around(peer, asked, timeout_s)

    def connected(self) -> frozenset[int]:
        """Peers with a connection of our own, and those whom a connected peer carries to."""
        return self.inner.connected() | self.carriers().keys()

    def last_seen_s(self) -> Mapping[int, float]:
        """When each peer was last heard, also through others."""
        seen_s = dict(self.inner.last_seen_s())
        for peer, heard_s in self._heard_s.items():
            seen_s[peer] = max(heard_s, seen_s.get(peer, heard_s))
        return seen_s

    def traffic(self) -> Traffic:
        """Bytes so far, with those that were carried for others."""
        return self.inner.traffic()

    # ---- beyond the Protocol

    def carriers(self) -> dict[int, int]:
        """Return the members without a connection of ours that are reached, and through whom."""
        connected = self.inner.connected()
        found = {target: self._paths(target) for target in self._talks if target not in connected}
        return {target: paths[0] for target, paths in found.items() if paths}

    # ---- node.network.Handlers, towards the inner network

    async def on_gossip(self, peer: int, message: bytes) -> None:
        """Pass it on."""
        if self._handlers is not None:
            await self._handlers.on_gossip(peer, message)

    async def on_request(self, peer: int, protocol: str, body: bytes) -> bytes:
        """Answer what is about reaching each other; hand the rest to the service."""
        if protocol == REACH_PROTOCOL:
            return await self.reaching.on_request(peer, body)
        if protocol == FORWARD_PROTOCOL:
            if label_of(body).target == self._own:
                return await self._open(peer, body)
            return await self.carrier.carry(peer, body)
        if self._handlers is None:
            raise UnavailableError("the network does not run")
        return await self._handlers.on_request(peer, protocol, body)

    # ---- asking

    async def _ask_directly(
        self, peer: int, protocol: str, body: bytes, *, reply_bytes_max: int, timeout_s: float
    ) -> bytes:
        try:
            reply = await self.inner.request(
                peer, protocol, body, reply_bytes_max=reply_bytes_max, timeout_s=timeout_s
            )
        except OtherFederationError:
            self.reaching.note_foreign(peer, foreign=True)
            raise
        self.reaching.note_foreign(peer, foreign=False)
        self._talks[peer].is_carried = False
        return reply

    def _paths(self, target: int) -> list[int]:
        """Return who may carry to a member now, the best first."""
        now_s, known = trio.current_time(), self._talks[target].paths
        ranked: list[tuple[int, int, float, int]] = []
        for carrier in self.reaching.carriers(target):
            path = known.get(carrier)
            if path is None:
                ranked.append((0, 0, 0.0, carrier))
            elif path.until_s <= now_s:
                ranked.append((path.failures, path.busy, path.took_s, carrier))
        return [carrier for *_, carrier in sorted(ranked)]

    async def _ask_around(self, target: int, asked: Asked, timeout_s: float) -> bytes:
        """Try one carrier after the other within the time that there is."""
        deadline_s = trio.current_time() + timeout_s
        name, reasons = self._names[target], []
        paths = self._paths(target)
        for place, carrier in enumerate(paths):
            left_s = deadline_s - trio.current_time()
            share_s = max(left_s / (len(paths) - place), ATTEMPT_S_MIN)
            path = self._talks[target].paths.setdefault(carrier, _Path())
            started_s = trio.current_time()
            try:
                status, body = await self._ask_in_time(carrier, target, asked, share_s)
            except (UnavailableError, PeerError) as error:
                # Not sealed: whoever said that, it proves nothing of the target.
                forged = isinstance(error, _ForgedError)
                if forged:
                    self._log.warning(
                        "carrier_distrusted", peer=carrier, target=target, why=str(error)
                    )
                if isinstance(error, BusyError):
                    path.busy += 1  # asked later than others, but not passed over
                else:
                    path.failed(now_s=trio.current_time(), wait_s=DISTRUST_S if forged else None)
                reasons.append(f"through {self._names[carrier]}: {error}")
                continue
            path.worked(trio.current_time() - started_s)
            self._note_way(target, carrier)
            self._heard_s[target] = trio.current_time()
            raise_for_status(_status(status, name), body, name=name)
            return _within(body, asked.reply_bytes_max, name)
        raise UnavailableError(f"{name}: {'; '.join(reasons) or 'not connected'}")

    def _note_way(self, target: int, carrier: int) -> None:
        """Say once that a member is reached through others, until it is met again."""
        talk = self._talks[target]
        if not talk.is_carried:
            talk.is_carried = True
            name, through = self._names[target], self._names[carrier]
            self._log.info("peer_carried", peer=target, name=name, through=through)

    async def _ask_in_time(
        self, carrier: int, target: int, asked: Asked, timeout_s: float
    ) -> tuple[int, bytes]:
        path, deadline_s = self._talks[target].paths[carrier], trio.current_time() + timeout_s
        async with AsyncExitStack() as stack:
            with trio.move_on_at(deadline_s) as waiting:
                if asked.protocol == FETCH_PROTOCOL:
                    await stack.enter_async_context(path.bulk)
                await stack.enter_async_context(path.slots)
            if waiting.cancelled_caught:
                raise BusyError("too many requests are under way there")
            with trio.move_on_at(deadline_s):
                return await self._ask_through(carrier, target, asked, timeout_s)
            raise UnavailableError(f"no reply in {timeout_s:.3g} s")

    async def _ask_through(
        self, carrier: int, target: int, asked: Asked, timeout_s: float
    ) -> tuple[int, bytes]:
        """Ask once, and again if the target says that it does not know where we are."""
        talk = self._talks[target]
        for _ in range(ATTEMPTS_MAX):
            talk.number += 1
            fresh = replace(asked, session=talk.session, sequence=talk.number)
            box, exchange = self._sealer.seal_request(target, fresh)
            answer = await self.inner.request(
                carrier,
                FORWARD_PROTOCOL,
                box,
                reply_bytes_max=REQUEST_BYTES_MAX,
                timeout_s=timeout_s,
            )
            try:
                status, body = self._sealer.open_reply(exchange, answer)
            except PeerError as error:
                raise _ForgedError(str(error)) from error
            if status != ANEW:
                return status, body
            if len(body) != SESSION_BYTES + 8:
                raise PeerError("a session has 16 bytes and a number")
            number = int.from_bytes(body[SESSION_BYTES:])
            if number > NUMBER_MAX:
                raise PeerError("nobody has asked that often")
            talk.session, talk.number = body[:SESSION_BYTES], max(talk.number, number)
        raise UnavailableError("it starts anew again and again")

    # ---- answering

    async def _open(self, peer: int, box: bytes) -> bytes:
        """Answer a box that is for us. Raises PeerError, unsealed: its carrier may have made it."""
        asked, exchange = self._sealer.open_request(box)
        window = self._windows[exchange.origin]
        if asked.session != self._session or window.is_behind(asked.sequence):
            where = self._session + window.highest.to_bytes(8)
            return self._sealer.seal_reply(exchange, ANEW, where)
        if not window.take(asked.sequence):
            # Of the one who brought it: the origin may have sealed it once only.
            if self._replays_told.take(now_s=trio.current_time()):
                self._log.warning("replay_refused", peer=peer)
            raise PeerError("this box was opened before")
        self._heard_s[exchange.origin] = trio.current_time()
        status, body = Status.REFUSED, b"not a protocol that is carried"
        if asked.protocol in SERVICE_PROTOCOLS and self._handlers is not None:
            status, body = await self._desk.answer(
                self._handlers, exchange.origin, asked.protocol, asked.body
            )
        limit = min(asked.reply_bytes_max, FORWARDED_BYTES_MAX)
        if status is Status.OK and len(body) > limit:
            text = f"frame of {len(body)} bytes, at most {limit} are allowed"
            status, body = Status.REFUSED, text.encode()
        return self._sealer.seal_reply(exchange, status, body)


class _ForgedError(PeerError):
    """What a carrier brought was not sealed by the target for this request."""


def _status(code: int, name: str) -> Status:
    """Read the status in a sealed reply. Raises PeerError: the seal shows that the target wrote it."""
    try:
        return Status(code)
    except ValueError:
        raise PeerError(f"{name}: reply with the unknown status {code}") from None


def _within(body: bytes, bytes_max: int, name: str) -> bytes:
    if len(body) > bytes_max:
        raise PeerError(f"{name}: frame of {len(body)} bytes, at most {bytes_max} are allowed")
    return body
