"""The desk that all work is done at: what every effect reads, and the few steps that all of them take.

Room: node. Law 5: whatever is published is on the disk first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, final

import trio

from ledger.errors import StoreError
from ledger.record import Body, Codec, Kind, Record, Rejection, Verified
from ledger.weighing import Weighing
from node.blobs import BlobStore
from node.exchange import Exchange
from node.hospital import Hospital
from node.janitor import Janitor
from node.journal import Journal
from node.judging import JudgingPen
from node.own_memory import OwnMemory
from node.payload_io import NoRoomError
from node.round_share import ROUND_RECORDS, ROUND_RECORDS_MEMBER
from node.transfer import Transfer
from node.witness import Witness
from node.world import World
from swarm.learning.training_state import NO_MEMORY, Arrays
from swarm.protocol.book import Offer, RoundBook
from swarm.protocol.round import RoundMachine

NOT_WRITTEN_WAIT_S: Final = 5.0
"""Before something is looked at again that could not be refused on the ledger."""
ANCHORED_AT_ONCE: Final = (Kind.FORK_PROOF, Kind.CLOSE)
"""After these a node signs a checkpoint of its log, in whichever round; after METRICS when it is its turn."""


@final
@dataclass(kw_only=True, eq=False)
class Desk:
    """One node's tools and its pen."""

    hospital: Hospital
    world: World
    machine: RoundMachine
    journal: Journal
    blobs: BlobStore
    transfer: Transfer
    exchange: Exchange
    janitor: Janitor
    witness: Witness
    memory: OwnMemory
    judging: JudgingPen
    weighing: Weighing
    learn: Callable[[Verified[Record]], None]
    """Take in an own record that is stored."""
    changed: Callable[[], None]
    """Look again at what is wanted."""
    failed: Callable[[Exception], None]
    """End the node."""
    _moments: bytes | None = None

    @property
    def book(self) -> RoundBook:
        """What the ledger says about rounds."""
        return self.machine.book

    @property
    def own(self) -> int:
        """This member's number."""
        return self.hospital.own

    async def record(self, kind: Kind, round_: int, body: Body, *, acks_max: int = 0) -> None:
        """Sign, append (on the disk), learn, publish: all of it, or nothing of what is not wanted any more."""
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.CancelScope(shield=True):
            await self.judging.before(round_)
            await self.write(kind, round_, body, acks_max=acks_max)

    async def reject(self, body: Rejection, round_: int) -> None:
        """Refuse a record, while the own log has room: beyond its share of a round others end it."""
        members = len(self.book.roster.members)
        if self.journal.round_records < ROUND_RECORDS // 2 + ROUND_RECORDS_MEMBER * members:
            await self.record(Kind.REJECTION, round_, body)
        else:
            self.world.log.warning(
                "rejection_not_written", why="the round's share of the own log is used up"
            )
            await trio.sleep(NOT_WRITTEN_WAIT_S)  # what is not refused is looked at again

    async def write(
        self,
        kind: Kind,
        round_: int,
        body: Body,
        *,
        acks_max: int = 0,
        state: Mapping[str, bytes] | None = None,
    ) -> Verified[Record]:
        """Do it, whatever is still to be opened (node/judging.py)."""
        with trio.CancelScope(shield=True):
            record = await self.journal.append(kind, round_, body, acks_max=acks_max, state=state)
            self.learn(record)
            self.changed()
            if kind in ANCHORED_AT_ONCE:
                self.witness.publish()
            elif kind is Kind.METRICS:
                self.witness.round_ended(round_)
            with trio.move_on_after(self.hospital.charter.rounds.grace_s):
                await self.exchange.publish(record)
            return record

    async def keep(self, codec: Codec, payload: bytes) -> bytes:
        """Store an own payload and return its digest. Raises StoreError."""
        try:
            digest = await self.world.disk.run(self.blobs.put, codec, payload)
        except NoRoomError:
            await self.janitor.tidy()
            digest = await self.world.disk.run(self.blobs.put, codec, payload)
        self.hold(digest, codec, len(payload))
        self.changed()
        return digest

    def hold(self, digest: bytes, codec: int, bytes_count: int) -> None:
        """Tell the machine about a payload that is stored and checked."""
        self.machine.hold(digest, codec=codec, bytes_count=bytes_count)

    async def payload(self, digest: bytes) -> bytes:
        """Read a payload that is held. Raises StoreError when it is not there after all."""
        payload = await self.world.disk.run(self.blobs.get, digest)
        if payload is None:
            raise StoreError(f"payload {digest.hex()[:16]} was stored and is gone or damaged")
        return payload

    @property
    def last_offer(self) -> Offer | None:
        """The own newest contribution on the ledger."""
        round_ = self.book.last_offer_round(self.own)
        return self.book.offers(round_).get(self.own)

    async def remembered(self) -> Arrays:
        """Return what the last own training left for the next. Raises StoreError."""
        last = self.last_offer
        if last is None:
            return NO_MEMORY
        return await self.world.disk.run(self.memory.load, last.round, last.digest)

    async def standardise(self, moments: bytes | None) -> None:
        """Let the learner use the agreed means and spreads."""
        if moments is not None and moments != self._moments:
            learner = self.hospital.learner
            await self.world.compute.run(learner.set_moments, await self.payload(moments))
            self._moments = moments
