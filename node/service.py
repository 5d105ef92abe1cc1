"""One hospital: performs what its round machine wants, and tells it what happened.

The work itself is in node/effects, and is the way of the data: train → encode → digest → sign CONTRIBUTION → append → publish → peers
open and fetch → check → merge → AGGREGATION → agreed → evaluate → METRICS. Everything before `publish`
is on the disk first (law 5), so a node that is killed at any instant starts again from its store.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, final

import trio

from ledger.fork import Fork
from ledger.insight import Insight
from ledger.record import Body, Codec, GroupValue, Kind, Metrics, MetricValue, Record, Verified
from ledger.roster_store import load_roster
from ledger.store import Store
from ledger.weighing import Weighing
from node.blobs import BlobStore
from node.causes import cause_of
from node.effects.desk import Desk
from node.effects.perform import perform
from node.exchange import Exchange
from node.farewell import see_off
from node.forks import ForkReporter
from node.hospital import Hospital, Learner
from node.janitor import Janitor
from node.journal import Journal
from node.judging import JudgingPen
from node.network import (
    CHECKPOINT_PROTOCOL,
    FETCH_PROTOCOL,
    ROSTER_PROTOCOL,
    TASK_STATUS_IGNORED,
    TaskStatus,
)
from node.overview import Overview
from node.own_memory import OwnMemory
from node.roster_watch import RosterWatch
from node.transfer import Transfer
from node.witness import Signers, Witness
from node.world import World
from swarm.protocol.access import Access
from swarm.protocol.book import RoundBook
from swarm.protocol.effects import Beside, Effect, Fetch
from swarm.protocol.round import Phase, Place, RoundMachine
from swarm.protocol.scoring import Scoring
from swarm.protocol.stalls import Stalls, Standing
from swarm.protocol.waiting import why_waiting

__all__ = ["Hospital", "Learner", "Service"]

STALL_LOG_S: Final = 15.0
"""How long a node waits in silence before its log says what for, and again every so often."""
MEMORY: Final = "memory"
"""Folder, beside the payloads, of what this site remembers from one training to the next."""
LOOKS_PER_GRACE: Final = 4
LOOK_MIN_S: Final = 0.25
"""How often downloads are looked at, to notice those that do not move."""


@final
class Service:
    """One node's life, from replaying its store to leaving the swarm."""

    def __init__(self, hospital: Hospital, world: World, store: Store, blobs: BlobStore) -> None:
        self._hospital = hospital
        self._world = world
        self._blobs = blobs
        self._log = world.log
        self._policy = hospital.charter.rounds
        roster = load_roster(store, hospital.charter)
        initial = blobs.put(Codec.FLOAT32, hospital.learner.initial())
        contribution_first = self._policy.newcomers == "contribution_first"
        topology = hospital.charter.topology
        is_buffered = hospital.charter.aggregation.is_buffered
        self.book = RoundBook(
            roster,
            contribution_first=contribution_first,
            is_gossip=topology is not None,
            commit_lag=self._policy.staleness_max if is_buffered else 0,
        )
        self.machine = RoundMachine(
            Place(
                own=hospital.own,
                policy=self._policy,
                aggregation=hospital.charter.aggregation,
                has_moments=hospital.has_moments,
                initial=initial,
                linger_s=hospital.linger_s,
                leaves=hospital.leaves,
                topology=topology,
                stopping=hospital.charter.stopping,
            ),
            self.book,
            now_s=trio.current_time(),
        )
        self.journal = Journal(
            store=store,
            roster=roster,
            own=hospital.own,
            signer=hospital.signer,
            disk=world.disk,
            time_ms=world.time_ms,
            rounds=self._policy.rounds,
        )
        self.witness = Witness(
            world=world,
            store=store,
            journal=self.journal,
            book=self.book,
            own=hospital.own,
            signers=Signers(hospital.signer, hospital.witness),
            failed=self.failed,
        )
        self.rosters = RosterWatch(
            world=world, journal=self.journal, inbox=hospital.inbox, changed=self.failed
        )
        self.access = Access(
            self.book, floor=hospital.charter.reputation.access_floor, own=hospital.own
        )
        self.transfer = Transfer(
            world=world,
            blobs=blobs,
            book=self.book,
            behind=self.fell_behind,
            own=hospital.own,
            withholds=self.access.withholds,
        )
        own_log = self.journal.heads().get((hospital.own, roster.epoch(hospital.own)))
        self.judging = JudgingPen(
            store,
            roster,
            hospital.own,
            closed=own_log.round if own_log else 0,
            secret=world.secret,
            write=self._write,
        )
        self.scoring = Scoring(
            self.book,
            hospital.charter.reputation,
            own=hospital.own,
            grace_s=self._policy.grace_s,
            has=self.machine.has,
            holds=lambda digest: digest in blobs.stored(),
        )
        self.weighing = Weighing(hospital.charter.reputation, roster)
        self.overview = Overview(world, hospital.charter, roster, store.path, looked=self._looked)
        self.janitor = Janitor(
            world=world,
            blobs=blobs,
            machine=self.machine,
            keep=replace(
                hospital.keep,
                staleness_max=self._policy.staleness_max,
                judged=self.scoring.rounds_kept,
            ),
            own=hospital.own,
            pinned=frozenset({initial}),
            in_use=self.transfer.active,
        )
        self.transfer.tidy = self.janitor.tidy
        self.exchange = Exchange(
            world=world,
            journal=self.journal,
            book=self.book,
            listener=self,
            answers={
                FETCH_PROTOCOL: self.transfer.on_request,
                CHECKPOINT_PROTOCOL: self.witness.on_request,
                ROSTER_PROTOCOL: self.rosters.on_request,
            },
        )
        self.exchange.roster_unknown = self.rosters.ask_soon
        self.desk = Desk(
            hospital=hospital,
            world=world,
            machine=self.machine,
            journal=self.journal,
            blobs=blobs,
            transfer=self.transfer,
            exchange=self.exchange,
            janitor=self.janitor,
            witness=self.witness,
            memory=OwnMemory(blobs.directory / MEMORY, charter_digest=hospital.charter.net),
            judging=self.judging,
            weighing=self.weighing,
            learn=self._learn,
            changed=self.look_again,
            failed=self.failed,
        )
        self.accuser = ForkReporter(
            self.journal.forks,
            record=lambda body: self.desk.record(Kind.FORK_PROOF, self.machine.round, body),
            may_sign=self._may_sign,
        )
        self.charter = hospital.charter
        self.own = hospital.own
        self.network = world.network
        self.metrics: tuple[MetricValue, ...] = ()
        self.groups: tuple[GroupValue, ...] = ()
        self._running: dict[Effect, trio.CancelScope] = {}
        self._changed = trio.Event()
        self._failure: Exception | None = None

    async def run(self, *, task_status: TaskStatus = TASK_STATUS_IGNORED) -> None:
        """Take part until the charter's rounds are done; cancel to stop earlier, nothing is lost.

        Raises ConfigError (also when a restored backup would fork this site's log) and StoreError.
        """
        for record in self.journal.replay():
            self._learn(record)
            self.witness.replayed(record)
        self.forks_found(self.journal.forks.take_news())
        self.janitor.start()
        for digest, (codec, bytes_count) in self._blobs.stored().items():
            self.desk.hold(digest, codec, bytes_count)
        self._log.info("started", records=sum(self.journal.counts().values()))
        try:
            await self._take_part(task_status)
        except BaseExceptionGroup as group:
            raise cause_of(group) from group
        self._log.info("finished", round=self.machine.round, model=self.machine.model.hex()[:16])

    async def _take_part(self, task_status: TaskStatus) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self._serve)
            nursery.start_soon(self.exchange.sync_forever, self._hospital.sync_interval_s)
            nursery.start_soon(self.witness.run, self._hospital.sync_interval_s)
            nursery.start_soon(self.rosters.run, self._hospital.sync_interval_s)
            nursery.start_soon(self.accuser.run)
            nursery.start_soon(self.janitor.run)
            nursery.start_soon(self.transfer.log_forever)
            nursery.start_soon(self._watch_downloads)
            nursery.start_soon(self.overview.run)
            nursery.start_soon(self._explain_stalls)
            task_status.started()
            await self._rounds()
            await see_off(self.exchange, self._world, self.book, own=self.own)
            await self.witness.settle()
            nursery.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    async def _serve(self, *, task_status: Any) -> None:
        await self.network.run(self.exchange, task_status=task_status)

    # What the exchange tells us

    def records_stored(self, records: Sequence[Verified[Record]]) -> None:
        """New records of other members are on the disk."""
        for record in records:
            self._learn(record)
        self._changed.set()

    def forks_found(self, forks: Sequence[Fork]) -> None:
        """Logs are frozen from now on: their authors are not waited for until they are rotated."""
        for fork in forks:
            self.book.freeze(fork.author, fork.epoch, fork.seq)
            self._log.warning(
                "fork_found",
                member=self.book.roster.member(fork.author).name,
                epoch=fork.epoch,
                seq=fork.seq,
                ids=[one.hex()[:16] for one in fork.ids],
            )
        self.accuser.wake()
        self._changed.set()

    def peer_synced(self, peer: int) -> None:
        """Nothing that ``peer`` has is missing here."""
        self.machine.synced(peer)
        self._changed.set()

    def failed(self, error: Exception) -> None:
        """Something that no node goes on with: the disk, or a second copy of this site."""
        self._failure = error
        self._changed.set()

    def fell_behind(self) -> None:
        """A peer asks for what its records here do not entitle it to: perhaps some are missing."""
        self.exchange.compare_soon()

    def look_again(self) -> None:
        """Something has changed: perhaps other work is wanted now."""
        self._changed.set()

    def standing(self) -> tuple[int, int]:
        """Round and phase, as peers hear it."""
        return self.machine.round, int(self.machine.phase)

    def _learn(self, record: Verified[Record]) -> None:
        self.machine.learn(record)
        self.scoring.learn(record)
        self.judging.learn(record)
        self.weighing.learn(record.value, record.id)
        if record.value.kind in (Kind.EVALUATION_REVEAL, Kind.SKETCH, Kind.FORK_PROOF):
            self.overview.changed()
        body = record.value.body
        if isinstance(body, Metrics) and record.value.author == self._hospital.own:
            self.metrics, self.groups = body.values, body.groups

    async def _write(
        self, kind: Kind, round_: int, body: Body, *, state: Mapping[str, bytes] | None = None
    ) -> Verified[Record]:
        return await self.desk.write(kind, round_, body, state=state)

    def _looked(self, insight: Insight) -> None:
        self.access.update(insight.reputation.state.values_micro())

    # The loop

    async def _rounds(self) -> None:
        """Do what is wanted until the machine is done."""
        async with trio.open_nursery() as nursery:
            while True:
                if self._failure is not None:
                    raise self._failure
                self._changed = trio.Event()
                before = (self.machine.round, self.machine.phase)
                wanted = self.machine.advance(now_s=trio.current_time())
                if (self.machine.round, self.machine.phase) != before:
                    self._tell_phase()
                if self.machine.phase is Phase.DONE:
                    break
                beside, look_s = (
                    self.scoring.advance(now_s=trio.current_time())
                    if self._may_sign()
                    else ((), None)
                )
                self._reconcile(nursery, (*wanted.effects, *beside))
                wake_s = min(
                    one for one in (wanted.wake_s, look_s, float("inf")) if one is not None
                )
                with trio.move_on_at(wake_s):
                    await self._changed.wait()
            nursery.cancel_scope.cancel()

    def _reconcile(self, nursery: trio.Nursery, wanted: Sequence[Effect]) -> None:
        """Start what is wanted and not running; stop what runs and is no longer wanted."""
        for effect, scope in list(self._running.items()):
            if effect not in wanted:
                scope.cancel()
        for effect in wanted:
            if effect not in self._running and (
                isinstance(effect, Fetch | Beside) or self._pen_is_free()
            ):
                scope = self._running[effect] = trio.CancelScope()
                nursery.start_soon(self._perform, effect, scope)

    def _may_sign(self) -> bool:
        """Not before others have said how far the own log has come, and it has its OPEN."""
        return self.machine.phase is not Phase.JOIN

    def _pen_is_free(self) -> bool:
        """Whether no other piece of work may still sign.

        One that was cancelled while it writes its record ends first, or a round would get two votes.
        """
        return all(isinstance(effect, Fetch | Beside) for effect in self._running)

    async def _perform(self, effect: Effect, scope: trio.CancelScope) -> None:
        try:
            with scope:
                await perform(self.desk, effect)
                if isinstance(effect, Beside):
                    self.scoring.done(effect)
        finally:
            del self._running[effect]
            self._changed.set()

    def waiting_for(self) -> str:
        """What keeps this node from going on, in words."""
        why = why_waiting(self.machine, connected=self.network.connected())
        return f"{why}; {self.transfer.no_room}" if why and self.transfer.no_room else why

    def _tell_phase(self) -> None:
        phase = self.machine.phase
        self.accuser.wake()
        self.janitor.soon()
        self._log.info("phase", round=self.machine.round, phase=phase.name.lower())

    async def _watch_downloads(self) -> None:
        """Tell the machine which payloads nobody serves, so that it does not wait for them."""
        stalls = Stalls()
        while True:
            await trio.sleep(max(self._policy.grace_s / LOOKS_PER_GRACE, LOOK_MIN_S))
            under_way = {
                one.digest: Standing(one.bytes_held, one.bytes_count is not None)
                for one in self.transfer.progress()
            }
            now_s, grace_s = trio.current_time(), self.machine.grace_s
            if self.machine.stalled(stalls.look(under_way, now_s=now_s, grace_s=grace_s)):
                self._changed.set()

    async def _explain_stalls(self) -> None:
        """Say in the log what a long wait is for."""
        before: tuple[int, Phase] | None = None
        while True:
            await trio.sleep(STALL_LOG_S)
            now = (self.machine.round, self.machine.phase)
            why = self.waiting_for()
            if now == before and why:
                self._log.info(
                    "waiting", round=now[0], phase=now[1].name.lower(), why=why,
                    connected=len(self.network.connected()),
                )  # fmt: skip
            before = now
