"""Federations for tests and vectors: real keys, real records, everything from fixed seeds."""

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ledger.bundle import log_name
from ledger.canonical import encode
from ledger.chain import LogHead, compose, head_after
from ledger.charter import Charter, load_charter
from ledger.frames import END_MARK
from ledger.keys import Signer, derive
from ledger.record import (
    DOMAIN,
    NO_ID,
    Ack,
    Aggregation,
    Body,
    Codec,
    Contribution,
    Input,
    Kind,
    MetricId,
    Metrics,
    MetricValue,
    Open,
    Record,
    Rule,
    SignedRecord,
    Verified,
    sign_record,
)
from ledger.roster import Roster
from ledger.weights import weights_micro

TIME_MS = 1_700_000_000_000


def seed_of(name: str) -> bytes:
    return hashlib.sha256(f"test seed {name}".encode()).digest()


def digest_of(name: str) -> bytes:
    return hashlib.sha256(f"test digest {name}".encode()).digest()


def member_block(index: int, **overrides: str) -> str:
    seed = seed_of(f"node {index}")
    fields = {
        "name": f"Hospital {index}",
        "ledger_key": Signer(derive(seed, "ledger")).public_key.hex(),
        "witness_key": Signer(derive(seed, "witness")).public_key.hex(),
        "network_key": Signer(derive(seed, "network")).public_key.hex(),
        "admin_key": Signer(derive(seed_of(f"admin {index}"), "admin")).public_key.hex(),
    }
    fields.update(overrides)
    lines = "".join(f'{key} = "{value}"\n' for key, value in fields.items())
    return f'\n[[members]]\n{lines}addresses = ["/ip4/10.0.0.{index % 250 + 1}/tcp/4001"]\n'


CHARTER_HEAD = """\
version = 1
federation = "Test federation"

[model]
name = "logistic"

[data]
label = "outcome"
head = "binary"
classes = ["no", "yes"]

[[data.features]]
name = "age"
type = "number"
minimum = 0
maximum = 120

[rounds]
rounds = 10
"""


def charter_of(members: int, extra: str = "", head: str = CHARTER_HEAD) -> bytes:
    return (head + extra + "".join(map(member_block, range(members)))).encode()


class Federation:
    """n hospitals that write records; every log is a list of Verified records."""

    def __init__(self, members: int, extra: str = "") -> None:
        self.charter_bytes = charter_of(members, extra)
        self.charter: Charter = load_charter(self.charter_bytes)
        self.roster = Roster.from_charter(self.charter)
        self.signers = [Signer(derive(seed_of(f"node {i}"), "ledger")) for i in range(members)]
        self.logs: list[list[Verified[Record]]] = [[] for _ in range(members)]
        self.heads: list[LogHead | None] = [None] * members
        self.acked: list[dict[int, int]] = [{} for _ in range(members)]
        self.clock_ms = TIME_MS

    def due_acks(self, author: int) -> list[LogHead]:
        return [
            head
            for index, head in enumerate(self.heads)
            if head is not None
            and index != author
            and head.next_seq - 1 > self.acked[author].get(index, -1)
        ]

    def draft(
        self,
        author: int,
        kind: int,
        round_: int,
        body: Body | bytes,
        acks: Sequence[LogHead] = (),
    ) -> Record:
        self.clock_ms += 10
        return compose(
            self.heads[author],
            roster=self.roster,
            author=author,
            epoch=0,
            kind=kind,
            round=round_,
            time_ms=self.clock_ms,
            acks=[Ack(h.author, h.epoch, h.next_seq - 1, h.prev_id) for h in acks],
            lamports=[head.lamport for head in acks],
            times_ms=[head.time_ms for head in acks],
            body=body,
        )

    def add(self, record: Record) -> Verified[Record]:
        """Sign and append without asking the chain's rules."""
        return self.add_signed(sign_record(record, self.signers[record.author]))

    def add_signed(self, signed: Verified[Record]) -> Verified[Record]:
        author = signed.value.author
        self.logs[author].append(signed)
        self.heads[author] = head_after(signed.value, signed.id)
        for ack in signed.value.acks:
            self.acked[author][ack.author] = ack.seq
        return signed

    def write(
        self,
        author: int,
        kind: int,
        round_: int,
        body: Body | bytes,
        *,
        with_acks: bool = False,
        **changes: Any,
    ) -> Verified[Record]:
        acks = self.due_acks(author) if with_acks else ()
        record = self.draft(author, kind, round_, body, acks)
        return self.add(replace(record, **changes) if changes else record)

    def open_body(self, author: int) -> Open:
        return Open(
            public_key=self.signers[author].public_key,
            previous_head=NO_ID,
            software_digest=digest_of("software"),
            charter_digest=self.charter.net,
        )

    def open(self, author: int, **changes: Any) -> Verified[Record]:
        return self.write(author, Kind.OPEN, 0, self.open_body(author), **changes)

    def contribution_body(self, author: int, round_: int, **changes: Any) -> Contribution:
        body = Contribution(
            update_digest=digest_of(f"update {author} {round_}"),
            bytes_count=4_096,
            codec=Codec.FLOAT32,
            base_digest=digest_of(f"model {round_ - 1}"),
            samples=100 + 50 * author,
            local_steps=20,
            norm_micro=1_500_000,
            sketch_digest=NO_ID,
            epsilon_micro=0,
            delta_exponent=0,
            mechanism=0,
            metrics=(),
            data_commitment=digest_of(f"data {author}"),
        )
        return replace(body, **changes)

    def aggregation_body(
        self,
        contributions: Iterable[Verified[Record]],
        round_: int,
        *,
        staleness: bool = True,
        **changes: Any,
    ) -> Aggregation:
        chosen = sorted(contributions, key=lambda one: one.value.author)
        bodies = [one.value.body for one in chosen]
        samples = [body.samples for body in bodies if isinstance(body, Contribution)]
        late = [max(round_ - one.value.round, 0) for one in chosen] if staleness else ()
        weights = weights_micro(samples, self.charter.aggregation, staleness_rounds=late)
        inputs = tuple(
            Input(
                author=one.value.author,
                epoch=0,
                seq=one.value.seq,
                id=one.id,
                weight_micro=weight,
            )
            for one, weight in zip(chosen, weights, strict=True)
        )
        body = Aggregation(
            rule=Rule.MEAN,
            parameters=(),
            inputs=inputs,
            left_out=(),
            result_digest=digest_of(f"model {round_}"),
        )
        return replace(body, **changes)

    def metrics_body(self, round_: int) -> Metrics:
        values = tuple(
            MetricValue(
                metric=metric, micro=900_000, low_micro=850_000, high_micro=950_000, count=64
            )
            for metric in (MetricId.AUC, MetricId.LOG_LOSS, MetricId.ACCURACY)
        )
        return Metrics(round=round_, model_digest=digest_of(f"model {round_}"), values=values)

    def open_all(self) -> None:
        for author in range(self.roster.n):
            self.open(author)

    def play_round(self, round_: int) -> None:
        everyone = range(self.roster.n)
        offered = [
            self.write(
                a, Kind.CONTRIBUTION, round_, self.contribution_body(a, round_), with_acks=True
            )
            for a in everyone
        ]
        body = self.aggregation_body(offered, round_)
        for author in everyone:
            self.write(author, Kind.AGGREGATION, round_, body)
        for author in everyone:
            self.write(author, Kind.METRICS, round_, self.metrics_body(round_))

    def play(self, rounds: int) -> None:
        self.open_all()
        for round_ in range(1, rounds + 1):
            self.play_round(round_)

    def records(self) -> list[Verified[Record]]:
        return [record for log in self.logs for record in log]

    def bundle(self, directory: Path, counts: Sequence[int] | None = None) -> Path:
        """Write a bundle directly, so that what no store would take can be shown to the auditor."""
        envelopes = [
            [record.signed.envelope() for record in log[: None if counts is None else counts[i]]]
            for i, log in enumerate(self.logs)
        ]
        return write_bundle(directory, self.charter_bytes, dict(enumerate(envelopes)))


def write_bundle(directory: Path, charter_bytes: bytes, envelopes: dict[int, list[bytes]]) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "logs").mkdir(parents=True)
    (directory / "charter.toml").write_bytes(charter_bytes)
    for author, log in envelopes.items():
        if log:
            (directory / "logs" / log_name((author, 0))).write_bytes(frames(log))
    return directory


def frames(envelopes: Iterable[bytes]) -> bytes:
    return b"".join(len(e).to_bytes(4, "big") + e for e in envelopes) + END_MARK


def sign_value(value: Any, signer: Signer) -> SignedRecord:
    """Sign any canonical value as if it were a record."""
    return sign_bytes(encode(value), signer)


def sign_bytes(record_bytes: bytes, signer: Signer) -> SignedRecord:
    return SignedRecord(record_bytes, signer.sign(DOMAIN + record_bytes))
