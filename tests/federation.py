"""Members who write real records with real keys, for tests of the protocol and the journal."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from ledger.chain import LogHead, check_next, compose
from ledger.charter import Charter, StoppingPolicy
from ledger.record import (
    NO_ID,
    Ack,
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
    sign_record,
)
from ledger.roster import Roster, Term
from scenarios.simulator import identity_of
from swarm.protocol.book import RoundBook
from swarm.protocol.effects import Adopt, Effect, Merge
from swarm.protocol.position import NEVER
from swarm.protocol.round import Phase, Place, RoundMachine
from tests.simulated import charter_of

INITIAL = hashlib.sha256(b"initial model").digest()
PAYLOAD_BYTES = 1_000
POLICY = {"grace_s": 3.0, "deadline_min_s": 5.0, "deadline_max_s": 60.0, "start_wait_s": 30.0}


def digest_of(*words: object) -> bytes:
    return hashlib.sha256(repr(words).encode()).digest()


class Author:
    """One member's log, written by whoever has its key: honest or not."""

    def __init__(self, roster: Roster, index: int, seed: int, *, epoch: int = 0) -> None:
        self.index = index
        self.epoch = epoch
        self.signer = identity_of(seed, index).ledger()
        self.head: LogHead | None = None
        self.records: list[Verified[Record]] = []
        self.roster = roster
        """Under which it signs."""

    def write(
        self,
        kind: Kind,
        round_: int,
        body: Body | bytes,
        *,
        acks: Sequence[Ack] = (),
        lamport: int = 0,
        checked: bool = True,
    ) -> Verified[Record]:
        record = compose(
            self.head,
            roster=self.roster,
            author=self.index,
            epoch=self.epoch,
            kind=kind,
            round=round_,
            time_ms=1_000,
            acks=acks,
            lamports=[lamport - 1] if lamport else [],
            body=body,
        )
        signed = sign_record(record, self.signer)
        if checked:
            self.head = check_next(self.head, signed)
            self.records.append(signed)
        return signed

    def open_body(self) -> Open:
        return Open(
            public_key=self.signer.public_key,
            previous_head=NO_ID,
            software_digest=bytes(32),
            charter_digest=self.roster.net,
        )

    def open(self, *, lamport: int = 0) -> Verified[Record]:
        return self.write(Kind.OPEN, 0, self.open_body(), lamport=lamport)

    def contribute(
        self,
        round_: int,
        *,
        digest: bytes | None = None,
        base: bytes = INITIAL,
        codec: int | None = None,
        bytes_count: int = PAYLOAD_BYTES,
        samples: int = 10,
        acks: Sequence[Ack] = (),
    ) -> Verified[Record]:
        body = Contribution(
            update_digest=digest or digest_of("update", self.index, round_),
            bytes_count=bytes_count,
            codec=codec or (Codec.FLOAT32 if round_ else Codec.MOMENTS),
            base_digest=base,
            samples=samples,
            local_steps=1,
            norm_micro=1,
            sketch_digest=NO_ID,
            epsilon_micro=0,
            delta_exponent=0,
            mechanism=0,
            metrics=(),
            data_commitment=NO_ID,
        )
        return self.write(Kind.CONTRIBUTION, round_, body, acks=acks)

    def vote(
        self,
        round_: int,
        inputs: Sequence[Verified[Record] | Input],
        *,
        result: bytes | None = None,
        rule: int | None = None,
        ballot: int = 0,
        left_out: Sequence[tuple[int, int]] = (),
    ) -> Verified[Record]:
        rows = [one if isinstance(one, Input) else input_of(one) for one in inputs]
        rows.sort(key=lambda row: (row.author, row.epoch, row.seq))
        body = Aggregation(
            rule=rule or (Rule.MEAN if round_ else Rule.MOMENTS),
            parameters=(ballot,) if ballot else (),
            inputs=tuple(rows),
            left_out=tuple(LeftOut(author=a, reason=reason) for a, reason in left_out),
            result_digest=result or result_of(round_, rows),
        )
        return self.write(Kind.AGGREGATION, round_, body)

    def evaluate(
        self, round_: int, model: bytes, *, loss_micro: int | None = None
    ) -> Verified[Record]:
        values: tuple[MetricValue, ...] = ()
        if loss_micro is not None:
            low, high = loss_micro, loss_micro
            values = (
                MetricValue(
                    metric=MetricId.LOG_LOSS,
                    micro=loss_micro,
                    low_micro=low,
                    high_micro=high,
                    count=10,
                ),
            )
        body = Metrics(round=round_, model_digest=model, values=values)
        return self.write(Kind.METRICS, round_, body)

    def reject(
        self, round_: int, target: bytes, reason: int = Reason.NOT_FINITE
    ) -> Verified[Record]:
        return self.write(Kind.REJECTION, round_, Rejection(target_id=target, reason=reason))

    def close(self, round_: int) -> Verified[Record]:
        return self.write(Kind.CLOSE, round_, Close(reason=CloseReason.DONE))


def input_of(record: Verified[Record]) -> Input:
    one = record.value
    return Input(author=one.author, epoch=one.epoch, seq=one.seq, id=record.id, weight_micro=0)


def result_of(round_: int, rows: Sequence[Input]) -> bytes:
    return digest_of("result", round_, sorted(row.id for row in rows))


def ack_of(record: Verified[Record]) -> Ack:
    one = record.value
    return Ack(one.author, one.epoch, one.seq, record.id)


class Federation:
    """A charter and its members' pens."""

    def __init__(self, count: int, *, seed: int = 1, **policy: object) -> None:
        self.charter: Charter = charter_of(
            [identity_of(seed, index) for index in range(count)], **(POLICY | policy)
        )
        self.roster = Roster.from_charter(self.charter)
        self.authors = [Author(self.roster, index, seed) for index in range(count)]

    def __getitem__(self, index: int) -> Author:
        return self.authors[index]

    def open_all(self) -> list[Verified[Record]]:
        return [author.open() for author in self.authors]

    def agree(self, round_: int, base: bytes) -> bytes:
        """Everybody contributes, votes for everything and evaluates; return the agreed model."""
        offers = [author.contribute(round_, base=base) for author in self.authors]
        for author in self.authors:
            author.vote(round_, offers)
        result = result_of(round_, [input_of(offer) for offer in offers])
        for author in self.authors:
            author.evaluate(round_, result)
        return result


def after_removal(roster: Roster) -> Roster:
    """Return the roster's next version, which has removed one more member that it had."""
    gone = replace(roster.members[0], index=roster.n, name="gone")
    term = Term(ledger_key=bytes(32), since=0, until=1)
    return replace(
        roster, version=1, versions=(0, 1),
        members=(*roster.members, gone), terms=(*roster.terms, (term,)),
    )  # fmt: skip


class Desk:
    """One member's round machine on a table: records, payloads and the time are handed to it."""

    def __init__(
        self,
        federation: Federation,
        own: int = 0,
        *,
        has_moments: bool = False,
        linger_s: float = 60.0,
        stopping: StoppingPolicy = NEVER,
    ) -> None:
        self.federation = federation
        self.own = federation[own]
        is_gossip = federation.charter.topology is not None
        self.book = RoundBook(federation.roster, is_gossip=is_gossip)
        self.now_s = 0.0
        place = Place(
            own=own,
            policy=federation.charter.rounds,
            aggregation=federation.charter.aggregation,
            has_moments=has_moments,
            initial=INITIAL,
            linger_s=linger_s,
            stopping=stopping,
            topology=federation.charter.topology,
        )
        self.machine = RoundMachine(place, self.book, now_s=self.now_s)
        self.hold(INITIAL)

    @property
    def phase(self) -> Phase:
        return self.machine.phase

    def hold(
        self, digest: bytes, *, codec: int = Codec.FLOAT32, bytes_count: int = PAYLOAD_BYTES
    ) -> None:
        self.machine.hold(digest, codec=codec, bytes_count=bytes_count)

    def hold_payload(self, record: Verified[Record]) -> None:
        body = record.value.body
        assert isinstance(body, Contribution)
        self.hold(body.update_digest, codec=body.codec, bytes_count=body.bytes_count)

    def learn(self, *records: Verified[Record]) -> None:
        for record in records:
            self.machine.learn(record)

    def wait(self, seconds: float) -> tuple[Effect, ...]:
        self.now_s += seconds
        return self.advance()

    def do(self, effects: Sequence[Effect]) -> tuple[Effect, ...]:
        """Sign what the machine wants signed of round zero; return what it wants then."""
        for effect in effects:
            match effect:
                case Merge():
                    inputs = [
                        Input(author=o.author, epoch=o.epoch, seq=o.seq, id=o.id, weight_micro=0)
                        for o in effect.offers
                    ]
                    vote = self.own.vote(0, inputs, ballot=effect.ballot)
                    self.hold(vote.value.body.result_digest, codec=Codec.MOMENTS)  # type: ignore[union-attr]
                case Adopt():
                    one = effect.proposal
                    vote = self.own.vote(0, one.inputs, result=one.result, ballot=effect.ballot)
                case _:
                    continue
            self.learn(vote)
        return self.advance()

    def advance(self) -> tuple[Effect, ...]:
        return self.machine.advance(now_s=self.now_s).effects

    def start(self) -> tuple[Effect, ...]:
        """Everybody has signed and been heard: the first round begins."""
        if not any(author.records for author in self.federation.authors):
            self.federation.open_all()
        for author in self.federation.authors:
            self.learn(*author.records)
            if author is not self.own:
                self.machine.synced(author.index)
        return self.advance()
