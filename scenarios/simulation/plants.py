"""Bugs on purpose: each makes one promise of the node false, so that the checkers can show they see it.

Room: scenarios. Test-only (`swarm-scenario simulate --plant NAME`): nothing here is imported by a node,
and every change is undone when the run ends, before anything is judged. docs/simulator.md §7.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final

import trio

import ledger.electorate
import ledger.keys
import ledger.record
import ledger.store
import node.exchange
import node.intake
import node.journal
import node.partial
from ledger.chain import LogHead, compose, head_of_signed
from ledger.errors import ConfigError, VerificationError
from ledger.record import (
    Aggregation,
    Codec,
    Kind,
    Reason,
    Record,
    RosterKeys,
    SignedRecord,
    Verified,
    decode_record,
)
from ledger.store import Store
from ledger.weights import weights_micro
from node.blobs import BlobStore
from node.effects import merging, obtaining
from node.effects.desk import Desk
from node.janitor import Janitor
from node.journal import Journal
from node.round_share import RoundShares
from scenarios.simulation.faults import Kill, Rotation
from scenarios.simulation.plan import Plan
from swarm.protocol.book import RoundBook
from swarm.protocol.deadline import AdaptiveDeadline
from swarm.protocol.effects import Merge
from swarm.protocol.messages import encode_gossip
from swarm.protocol.scoring import Scoring

Patch = tuple[Any, str, Any]
State = Mapping[str, bytes]
"""(module or class, name, what stands there instead)"""


@dataclass(frozen=True, slots=True)
class Plant:
    """One bug."""

    about: str
    patches: Callable[[], Sequence[Patch]]
    shows_in: Callable[[Plan], bool] = lambda _plan: True
    """Plans in which somebody could notice."""


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Let every simulated node have a bug for a while; "" plants none. Raises ConfigError."""
    if name and name not in PLANTS:
        raise ConfigError(f"--plant {name}: unknown; `--plant list` names them")
    with _patched(PLANTS[name].patches() if name else ()):
        yield


@contextmanager
def _patched(patches: Sequence[Patch]) -> Iterator[None]:
    with ExitStack() as stack:
        for target, attribute, value in patches:
            stack.callback(setattr, target, attribute, getattr(target, attribute))
            setattr(target, attribute, value)
        yield


# Durability


class _LateStore:
    """Writes others' records only when the next ones come."""

    def __init__(self, store: Store, own: int) -> None:
        self._store = store
        self._own = own
        self._waiting: list[Verified[Record]] = []

    def append(
        self, records: Sequence[Verified[Record]], **state: Any
    ) -> Sequence[Verified[Record]]:
        mine = [one for one in records if one.value.author == self._own]
        if len(mine) < len(records):
            self._flush()
            self._waiting = [one for one in records if one.value.author != self._own]
        return self._store.append(mine, **state) if mine else list(records)

    def records(self, author: int | None = None, **where: Any) -> Iterator[SignedRecord]:
        if author is None:
            self._flush()
            return self._store.records(**where)
        log, from_seq = (author, where.get("epoch", 0)), where.get("from_seq", 0)
        waiting = [
            one.signed
            for one in self._waiting
            if (one.value.author, one.value.epoch) == log and one.value.seq >= from_seq
        ]
        return islice([*self._store.records(author, **where), *waiting], where.get("limit"))

    def _flush(self) -> None:
        if self._waiting:
            self._store.append(self._waiting)
            self._waiting = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def _ack_before_persist() -> Sequence[Patch]:
    init = Journal.__init__

    def late(self: Journal, **what: Any) -> None:
        init(self, **what)
        late_store: Any = _LateStore(self._store, what["own"])
        self._store = self.intake._store = late_store  # noqa: SLF001

    return [(Journal, "__init__", late)]


def _publish_before_persist() -> Sequence[Patch]:
    store_own, record = Journal._store_own, Desk.record  # noqa: SLF001
    unsaved: dict[int, list[tuple[Verified[Record], LogHead, State]]] = {}

    def later(self: Journal, signed: Verified[Record], after: LogHead, state: State) -> None:
        unsaved.setdefault(id(self), []).append((signed, after, state))

    async def publish_first(self: Desk, *what: Any, **more: Any) -> None:
        await record(self, *what, **more)
        with trio.CancelScope(shield=True):
            await trio.sleep(0.2)
            for late in unsaved.pop(id(self.journal), []):
                await self.world.disk.run(store_own, self.journal, *late)

    return [(Journal, "_store_own", later), (Desk, "record", publish_first)]


def _slot_signed_twice() -> Sequence[Patch]:
    init, store_own = Journal.__init__, Journal._store_own  # noqa: SLF001

    def forgetful(self: Journal, **what: Any) -> None:
        init(self, **what)
        log = (what["own"], self._epoch)
        stored = list(self._store.records(author=log[0], epoch=log[1]))
        if len(stored) > 1:
            value = decode_record(stored[-2].record_bytes)
            self._heads[log] = head_of_signed(stored[-2], value)

    def careless(self: Journal, signed: Verified[Record], after: LogHead, state: State) -> None:
        try:
            store_own(self, signed, after, state)
        except VerificationError:
            return

    return [(Journal, "__init__", forgetful), (Journal, "_store_own", careless)]


def _commits_unflushed() -> Sequence[Patch]:
    durable = ledger.store._make_durable  # noqa: SLF001

    def not_durable(path: Any, connection: Any) -> None:
        durable(path, connection)
        connection.execute("PRAGMA synchronous = NORMAL")

    return [(ledger.store, "_make_durable", not_durable)]


def _payloads_unflushed() -> Sequence[Patch]:
    def write(self: BlobStore, path: Any, payload: Any) -> None:
        del self
        path.write_bytes(payload)

    return [(BlobStore, "_write", write)]


def _result_not_kept() -> Sequence[Patch]:
    aggregate, keep = merging.aggregate, Desk.keep
    forgetful: set[int] = set()

    async def forgets(desk: Desk, effect: Merge) -> None:
        forgetful.add(id(desk))
        await aggregate(desk, effect)

    async def keeps_nothing(self: Desk, codec: Codec, payload: bytes) -> bytes:
        digest = await keep(self, codec, payload)
        if id(self) in forgetful:
            forgetful.remove(id(self))
            for path in self.blobs._directory.glob(f"{digest.hex()}.*"):  # noqa: SLF001
                path.unlink()
        return digest

    return [(merging, "aggregate", forgets), (Desk, "keep", keeps_nothing)]


# Trust


def _signature_unchecked() -> Sequence[Patch]:
    open_record = ledger.record.open_record

    def believe(signed: SignedRecord, *, roster: RosterKeys) -> Verified[Record]:
        with _patched([(ledger.keys, "verify", lambda *_what: None)]):
            return open_record(signed, roster=roster)

    return [(node.intake, "open_record", believe)]


def _served_before_commit() -> Sequence[Patch]:
    return [(RoundBook, "may_fetch", lambda _self, _author, _digest, **_: True)]


def _chunk_unchecked() -> Sequence[Patch]:
    return [(node.partial, "check_chunk", lambda _manifest, _index, _chunk: None)]


def _payload_unchecked() -> Sequence[Patch]:
    async def believe(*_what: Any) -> None:
        pass

    return [(obtaining, "_check", believe)]


def _proposal_trusted() -> Sequence[Patch]:
    record = Desk.record

    async def copies(self: Desk, kind: Kind, round_: int, body: Any, **more: Any) -> None:
        if isinstance(body, Aggregation):
            own = {one.id for one in body.inputs}
            for author, vote in self.book.votes(round_).items():
                if author != self.own and {one.id for one in vote.inputs} == own:
                    body = replace(body, result_digest=vote.result)
                    break
        await record(self, kind, round_, body, **more)

    return [(Desk, "record", copies)]


def _quorum_short() -> Sequence[Patch]:
    return [(ledger.electorate, "quorum", lambda members: members // 2)]


def _causes_unchecked() -> Sequence[Patch]:
    return [(node.intake.Intake, "_causes_known", lambda *_what: True)]


def _cut_ignored() -> Sequence[Patch]:
    return [(node.intake.Intake, "_check_cut", lambda *_what: None)]


# Arithmetic and accounts


def _weights_equal() -> Sequence[Patch]:
    def equal(samples: Sequence[int], *_what: Any, **_more: Any) -> list[int]:
        return [1_000_000 // len(samples)] * len(samples)

    return [(merging, "weights_micro", equal)]


def _staleness_ignored() -> Sequence[Patch]:

    def fresh(samples: Sequence[int], policy: Any, **_more: Any) -> list[int]:
        return weights_micro(samples, policy)

    return [(merging, "weights_micro", fresh)]


def _left_out_untold() -> Sequence[Patch]:
    aggregate = merging.aggregate

    async def silent(desk: Desk, effect: Merge) -> None:
        await aggregate(desk, replace(effect, left_out=()))

    return [(merging, "aggregate", silent)]


def _reasons_false() -> Sequence[Patch]:
    aggregate = merging.aggregate

    async def lying(desk: Desk, effect: Merge) -> None:
        silent = tuple((author, Reason.INACTIVE) for author, _ in effect.left_out)
        await aggregate(desk, replace(effect, left_out=silent))

    return [(merging, "aggregate", lying)]


def _lamport_ignored() -> Sequence[Patch]:
    def behind(*what: Any, **more: Any) -> Record:
        return compose(*what, **(more | {"lamports": ()}))

    return [(node.journal, "compose", behind)]


# Waiting


def _deadline_ignored() -> Sequence[Patch]:
    return [(AdaptiveDeadline, "wait_s", lambda *_what: 1e9)]


def _with(attack: str) -> Callable[[Plan], bool]:
    return lambda plan: any(attack in liar.attacks for liar in plan.liars)


def _somebody_signs_on(plan: Plan) -> bool:
    rotated = {one.member for one in plan.faults if isinstance(one, Rotation)}
    return not rotated.isdisjoint(liar.member for liar in plan.liars)


def _somebody_stays_dead(plan: Plan) -> bool:
    return bool(plan.stays_dead)


def _votes_twice() -> Sequence[Patch]:
    record = Desk.record

    async def twice(self: Desk, kind: Kind, round_: int, body: Any, **more: Any) -> None:
        await record(self, kind, round_, body, **more)
        if kind is Kind.AGGREGATION and round_:
            await record(self, kind, round_, body, **more)

    return [(Desk, "record", twice)]


def _scores_twice() -> Sequence[Patch]:
    learn = Scoring.learn

    def forget(self: Scoring, record: Verified[Record]) -> None:
        learn(self, record)
        self._own_newest = -1

    return [(Scoring, "learn", forget)]


def _somebody_is_killed_who_scores(plan: Plan) -> bool:
    return plan.reputation != "off" and any(isinstance(one, Kill) for one in plan.faults)


def _gossip_cut_short() -> Sequence[Patch]:
    whole = encode_gossip

    def short(envelopes: Sequence[bytes]) -> bytes:
        return whole([one[:-1] for one in envelopes])

    return [(node.exchange, "encode_gossip", short)]


# Room


def _garbage_kept() -> Sequence[Patch]:
    async def keep(_self: Janitor) -> None:
        await trio.lowlevel.checkpoint()

    return [(Janitor, "tidy", keep)]


def _flood_stored() -> Sequence[Patch]:
    return [(RoundShares, "admit", lambda *_what: None)]


def _has_many_rounds(plan: Plan) -> bool:
    return plan.rounds >= 8 and plan.reputation == "off"


PLANTS: Final[dict[str, Plant]] = {
    "ack-before-persist": Plant(
        "acknowledges others' records before they are on the disk", _ack_before_persist
    ),
    "publish-before-persist": Plant(
        "sends its own record before it is on the disk", _publish_before_persist
    ),
    "slot-signed-twice": Plant(
        "forgets its last record at a restart and signs its slot again", _slot_signed_twice
    ),
    "commits-unflushed": Plant("stores with synchronous=NORMAL", _commits_unflushed),
    "payloads-unflushed": Plant("renames payloads that were never flushed", _payloads_unflushed),
    "result-not-kept": Plant("votes for a result that it does not keep", _result_not_kept),
    "signature-unchecked": Plant(
        "stores records without a look at the signature", _signature_unchecked, _with("forge")
    ),
    "served-before-commit": Plant(
        "serves payloads to who has not contributed himself",
        _served_before_commit,
        _with("early-fetch"),
    ),
    "chunk-unchecked": Plant(
        "takes any chunk for the one it asked for", _chunk_unchecked, _with("corrupt")
    ),
    "payload-unchecked": Plant(
        "merges payloads that it never checked", _payload_unchecked, _with("bad-nan")
    ),
    "proposal-trusted": Plant(
        "votes for another's result without merging", _proposal_trusted, _with("bad-merge")
    ),
    "quorum-short": Plant("takes half of the members for a quorum", _quorum_short),
    "causes-unchecked": Plant(
        "stores records before what they refer to", _causes_unchecked, _with("false-acks")
    ),
    "cut-ignored": Plant(
        "stores what was signed with a key that a roster update has ended",
        _cut_ignored,
        _somebody_signs_on,
    ),
    "weights-equal": Plant("weighs every hospital the same, against the charter", _weights_equal),
    "staleness-ignored": Plant("weighs late contributions like those on time", _staleness_ignored),
    "left-out-untold": Plant("does not say who was left out of a merge", _left_out_untold),
    "reasons-false": Plant("calls everybody inactive whom a merge leaves out", _reasons_false),
    "lamport-ignored": Plant("signs Lamport times below those it has seen", _lamport_ignored),
    "votes-twice": Plant("votes a second time in each round", _votes_twice),
    "scores-twice": Plant(
        "forgets at a restart that it has scored a round",
        _scores_twice,
        _somebody_is_killed_who_scores,
    ),
    "gossip-cut-short": Plant("leaves out the last byte of what it announces", _gossip_cut_short),
    "garbage-kept": Plant("removes no payload, however old", _garbage_kept, _has_many_rounds),
    "flood-stored": Plant(
        "stores however many records somebody writes", _flood_stored, _with("flood")
    ),
    "deadline-ignored": Plant(
        "waits for everybody for ever", _deadline_ignored, _somebody_stays_dead
    ),
}
