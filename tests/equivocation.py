"""A member that signs two records for one slot and shows one to some and one to others.

It is the honest service with its own keys; only what leaves and enters is not what the service meant.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path

import trio

from ledger.charter import Charter, load_charter
from ledger.errors import VerificationError
from ledger.keys import Signer
from ledger.record import (
    Aggregation,
    Contribution,
    ForkProof,
    Kind,
    Metrics,
    MetricValue,
    Record,
    Verified,
    open_record,
    parse_envelope,
    sign_record,
)
from ledger.roster import Roster
from ledger.store import Store
from node.blobs import BlobStore
from node.compute import Compute
from node.network import TASK_STATUS_IGNORED, EventLog, Handlers, Network, TaskStatus
from node.network_memory import Gossip, MemoryHub, MemoryNetwork
from node.service import Service
from scenarios.simulation.learner import COLUMNS, TinyLearner
from scenarios.simulation.swarm import Calm, SimulatedSite, identity_of
from swarm.protocol.messages import (
    Head,
    SyncReply,
    decode_gossip,
    decode_sync_reply,
    encode_gossip,
    encode_sync_reply,
)
from tests.simulated import member_toml

LIAR = 3


def twin_of(record: Verified[Record], signer: Signer) -> Verified[Record]:
    """Another record for the same slot, as plausible as the first."""
    body = record.value.body
    if isinstance(body, Contribution):
        body = replace(body, samples=body.samples + 1)
    elif isinstance(body, Aggregation):
        body = replace(body, result_digest=bytes(32))
    elif isinstance(body, Metrics):
        lie = MetricValue(metric=1, micro=999_999, low_micro=1, high_micro=1_000_000, count=1)
        body = replace(body, values=(lie,))
    return sign_record(replace(record.value, body=body), signer)


class TwoFaced:
    """The liar's network: from its twin on, ``fooled`` see another log than everybody else."""

    def __init__(
        self,
        inner: MemoryNetwork,
        roster: Roster,
        signer: Signer,
        *,
        is_forked: Callable[[Record], bool],
        fooled: Iterable[int],
        silent_afterwards: bool = False,
    ) -> None:
        self.inner = inner
        self.twin: Verified[Record] | None = None
        self._roster = roster
        self._signer = signer
        self._is_forked = is_forked
        self._fooled = frozenset(fooled)
        self._silent = silent_afterwards

    def opened(self, envelope: bytes) -> Verified[Record]:
        return open_record(parse_envelope(envelope), roster=self._roster)

    async def run(
        self, handlers: Handlers, *, task_status: TaskStatus = TASK_STATUS_IGNORED
    ) -> None:
        await self.inner.run(_Filter(self, handlers), task_status=task_status)

    async def broadcast(self, message: bytes) -> None:
        await trio.lowlevel.checkpoint()
        (envelope,) = decode_gossip(message)
        record = self.opened(envelope)
        if self.twin is None and self._is_forked(record.value):
            self.twin = twin_of(record, self._signer)
        for peer in sorted(self.inner.connected()):
            shown = self.shown(envelope, record.value, peer)
            if shown is not None:
                told = encode_gossip([shown])
                self.inner._send(peer, Gossip(LIAR, told), len(told))

    def shown(self, envelope: bytes, record: Record, peer: int) -> bytes | None:
        if record.author != LIAR or self.twin is None or peer not in self._fooled:
            return envelope
        if record.seq == self.twin.value.seq:
            return self.twin.signed.envelope()
        return envelope if record.seq < self.twin.value.seq else None

    async def request(
        self, peer: int, protocol: str, body: bytes, *, reply_bytes_max: int, timeout_s: float
    ) -> bytes:
        reply = await self.inner.request(
            peer, protocol, body, reply_bytes_max=reply_bytes_max, timeout_s=timeout_s
        )
        if "sync" in protocol:
            told = decode_sync_reply(reply)
            envelopes = tuple(filter(self.is_welcome, told.envelopes))
            return encode_sync_reply(SyncReply(hello=told.hello, envelopes=envelopes))
        return reply

    def is_welcome(self, envelope: bytes) -> bool:
        """The liar does not want to hear what it has done."""
        if self.twin is None:
            return True
        if self._silent:
            return False
        try:
            record = self.opened(envelope).value
        except VerificationError:
            return True
        return record.author != LIAR and not isinstance(record.body, ForkProof)

    def lie(self, peer: int, reply: bytes) -> bytes:
        if self.twin is None or peer not in self._fooled:
            return reply
        told = decode_sync_reply(reply)
        shown = (
            self.shown(envelope, self.opened(envelope).value, peer) for envelope in told.envelopes
        )
        heads = dict(told.hello.heads)
        log = (LIAR, self.twin.value.epoch)
        if log in heads:
            heads[log] = Head(self.twin.value.seq + 1, self.twin.id)
        return encode_sync_reply(
            SyncReply(
                hello=replace(told.hello, heads=heads),
                envelopes=tuple(one for one in shown if one is not None),
            )
        )

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)


class _Filter:
    def __init__(self, network: TwoFaced, handlers: Handlers) -> None:
        self._network = network
        self._handlers = handlers

    async def on_gossip(self, peer: int, message: bytes) -> None:
        if all(map(self._network.is_welcome, decode_gossip(message))):
            await self._handlers.on_gossip(peer, message)

    async def on_request(self, peer: int, protocol: str, body: bytes) -> bytes:
        reply = await self._handlers.on_request(peer, protocol, body)
        return self._network.lie(peer, reply) if "sync" in protocol else reply


class WithLiar:
    """A calm world in which member 3's network is two-faced, in its first life."""

    def __init__(
        self,
        hub: MemoryHub,
        directory: Path,
        charter: Charter,
        signer: Signer,
        *,
        is_forked: Callable[[Record], bool],
        fooled: Iterable[int] = (1, 2),
        silent_afterwards: bool = False,
    ) -> None:
        self._calm = Calm(hub, directory)
        self._hub = hub
        self.liar: TwoFaced | None = None
        self._made = lambda inner: TwoFaced(
            inner,
            Roster.from_charter(charter),
            signer,
            is_forked=is_forked,
            fooled=fooled,
            silent_afterwards=silent_afterwards,
        )

    def inbox(self, index: int) -> Path | None:
        return self._calm.inbox(index)

    def files(self, index: int) -> AbstractContextManager[tuple[Store, BlobStore]]:
        return self._calm.files(index)

    def network(self, index: int) -> Network:
        network = self._hub.network(index)
        if index == LIAR and self.liar is None:
            self.liar = self._made(network)
            return self.liar  # type: ignore[return-value]
        return network

    def compute(self, index: int) -> Compute:
        return self._calm.compute(index)

    def disk(self, index: int) -> Compute:
        return self._calm.disk(index)

    def time_ms(self, index: int) -> int:
        return self._calm.time_ms(index)

    def log(self, index: int) -> EventLog:
        return self._calm.log(index)

    def started(self, index: int, service: Service) -> None:
        if index == LIAR and service.journal.roster.version == 0:
            service.journal.forks.refuse_own = lambda: None  # type: ignore[method-assign]

    def ended(self, index: int, error: BaseException) -> bool:
        del error
        return index == LIAR and self.liar is not None and self.liar.twin is not None


def in_round(kind: Kind, round_: int) -> Callable[[Record], bool]:
    return lambda record: record.author == LIAR and record.kind == kind and record.round == round_


def tiny_swarm(rounds: int, seed: int = 5) -> tuple[Charter, list[SimulatedSite]]:
    """Four members that learn without torch."""
    identities = [identity_of(seed, index) for index in range(4)]
    features = "".join(f'[[data.features]]\nname = "{name}"\ntype = "number"\n' for name in COLUMNS)
    members = (member_toml(f"member-{index}", one) for index, one in enumerate(identities))
    charter = load_charter(
        (
            f'version = 1\nfederation = "forked"\nseed = {seed}\n[model]\nname = "logistic"\n'
            '[data]\nlabel = "ill"\nhead = "binary"\nclasses = ["0", "1"]\n'
            f'standardise = "federated"\n{features}[rounds]\nrounds = {rounds}\nmembers_min = 2\n'
            "deadline_min_s = 5.0\ndeadline_max_s = 60.0\ngrace_s = 3.0\nstart_wait_s = 30.0\n"
            + "".join(members)
        ).encode()
    )
    return charter, [
        SimulatedSite(
            identity=one,
            learner=partial(TinyLearner, 1_000 + index, rows=20 + 9 * index, charter=charter),
        )
        for index, one in enumerate(identities)
    ]
