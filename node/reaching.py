"""Who reaches whom: asked of every connected member, told to each. Spec: docs/wire.md §9.1.

Room: node. Law: a member's view counts while it is connected and fresh; it says whom to try, never
what to believe.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, final

import trio

from ledger.errors import PeerError, UnavailableError
from node.address_book import AddressBook
from node.network import (
    REACH_PROTOCOL,
    REQUEST_BYTES_MAX,
    Dialling,
    EventLog,
    Network,
    OtherFederationError,
)
from swarm.protocol.reach import Reach, Sequences, Sight, decode_reach, encode_reach

INTERVAL_S: Final = 15.0
"""How often every connected member is asked; a change is told within SETTLE_S."""
FRESH_S: Final = 3 * INTERVAL_S
SETTLE_S: Final = 1.0
"""Changes of the connections are told together, this far apart at least."""
POLL_S: Final = 0.25
DIAL_AGAIN_S: Final = 5.0
"""What others say of a member brings one dial of it in so long, at most."""
REQUEST_TIMEOUT_S: Final = 10.0

SIGHTS: Final[Mapping[str, Sight]] = {
    "no address": Sight.NO_ADDRESS,
    "DNS": Sight.DNS,
    "refused": Sight.REFUSED,
    "unreachable": Sight.UNREACHABLE,
    "timeout": Sight.TIMEOUT,
    "wrong key": Sight.WRONG_KEY,
    "no swarm node": Sight.NO_SWARM_NODE,
    "not a member": Sight.NOT_A_MEMBER,
    "wrong pre-shared key": Sight.PRE_SHARED_KEY,
    "no pre-shared key": Sight.PRE_SHARED_KEY,
}
"""How the reasons begin that node.addresses and the dialler give."""


@dataclass(frozen=True, slots=True)
class _View:
    reach: Reach
    heard_s: float


def sight_of(reason: str) -> Sight:
    """Return the code of a dial's reason: of the address that got furthest, if there are several."""
    found = {
        sight
        for part in reason.split("; ")
        for prefix, sight in SIGHTS.items()
        if part.startswith(prefix)
    }
    return max(found, default=Sight.UNKNOWN)


@final
class Reaching:
    """What this node knows of everybody's connections, and its side of telling."""

    def __init__(
        self,
        network: Network,
        *,
        members: frozenset[int],
        carries: bool,
        uniform: Callable[[], float],
        log: EventLog,
        book: AddressBook | None = None,
        dialling: Dialling | None = None,
    ) -> None:
        """Members: the others. uniform: random numbers from 0 to 1, to spread questions."""
        self._network = network
        self._members = members
        self._carries = carries
        self._uniform = uniform
        self._log = log
        self.book = book
        self._dialling = dialling
        self._views: dict[int, _View] = {}
        self._foreign: set[int] = set()
        self._asking: set[int] = set()
        self._newer: set[int] = set()
        self._dialled_s: dict[int, float] = {}

    def views(self) -> dict[int, Reach]:
        """Return what connected members last said, unless that is too long ago."""
        now_s, connected = trio.current_time(), self._network.connected()
        return {
            peer: view.reach
            for peer, view in self._views.items()
            if peer in connected and now_s - view.heard_s <= FRESH_S
        }

    def carriers(self, target: int) -> list[int]:
        """Return who says that it is connected to a member and carries."""
        return [
            peer
            for peer, reach in sorted(self.views().items())
            if peer != target and reach.carries and reach.sights.get(target) is Sight.CONNECTED
        ]

    def note_foreign(self, peer: int, *, foreign: bool) -> None:
        """Note whether a member speaks for another charter."""
        (self._foreign.add if foreign else self._foreign.discard)(peer)

    def own_sights(self) -> dict[int, Sight]:
        """Return how this node sees the others, as it tells them.

        Why a dial failed is told of the charter's addresses only: a member that could name any
        address and be told what became of it would look into this site's own network.
        """
        failures = self._dialling.failures() if self._dialling else {}
        connected = self._network.connected()

        def sight(member: int) -> Sight:
            if member in self._foreign:
                return Sight.OTHER_CHARTER
            if member in connected:
                return Sight.CONNECTED
            if (reason := failures.get(member)) is None:
                return Sight.UNKNOWN
            told = self.book is None or self.book.only_charter(member)
            return sight_of(reason) if told else Sight.UNREACHABLE

        return {member: sight(member) for member in sorted(self._members)}

    def reasons(self) -> dict[int, str]:
        """Return why the newest dial of each member failed that is away, for this site's operator."""
        connected = self._network.connected()
        failures = self._dialling.failures() if self._dialling else {}
        return {peer: text for peer, text in failures.items() if peer not in connected}

    def addresses(self) -> dict[int, list[str]]:
        """Return where each member is dialled."""
        book = self.book
        return (
            {m: [a.text for a in book.addresses(m)] for m in sorted(self._members)} if book else {}
        )

    async def run(self) -> None:
        """Ask who has just connected; everybody after a change here, and now and then."""
        if self.book is not None:
            await self.book.announce()
        told: frozenset[int] = frozenset()
        told_of: Sequences = {}
        due_s = told_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            while True:
                now_s, connected = trio.current_time(), self._network.connected()
                chosen = connected - self._views.keys() | (self._newer & connected)
                held = self.book.sequences() if self.book else {}
                changed = (connected, held) != (told, told_of) and now_s - told_s >= SETTLE_S
                if changed or now_s >= due_s:
                    chosen, told, told_of, told_s = connected, connected, held, now_s
                    due_s = now_s + INTERVAL_S * (0.75 + 0.5 * self._uniform())
                for gone in self._views.keys() - connected:
                    del self._views[gone]
                self._newer -= chosen
                for peer in sorted(chosen - self._asking):
                    self._asking.add(peer)
                    nursery.start_soon(self._ask, peer)
                await trio.sleep(POLL_S)

    async def on_request(self, peer: int, body: bytes) -> bytes:
        """Take a member's view and answer with ours. Raises PeerError."""
        reach = decode_reach(body)
        await self._hear(peer, reach)
        held = self.book.sequences() if self.book else reach.sequences
        if any(newest > held.get(author, (-1, -1)) for author, newest in reach.sequences.items()):
            self._newer.add(peer)
        return encode_reach(self._own(reach.sequences))

    async def _ask(self, peer: int) -> None:
        try:
            view = self._views.get(peer)
            # Who said nothing yet shall not be sent what it may hold: its answer tells.
            body = encode_reach(self._own(view.reach.sequences if view else None))
            reply = await self._network.request(
                peer,
                REACH_PROTOCOL,
                body,
                reply_bytes_max=REQUEST_BYTES_MAX,
                timeout_s=REQUEST_TIMEOUT_S,
            )
            await self._hear(peer, decode_reach(reply))
        except OtherFederationError:
            self.note_foreign(peer, foreign=True)
        except UnavailableError as error:
            self._log.debug("reach_unavailable", peer=peer, why=str(error))
            await trio.sleep(SETTLE_S)  # a member of an older version: do not ask at every poll
        except PeerError as error:
            self._log.warning("reach_refused", peer=peer, why=str(error))
            await trio.sleep(INTERVAL_S)
        finally:
            self._asking.discard(peer)

    def _dial_who_is_there(self, members: frozenset[int]) -> None:
        """Dial members that somebody has just met, without waiting for the next turn, now and then."""
        if self._dialling is None:
            return
        now_s = trio.current_time()
        for member in (members & self._members) - self._network.connected():
            if now_s - self._dialled_s.get(member, -DIAL_AGAIN_S) >= DIAL_AGAIN_S:
                self._dialled_s[member] = now_s
                self._dialling.redial(member)

    def _own(self, theirs: Sequences | None) -> Reach:
        book = self.book
        return Reach(
            sights=self.own_sights(),
            carries=self._carries,
            sequences=book.sequences() if book else {},
            records=book.lacking(theirs) if book and theirs is not None else (),
        )

    async def _hear(self, peer: int, reach: Reach) -> None:
        self._foreign.discard(peer)
        before = self._views.get(peer)
        self._views[peer] = _View(reach, trio.current_time())
        self._dial_who_is_there(
            reach.connected - (before.reach.connected if before else frozenset())
        )
        if self.book is not None:
            await self.book.learn(reach.records, source=f"peer {peer}")
