"""Records between this node and its peers: gossip, anti-entropy, and serving them.

Announce small, pull large: records go to everybody by gossip, and a regular comparison of heads brings
whatever gossip lost. Payloads: node/transfer.py. Spec: docs/wire.md §3–4.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias, final

import trio

from ledger.errors import ConfigError, PeerError, StoreError, UnavailableError
from ledger.fork import Fork
from ledger.record import Record, Verified
from node.journal import Journal, RosterChangedError
from node.network import REQUEST_BYTES_MAX, SYNC_PROTOCOL
from node.world import World
from swarm.protocol.book import RoundBook
from swarm.protocol.messages import (
    Counts,
    Heads,
    Hello,
    SyncReply,
    decode_gossip,
    decode_sync_reply,
    decode_sync_request,
    encode_gossip,
    encode_sync_reply,
    encode_sync_request,
)
from swarm.protocol.sync import Comparison, Schedule, Standing, gaps, wanted

GATHER_A_MEMBER_S: Final = 0.005
"""Records that are announced so soon after each other, times the members, are stored together: one flush
of the disk for all, and one look at what they change."""
GATHER_MAX_S: Final = 0.25
GATHERED_MAX: Final = 256
"""Announcements that may wait for that."""
REQUEST_TIMEOUT_S: Final = 20.0
SOON_MIN_S: Final = 0.1

Answer: TypeAlias = Callable[[int, bytes], Awaitable[bytes]]
"""Answers requests of one more protocol: (peer, body) → reply."""


class Listener(Protocol):
    """The service, as the exchange sees it."""

    def records_stored(self, records: Sequence[Verified[Record]]) -> None:
        """New records are on the disk."""

    def peer_synced(self, peer: int) -> None:
        """A peer's heads were compared and nothing of its is missing here."""

    def forks_found(self, forks: Sequence[Fork]) -> None:
        """Logs are frozen from now on: their keys have signed one slot twice."""

    def failed(self, error: Exception) -> None:
        """Something happened that no node goes on with."""

    def standing(self) -> tuple[int, int]:
        """Return (round, phase), to tell peers."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a peer last said of itself, and when (both clocks)."""

    hello: Hello
    at_s: float
    at_ms: int


@final
class Exchange:
    """One node's side of every conversation. It is the network's `Handlers`."""

    def __init__(
        self,
        *,
        world: World,
        journal: Journal,
        book: RoundBook,
        listener: Listener,
        answers: Mapping[str, Answer] = MappingProxyType({}),
    ) -> None:
        self.heard: dict[int, Heard] = {}
        self.roster_unknown: Callable[[Sequence[int]], None] = lambda _peers: None
        """Called with peers who know a roster that is not known here: their records name it, or they say so."""
        self._world = world
        self._network = world.network
        self._log = world.log
        self._journal = journal
        self._book = book
        self._listener = listener
        self._answers = answers
        self._schedule = Schedule(world.random, soon_min_s=lambda: self._soon_min_s)
        self._hurried = trio.Event()
        self._gathered: list[tuple[int, Sequence[bytes]]] = []
        self._gathering: trio.Event | None = None
        """Set when something is gathered; None: nobody takes it, so each message is stored by itself."""

    # Records

    async def publish(self, record: Verified[Record]) -> None:
        """Tell everybody about a stored record of our own."""
        await self._network.broadcast(encode_gossip([record.signed.envelope()]))

    async def on_gossip(self, peer: int, message: bytes) -> None:
        """Take records that somebody announced, together with others of the same moment."""
        envelopes = decode_gossip(message)
        if self._gathering is None or len(self._gathered) >= GATHERED_MAX:
            await self._take([peer], envelopes)
            return
        self._gathered.append((peer, envelopes))
        self._gathering.set()

    @property
    def _gather_s(self) -> float:
        return min(GATHER_A_MEMBER_S * self._book.roster.n, GATHER_MAX_S)

    @property
    def _soon_min_s(self) -> float:
        """What seems to be missing is on its way, mostly, or gathered and not yet stored."""
        return max(SOON_MIN_S, 2 * self._gather_s)

    @property
    def gathered(self) -> int:
        """Announcements that wait to be stored together, at most GATHERED_MAX."""
        return len(self._gathered)

    async def _gather_forever(self) -> None:
        """Store what was announced, in groups."""
        self._gathering = trio.Event()
        while True:
            await self._gathering.wait()
            self._gathering = trio.Event()
            gathered, self._gathered = self._gathered, []
            peers = sorted({peer for peer, _ in gathered})
            try:
                await self._take(peers, [one for _, several in gathered for one in several])
            except Exception as error:  # noqa: BLE001 - no message stops the node, but by `failed`
                self._log.warning("handler_failed", where="gossip", peers=peers, error=repr(error))
            await trio.sleep(self._gather_s)

    async def _take(self, peers: Sequence[int], envelopes: Sequence[bytes]) -> int:
        """Store what peers sent and return how many records were new."""
        try:
            result = await self._journal.ingest(envelopes)
        except (StoreError, ConfigError) as error:
            self._listener.failed(error)
            raise
        if any(refusal.code == "E_ROSTER_UNKNOWN" for refusal in result.refused):
            self.roster_unknown(peers)
        for refusal in result.refused:
            self._log.warning("record_refused", peers=peers, code=refusal.code, why=str(refusal))
        if result.is_rewritten:
            self._listener.failed(RosterChangedError(self._book.roster.version))
            return len(result.stored)
        if result.forks:
            self._listener.forks_found(result.forks)
        if result.stored:
            self._listener.records_stored(result.stored)
        if result.gap:
            self.compare_soon(result.ask)
        return len(result.stored)

    def compare_soon(self, peers: Collection[int] = ()) -> None:
        """Compare heads at once, with ``peers`` first: something seems to be missing here, or there."""
        self._schedule.hurry(peers)
        self._hurried.set()

    def is_complete(self, peer: int) -> bool:
        """Whether a peer, as it last said of itself, holds every closed log as far as it is held here."""
        if peer not in self.heard:
            return False
        theirs, ours = self.heard[peer].hello.heads, self._journal.counts()
        roster = self._book.roster
        closed = {(one, roster.epoch(one)) for one in self._book.closed if roster.is_active(one)}
        return all(
            log in theirs and theirs[log].count >= ours.get(log, 0)
            for log in closed - self._journal.forks.slots.keys()
        )

    async def sync_forever(self, interval_s: float) -> None:
        """Compare heads with a few peers again and again, at once where something is missing.

        A peer that is silent or slow is left to answer in its own time; it delays no comparison with
        the others.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._gather_forever)
            while True:
                peers, now_s = self._network.connected(), trio.current_time()
                for peer in self._schedule.choose(
                    now_s, peers, heard=self.heard, interval_s=interval_s
                ):
                    nursery.start_soon(self._sync_quietly, peer)
                if not self._schedule.is_hurried:
                    self._hurried = trio.Event()
                everyone = len(self.heard) >= self._book.roster.n - 1
                look_s = self._schedule.look_s(now_s, is_everyone_heard=everyone)
                with trio.move_on_at(look_s):
                    await self._hurried.wait()
                    await trio.sleep_until(self._schedule.pause_until_s(trio.current_time()))

    async def _sync_quietly(self, peer: int) -> None:
        try:
            await self.sync(peer)
        except UnavailableError as error:
            self._log.debug("sync_unavailable", peer=peer, why=str(error))
        except PeerError as error:
            self._log.warning("sync_refused", peer=peer, why=str(error))
        finally:
            self._schedule.ended(peer)

    async def sync(self, peer: int) -> None:
        """Ask one peer until it has nothing more for us. Raises UnavailableError, PeerError."""
        heads: Heads = self._journal.claim()
        comparison = Comparison()
        while comparison.standing is Standing.ASKING:
            body = await self._network.request(
                peer,
                SYNC_PROTOCOL,
                encode_sync_request(self._hello(heads)),
                reply_bytes_max=REQUEST_BYTES_MAX,
                timeout_s=REQUEST_TIMEOUT_S,
            )
            reply = decode_sync_reply(body)
            self._hear(peer, reply.hello)
            new = await self._take([peer], reply.envelopes)
            if new:
                self._schedule.brought_news()
            differing = await self._journal.differing(reply.hello.heads)
            lacks = self._lacks(reply.hello.heads)
            comparison.replied(new=new, lacks=lacks, differing=differing)
            heads = {**self._journal.claim(), **differing}
        if comparison.standing is Standing.LEVEL:
            self._listener.peer_synced(peer)
        else:
            self._log.debug("sync_stuck", peer=peer)

    def _lacks(self, theirs: Heads) -> bool:
        """Whether somebody holds records that are missing here; a frozen log is complete as it is."""
        have = wanted(theirs, self._journal.roster, self._journal.forks.slots.keys())
        return bool(gaps(have=have, lacks=self._journal.counts()))

    def _hello(self, heads: Heads | None = None) -> Hello:
        round_, phase = self._listener.standing()
        return Hello(
            heads=self._journal.claim() if heads is None else heads,
            round=round_,
            phase=phase,
            time_ms=self._world.time_ms(),
            roster=self._journal.roster.version,
        )

    def _hear(self, peer: int, hello: Hello) -> None:
        self.heard[peer] = Heard(hello, trio.current_time(), self._world.time_ms())
        if hello.roster > self._journal.roster.version:
            self.roster_unknown([peer])

    # Serving

    async def on_request(self, peer: int, protocol: str, body: bytes) -> bytes:
        """Answer a peer. Raises PeerError when it asks for nonsense."""
        if protocol == SYNC_PROTOCOL:
            return await self._serve_sync(peer, decode_sync_request(body))
        if protocol in self._answers:
            return await self._answers[protocol](peer, body)
        raise PeerError(f"unknown protocol {protocol}")

    async def _serve_sync(self, peer: int, hello: Hello) -> bytes:
        before = self.heard.get(peer)
        self._hear(peer, hello)
        differing = await self._journal.differing(hello.heads, of_asker=True)
        lacks: Counts = {log: head.count - (log in differing) for log, head in hello.heads.items()}
        envelopes = await self._journal.envelopes(lacks)
        is_news = before is None or any(
            before.hello.heads.get(log) != hello.heads[log] for log in differing
        )
        if self._lacks(hello.heads) or (differing and is_news):
            self.compare_soon({peer} if differing else ())
        reply = SyncReply(hello=self._hello(), envelopes=tuple(envelopes))
        return encode_sync_reply(reply)
