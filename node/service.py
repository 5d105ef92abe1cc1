"""One hospital: performs what its round machine wants, and tells it what happened.

Reads like the way of the data: train → encode → digest → sign CONTRIBUTION → append → publish → peers
open and fetch → check → merge → AGGREGATION → agreed → evaluate → METRICS. Everything before `publish`
is on the disk first (law 5), so a node that is killed at any instant starts again from its store.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol, final

import trio

from ledger.charter import Charter
from ledger.errors import PeerError, StoreError, UnavailableError
from ledger.fork import Fork
from ledger.keys import Signer
from ledger.record import (
    Aggregation,
    Body,
    Close,
    CloseReason,
    Codec,
    Contribution,
    Input,
    Kind,
    LeftOut,
    MetricId,
    Metrics,
    MetricValue,
    Open,
    Reason,
    Record,
    Rejection,
    Rule,
    Verified,
)
from ledger.roster_store import load_roster
from ledger.store import Store
from ledger.weights import weights_micro
from node.blobs import BlobStore
from node.causes import cause_of
from node.exchange import Exchange
from node.forks import ForkReporter
from node.janitor import Janitor
from node.journal import Journal
from node.network import (
    CHECKPOINT_PROTOCOL,
    FETCH_PROTOCOL,
    ROSTER_PROTOCOL,
    TASK_STATUS_IGNORED,
    TaskStatus,
)
from node.payload_io import NoRoomError
from node.privacy import published_count
from node.roster_watch import RosterWatch
from node.transfer import Received, Transfer
from node.witness import Signers, Witness
from node.world import World
from swarm.learning.trained import Trained
from swarm.protocol.book import Offer, RoundBook
from swarm.protocol.effects import (
    Effect,
    Evaluate,
    Fetch,
    GiveUp,
    Merge,
    SignClose,
    SignOpen,
    Train,
)
from swarm.protocol.payload import OversizedError
from swarm.protocol.retention import KEEP_ROUNDS, Keep
from swarm.protocol.round import MOMENTS_ROUND, Phase, Place, RoundMachine
from swarm.protocol.stalls import Stalls, Standing
from swarm.protocol.waiting import why_waiting

STALL_LOG_S: Final = 15.0
"""How long a node waits in silence before its log says what for, and again every so often."""
LOOKS_PER_GRACE: Final = 4
LOOK_MIN_S: Final = 0.25
"""How often downloads are looked at, to notice those that do not move."""
NOTHING: Final = bytes(32)
ENDS_OF_ROUNDS: Final = (Kind.METRICS, Kind.FORK_PROOF, Kind.CLOSE)
"""After these a node signs a checkpoint of its log."""


class Learner(Protocol):
    """What a node asks of learning: bytes in, bytes out (swarm/learning/task.py)."""

    @property
    def samples(self) -> int: ...  # noqa: D102
    def initial(self) -> bytes: ...  # noqa: D102
    def local_moments(self) -> bytes: ...  # noqa: D102
    def set_moments(self, merged: bytes) -> None: ...  # noqa: D102
    def merge_moments(self, payloads: Sequence[tuple[bytes, bytes]]) -> bytes: ...  # noqa: D102
    def train(self, base: bytes, round: int) -> Trained: ...  # noqa: A002, D102
    def check(self, payload: bytes, codec: int) -> None: ...  # noqa: D102
    def merge(self, inputs: Sequence[tuple[bytes, bytes, int]]) -> bytes: ...  # noqa: D102
    def evaluate(self, model: bytes) -> tuple[MetricValue, ...]: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True, slots=True)
class Hospital:
    """Who this node is and what it works on."""

    charter: Charter
    own: int
    signer: Signer
    witness: Signer
    learner: Learner
    software_digest: bytes
    data_commitment: bytes
    sync_interval_s: float
    linger_s: float
    keep: Keep = Keep(rounds=KEEP_ROUNDS)  # noqa: RUF009 - frozen
    """Which payloads stay."""
    inbox: Path | None = None
    """Where `roster submit` leaves updates for a node that runs; None: nowhere."""

    @property
    def has_moments(self) -> bool:
        """Whether round zero sums up means and spreads."""
        schema = self.charter.schema
        return schema.standardise == "federated" and bool(schema.features)


@final
class Service:
    """One node's life, from replaying its store to leaving the swarm."""

    def __init__(self, hospital: Hospital, world: World, store: Store, blobs: BlobStore) -> None:
        self._hospital = hospital
        self._world = world
        self._blobs = blobs
        self._log = world.log
        self._learner = hospital.learner
        self._policy = hospital.charter.rounds
        roster = load_roster(store, hospital.charter)
        starting_model = hospital.learner.initial()
        initial = blobs.put(Codec.FLOAT32, starting_model)
        contribution_first = self._policy.newcomers == "contribution_first"
        self.book = RoundBook(roster, contribution_first=contribution_first)
        self.machine = RoundMachine(
            Place(
                own=hospital.own,
                policy=self._policy,
                aggregation=hospital.charter.aggregation,
                has_moments=hospital.has_moments,
                initial=initial,
                linger_s=hospital.linger_s,
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
        self.transfer = Transfer(
            world=world,
            blobs=blobs,
            book=self.book,
            behind=self.fell_behind,
        )
        self.janitor = Janitor(
            world=world,
            blobs=blobs,
            machine=self.machine,
            keep=replace(hospital.keep, staleness_max=self._policy.staleness_max),
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
        self.accuser = ForkReporter(
            self.journal.forks,
            record=lambda body: self._record(Kind.FORK_PROOF, self.machine.round, body),
            may_sign=lambda: self.machine.phase is not Phase.JOIN,
        )
        self.charter = hospital.charter
        self.own = hospital.own
        self.network = world.network
        self.metrics: tuple[MetricValue, ...] = ()
        self._initial = initial
        self._model_bytes = len(starting_model)
        self._moments: bytes | None = None
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
            self._hold(digest, codec, bytes_count)
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
            nursery.start_soon(self._explain_stalls)
            task_status.started()
            await self._rounds()
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

    def standing(self) -> tuple[int, int]:
        """Round and phase, as peers hear it."""
        return self.machine.round, int(self.machine.phase)

    def _learn(self, record: Verified[Record]) -> None:
        self.machine.learn(record)
        body = record.value.body
        if isinstance(body, Metrics) and record.value.author == self._hospital.own:
            self.metrics = body.values

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
                self._reconcile(nursery, wanted.effects)
                wake_s = wanted.wake_s if wanted.wake_s is not None else float("inf")
                with trio.move_on_at(wake_s):
                    await self._changed.wait()
            nursery.cancel_scope.cancel()

    def _reconcile(self, nursery: trio.Nursery, wanted: Sequence[Effect]) -> None:
        """Start what is wanted and not running; stop what runs and is no longer wanted."""
        for effect, scope in list(self._running.items()):
            if effect not in wanted:
                scope.cancel()
        for effect in wanted:
            if effect not in self._running and (isinstance(effect, Fetch) or self._pen_is_free()):
                scope = self._running[effect] = trio.CancelScope()
                nursery.start_soon(self._perform, effect, scope)

    def _pen_is_free(self) -> bool:
        """Whether no other piece of work may still sign.

        One that was cancelled while it writes its record ends first, or a round would get two votes.
        """
        return all(isinstance(effect, Fetch) for effect in self._running)

    async def _perform(self, effect: Effect, scope: trio.CancelScope) -> None:
        try:
            with scope:
                match effect:
                    case SignOpen():
                        await self._open()
                    case Train():
                        await self._contribute(effect)
                    case Fetch():
                        await self._obtain(effect)
                    case Merge():
                        await self._aggregate(effect)
                    case Evaluate():
                        await self._evaluate(effect)
                    case GiveUp():
                        self._give_up(effect)
                    case SignClose(round=round_):
                        body = Close(reason=CloseReason.DONE)
                        await self._record(Kind.CLOSE, round_, body, with_acks=True)
        finally:
            del self._running[effect]
            self._changed.set()

    # The way of the data

    async def _open(self) -> None:
        roster, own = self.journal.roster, self._hospital.own
        body = Open(
            public_key=self._hospital.signer.public_key,
            previous_head=roster.previous_head(own, roster.epoch(own)),
            software_digest=self._hospital.software_digest,
            charter_digest=self._hospital.charter.net,
        )
        await self._record(Kind.OPEN, 0, body)

    async def _contribute(self, effect: Train) -> None:
        """Train (or sum up, in round zero), keep the payload, and commit to it on the ledger."""
        base, steps, norm_micro = NOTHING, 0, 0
        if effect.round == MOMENTS_ROUND:
            codec = Codec.MOMENTS
            payload = await self._world.compute.run(self._learner.local_moments)
        else:
            codec, base = Codec.FLOAT32, effect.base or self._initial
            await self._standardise(effect.moments)
            started_s = trio.current_time()
            trained = await self._world.compute.run(
                self._learner.train, await self._payload(base), effect.round
            )
            payload, steps, norm_micro = trained.payload, trained.steps, trained.norm_micro
            self._log.info(
                "trained",
                round=effect.round,
                steps=steps,
                loss=trained.loss_micro / 1e6,
                seconds=round(trio.current_time() - started_s, 3),
            )
        digest = await self._keep(codec, payload)
        body = Contribution(
            update_digest=digest,
            bytes_count=len(payload),
            codec=codec,
            base_digest=base,
            samples=published_count(self._learner.samples, self._hospital.charter.privacy),
            local_steps=steps,
            norm_micro=norm_micro,
            sketch_digest=NOTHING,
            epsilon_micro=0,
            delta_exponent=0,
            mechanism=0,
            metrics=(),
            data_commitment=self._hospital.data_commitment,
        )
        await self._record(Kind.CONTRIBUTION, effect.round, body, with_acks=True)

    async def _obtain(self, effect: Fetch) -> None:
        """Pull a payload and check it; a contribution that breaks the rules is refused on the ledger."""
        offer = effect.offer
        try:
            if offer:
                self._check_offer(offer)
            async with self.transfer.fetch(
                effect.digest,
                sources=effect.sources,
                payload_bytes_max=offer.bytes_count if offer else self._policy.payload_bytes_max,
                member=offer.author if offer else None,
            ) as received:
                await self._accept(received, offer)
        except (_Refused, OversizedError) as error:
            refusal = error if isinstance(error, _Refused) else _Refused(Reason.TOO_LARGE)
            if offer is None:
                self._log.warning("model_refused", digest=effect.digest.hex()[:16])
                await trio.sleep(STALL_LOG_S)
                return
            self._log.warning(
                "contribution_refused",
                round=offer.round,
                member=self.book.roster.member(offer.author).name,
                reason=refusal.reason.name,
            )
            body = Rejection(target_id=offer.id, reason=refusal.reason)
            await self._record(Kind.REJECTION, self.machine.round, body)

    async def _accept(self, received: Received, offer: Offer | None) -> None:
        """Hold a payload that passes its check. Raises _Refused."""
        try:
            await self._check(received.codec, received.payload, offer)
        except _Refused:
            await self.transfer.refuse(received)
            raise
        await self.transfer.accept(received)
        self._hold(received.digest, received.codec, received.bytes_count)
        self._changed.set()

    def _check_offer(self, offer: Offer) -> None:
        """Raise _Refused where the record alone says that its payload cannot be an input."""
        expected = Codec.MOMENTS if offer.round == MOMENTS_ROUND else Codec.FLOAT32
        privacy = self._hospital.charter.privacy
        if offer.codec != expected or offer.samples != published_count(offer.samples, privacy):
            raise _Refused(Reason.BAD_SHAPE)
        if expected == Codec.FLOAT32 and offer.bytes_count != self._model_bytes:
            larger = offer.bytes_count > self._model_bytes
            raise _Refused(Reason.TOO_LARGE if larger else Reason.BAD_SHAPE)

    async def _check(self, codec: int, payload: bytes, offer: Offer | None) -> None:
        """Raise _Refused unless this payload may be an input."""
        if offer and (codec, len(payload)) != (offer.codec, offer.bytes_count):
            raise _Refused(Reason.BAD_SHAPE)
        try:
            await self._world.compute.run(self._learner.check, payload, codec)
        except PeerError as error:
            raise _Refused(Reason(getattr(error, "reason", Reason.BAD_SHAPE))) from error

    async def _aggregate(self, effect: Merge) -> None:
        """Merge the chosen contributions in their fixed order and publish what came out."""
        offers = sorted(effect.offers, key=lambda offer: (offer.author, offer.epoch, offer.seq))
        payloads = [(offer.digest, await self._payload(offer.digest)) for offer in offers]
        if effect.round == MOMENTS_ROUND:
            rule, codec, weights = Rule.MOMENTS, Codec.MOMENTS, [0] * len(offers)
            merged = await self._world.compute.run(self._learner.merge_moments, payloads)
        else:
            rule, codec = Rule.MEAN, Codec.FLOAT32
            weights = weights_micro(
                [offer.samples for offer in offers],
                self._hospital.charter.aggregation,
                staleness_rounds=[effect.round - offer.round for offer in offers],
            )
            inputs = [(*pair, weight) for pair, weight in zip(payloads, weights, strict=True)]
            merged = await self._world.compute.run(self._learner.merge, inputs)
        result = await self._keep(codec, merged)
        body = Aggregation(
            rule=rule,
            parameters=(effect.attempt,) if effect.attempt else (),
            inputs=tuple(
                Input(author=o.author, epoch=o.epoch, seq=o.seq, id=o.id, weight_micro=weight)
                for o, weight in zip(offers, weights, strict=True)
            ),
            left_out=tuple(LeftOut(author=a, reason=reason) for a, reason in effect.left_out),
            result_digest=result,
        )
        await self._record(Kind.AGGREGATION, effect.round, body)

    async def _evaluate(self, effect: Evaluate) -> None:
        """Measure the round's model on this hospital's own validation patients."""
        await self._standardise(effect.moments)
        values = await self._world.compute.run(
            self._learner.evaluate, await self._payload(effect.model)
        )
        privacy = self._hospital.charter.privacy
        body = Metrics(
            round=effect.round,
            model_digest=effect.model,
            values=tuple(
                MetricValue(
                    metric=value.metric,
                    micro=value.micro,
                    low_micro=value.low_micro,
                    high_micro=value.high_micro,
                    count=published_count(value.count, privacy),
                )
                for value in values
            ),
        )
        await self._record(Kind.METRICS, effect.round, body)
        agreed = self.book.agreed(effect.round)
        self._log.info(
            "round_closed",
            round=effect.round,
            agreed=agreed is not None,
            merged=len(agreed.proposal.inputs) if agreed else 0,
            **{MetricId(v.metric).name.lower(): v.micro / 1e6 for v in values},
        )

    def _give_up(self, effect: GiveUp) -> None:
        """The charter calls members required, and they do not come: fail, loudly."""
        self._log.warning("required_member_missing", round=effect.round, members=effect.missing)
        self.failed(
            UnavailableError(
                f"round {effect.round} cannot close without {', '.join(effect.missing)}, whom the "
                f"charter requires (rounds.required): nothing came in {self._policy.deadline_max_s:g} s"
            )
        )

    # Small steps

    async def _record(
        self, kind: Kind, round_: int, body: Body, *, with_acks: bool = False
    ) -> None:
        """Sign, append (on the disk), learn, publish: all of it, or nothing of what is not wanted any more."""
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.CancelScope(shield=True):
            record = await self.journal.append(kind, round_, body, with_acks=with_acks)
            self._learn(record)
            self._changed.set()
            if kind in ENDS_OF_ROUNDS:
                self.witness.publish()
            with trio.move_on_after(self._policy.grace_s):
                await self.exchange.publish(record)

    async def _keep(self, codec: int, payload: bytes) -> bytes:
        try:
            digest = await self._world.disk.run(self._blobs.put, codec, payload)
        except NoRoomError:
            await self.janitor.tidy()
            digest = await self._world.disk.run(self._blobs.put, codec, payload)
        self._hold(digest, codec, len(payload))
        self._changed.set()
        return digest

    def _hold(self, digest: bytes, codec: int, bytes_count: int) -> None:
        self.machine.hold(digest, codec=codec, bytes_count=bytes_count)

    async def _payload(self, digest: bytes) -> bytes:
        payload = await self._world.disk.run(self._blobs.get, digest)
        if payload is None:
            raise StoreError(f"payload {digest.hex()[:16]} was stored and is gone or damaged")
        return payload

    async def _standardise(self, moments: bytes | None) -> None:
        if moments is not None and moments != self._moments:
            await self._world.compute.run(self._learner.set_moments, await self._payload(moments))
            self._moments = moments

    def waiting_for(self) -> str:
        """What keeps this node from going on, in words."""
        return why_waiting(self.machine, connected=len(self.network.connected()))

    def _tell_phase(self) -> None:
        phase = self.machine.phase
        self.accuser.wake()
        self.janitor.soon()
        self._log.info("phase", round=self.machine.round, phase=phase.name.lower())

    async def _watch_downloads(self) -> None:
        """Tell the machine which payloads nobody serves, so that it does not wait for them."""
        stalls = Stalls(grace_s=self._policy.grace_s)
        while True:
            await trio.sleep(max(self._policy.grace_s / LOOKS_PER_GRACE, LOOK_MIN_S))
            under_way = {
                one.digest: Standing(one.bytes_held, one.bytes_count is not None)
                for one in self.transfer.progress()
            }
            if self.machine.stalled(stalls.look(under_way, now_s=trio.current_time())):
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


class _Refused(Exception):  # noqa: N818 - control flow inside this module
    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.name)
        self.reason = reason
