"""What a calm simulated swarm has left, in copies that may be damaged before they are judged."""

import shutil
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from ledger.chain import compose, head_after
from ledger.record import (
    Aggregation,
    Body,
    Contribution,
    Kind,
    LeftOut,
    Metrics,
    Record,
    Rule,
    Verified,
    open_record,
    sign_record,
)
from ledger.roster import Roster
from ledger.roster_store import store_update
from ledger.store import Store
from scenarios.simulation.checkers import check
from scenarios.simulation.disk import BLOBS, DATABASE
from scenarios.simulation.faults import Liar
from scenarios.simulation.held import Ledger, Reader
from scenarios.simulation.observations import Observations
from scenarios.simulation.plan import Size, draw_plan
from scenarios.simulation.rosters import removal
from scenarios.simulation.run import Run
from scenarios.simulation.swarm import EPOCH_MS, identity_of
from swarm.protocol.messages import encode_gossip
from tests.federation import ack_of, digest_of, input_of

Said = TypeVar("Said", bound=Body)

SEED = 4
MEMBERS = 4
ROUNDS = 2
AFTERWARDS = ROUNDS + 1
"""The round that members close in, and the last that a record may be of."""
EVERYBODY = tuple(range(MEMBERS))


def calm_run(directory: Path) -> Run:
    """Run four members, who judge each other, through round zero and two more."""
    size = Size(members=MEMBERS, rounds=ROUNDS, averaging="full", calm=True)
    plan = replace(draw_plan(SEED, size), has_moments=True, reputation="weigh", learning="")
    run = Run(plan, directory)
    run.run()
    return run


def broken(seen: Observations) -> set[str]:
    """Return the invariants that did not hold."""
    return {one.invariant for one in seen.violations}


def ledger_of(records: Iterable[Verified[Record]]) -> Ledger:
    """Return the ledger that holds just these."""
    slots = {(one.value.author, one.value.epoch, one.value.seq): one for one in records}
    ids = {slot: one.id for slot, one in slots.items()}
    return Ledger(ids, {slot: one.value for slot, one in slots.items()})


def remark(number: int = 0) -> Metrics:
    """Return what anybody may say at the end; another record for each number."""
    return Metrics(round=AFTERWARDS, model_digest=digest_of(number), values=())


def merge_of(offer: Verified[Record], left_out: Sequence[tuple[int, int]]) -> Aggregation:
    """Return a merge of one offer."""
    return Aggregation(
        rule=Rule.MEAN,
        parameters=(),
        inputs=(replace(input_of(offer), weight_micro=1_000_000),),
        left_out=tuple(LeftOut(author=author, reason=reason) for author, reason in left_out),
        result_digest=digest_of("merge", offer.id),
    )


class Remains:
    """All that a run has left."""

    def __init__(self, run: Run, directory: Path) -> None:
        self._sites = run.swarm.sites
        left = run.evidence()
        disks = {
            index: Path(shutil.copytree(disk, directory / str(index)))
            for index, disk in left.disks.items()
        }
        payloads = Path(shutil.copytree(left.payloads, directory / "payloads"))
        self.evidence = replace(left, disks=disks, payloads=payloads, scratch=directory)
        self.seen = deepcopy(run.observations)
        self.roster = Roster.from_charter(left.charter)

    def judged(self) -> set[str]:
        """Return the invariants that do not hold."""
        check(self.evidence, self.seen)
        return broken(self.seen)

    def accuse(self, *liars: int) -> None:
        """Let members have been liars all along."""
        lying = tuple(Liar(member=one, attacks=("equivocate",)) for one in liars)
        self.evidence = replace(self.evidence, plan=replace(self.evidence.plan, liars=lying))
        self.seen.honest = frozenset(self.evidence.plan.honest)
        self.bury(*liars)

    def prolong(self) -> None:
        """Let there be one more round than there was."""
        plan = self.evidence.plan
        self.evidence = replace(self.evidence, plan=replace(plan, rounds=plan.rounds + 1))

    def bury(self, *members: int, said_goodbye: bool = False) -> None:
        """Let members not have lasted to the end."""
        lasting = self.evidence.lasting.difference(members)
        self.evidence = replace(
            self.evidence,
            lasting=lasting,
            left=frozenset(members if said_goodbye else ()),
            disks={index: self.evidence.disks[index] for index in sorted(lasting)},
        )

    def store(self, index: int) -> AbstractContextManager[Store]:
        """Open a member's database."""
        return Store.open(self.evidence.disks[index] / DATABASE)

    def ledger(self, index: int) -> Ledger:
        """Return what a member's disk holds."""
        with self.store(index) as store:
            return Reader().ledger(store)

    def record(self, author: int, kind: Kind) -> Verified[Record]:
        """Return what a member wrote of this kind in the last round."""
        with self.store(min(self.evidence.disks)) as store:
            found = [open_record(one, roster=self.roster) for one in store.records(author=author)]
        (one,) = (one for one in found if (one.value.kind, one.value.round) == (kind, ROUNDS))
        return one

    def said(self, author: int, of: type[Said]) -> Said:
        """Return the body of that."""
        body = self.record(author, of.KIND).value.body
        assert isinstance(body, of)
        return body

    def sign(
        self,
        author: int,
        body: Body,
        *,
        acks: Sequence[Verified[Record]] = (),
        round_: int = AFTERWARDS,
    ) -> Verified[Record]:
        """Sign a member's next record, behind what the first disk holds; no disk holds it."""
        with self.store(min(self.evidence.disks)) as store:
            heads = store.heads()
        record = compose(
            heads[author, 0],
            roster=self.roster,
            author=author,
            epoch=0,
            kind=body.KIND,
            round=round_,
            time_ms=EPOCH_MS,
            acks=[ack_of(one) for one in acks],
            lamports=[head.lamport + len(acks) for head in heads.values()],
            times_ms=[head.time_ms for head in heads.values()],
            body=body,
        )
        return sign_record(record, identity_of(SEED, author).ledger())

    def store_on(self, disks: Iterable[int], *records: Verified[Record]) -> None:
        """Put signed records on these disks."""
        for index in disks:
            with self.store(index) as store:
                store.append(records)

    def write(
        self,
        author: int,
        body: Body,
        *,
        acks: Sequence[Verified[Record]] = (),
        round_: int = AFTERWARDS,
    ) -> Verified[Record]:
        """Sign a member's next record, and put it on every disk."""
        record = self.sign(author, body, acks=acks, round_=round_)
        self.store_on(self.evidence.disks, record)
        return record

    def offer(self, author: int, *, digest: bytes | None = None) -> Verified[Record]:
        """Let a member offer once more, after the last round."""
        digest = digest or digest_of("offer", author, self.ledger(author).logs[author, 0])
        return self.write(author, replace(self.said(author, Contribution), update_digest=digest))

    def send(self, record: Verified[Record]) -> None:
        """Let a record leave its author."""
        self.seen.broadcast(record.value.author, encode_gossip([record.signed.envelope()]))

    def remove(self, member: int, last: Verified[Record] | None = None) -> None:
        """Let everybody have heard that a member is removed, and of its log what ``last`` ends is kept.

        None: all that the first disk holds.
        """
        with self.store(min(self.evidence.disks)) as store:
            head = store.heads()[member, 0]
        if last is not None:
            head = head_after(last.value, last.id)
        update = removal(self.roster, self._sites, member, head)
        for index in self.evidence.disks:
            with self.store(index) as store:
                store_update(store, self.roster, update)

    def payload(self, digest: bytes) -> Path:
        """Return where a payload is kept for the auditor."""
        (path,) = self.evidence.payloads.glob(f"{digest.hex()}.*")
        return path

    def blobs(self, index: int) -> Path:
        """Return where a member keeps payloads."""
        return self.evidence.disks[index] / BLOBS
