"""A finished run for tests: real records, real bundles, the real auditor; only the learning is made up."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ledger.bundle import export_bundle
from ledger.chain import LogHead, compose, head_after
from ledger.charter import Charter, load_charter
from ledger.keys import Signer, derive
from ledger.record import (
    NO_ID,
    Ack,
    Aggregation,
    Body,
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
    Rule,
    Verified,
    sign_record,
)
from ledger.roster import Roster
from ledger.store import Store
from ledger.weights import weights_micro
from scenarios.audit import audit
from scenarios.outcome import Level, Measured, Outcome
from scenarios.results import Header, build_outcome, read_own_logs, read_roster
from scenarios.view import NodeView

ROUNDS = 10
MEMBERS = 4
SAMPLES = (100, 150, 200, 250)
START_MS = 1_700_000_000_000

CHARTER = f"""
version = 1
federation = "Test"
model = {{ name = "logistic" }}
rounds = {{ rounds = {ROUNDS} }}

[data]
label = "ill"
head = "binary"
classes = ["no", "yes"]
features = [{{ name = "age", type = "number" }}]
"""


def digest_of(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


class Hospitals:
    """Four hospitals that learn a little each round: AUC 0.900 + 0.005 · round + 0.001 · author."""

    def __init__(self) -> None:
        seeds = [digest_of(f"seed {index}") for index in range(MEMBERS)]
        self.signers = [Signer(derive(seed, "ledger")) for seed in seeds]
        members = "".join(
            f'[[members]]\nname = "Hospital {index}"\n'
            + "".join(
                f'{purpose}_key = "{Signer(derive(seed, purpose)).public_key.hex()}"\n'
                for purpose in ("ledger", "witness", "admin", "network")
            )
            for index, seed in enumerate(seeds)
        )
        self.charter = load_charter((CHARTER + members).encode())
        self.roster = Roster.from_charter(self.charter)
        self.records: list[Verified[Record]] = []
        self._heads: list[LogHead | None] = [None] * MEMBERS
        for author in range(MEMBERS):
            body = Open(
                public_key=self.signers[author].public_key,
                previous_head=NO_ID,
                software_digest=digest_of("software"),
                charter_digest=self.charter.net,
            )
            self.write(author, Kind.OPEN, 0, body)

    def write(
        self, author: int, kind: Kind, number: int, body: Body, *, with_acks: bool = False
    ) -> Verified[Record]:
        """Sign the next record of a log, acknowledging the heads of all others if asked."""
        others = [h for at, h in enumerate(self._heads) if h and at != author and with_acks]
        record = compose(
            self._heads[author],
            roster=self.roster,
            author=author,
            epoch=0,
            kind=kind,
            round=number,
            time_ms=START_MS + len(self.records),
            acks=[Ack(h.author, h.epoch, h.next_seq - 1, h.prev_id) for h in others],
            lamports=[h.lamport for h in others],
            body=body,
        )
        signed = sign_record(record, self.signers[author])
        self._heads[author] = head_after(signed.value, signed.id)
        self.records.append(signed)
        return signed

    def play(self, number: int, *, absent: int | None = None, results: int = 1) -> None:
        """One round; `absent` is left out of the merge, and members split over `results` results."""
        offered = [
            self.write(author, Kind.CONTRIBUTION, number, offer(author, number), with_acks=True)
            for author in range(MEMBERS)
        ]
        inputs = self._inputs([one for one in offered if one.value.author != absent])
        left_out = () if absent is None else (LeftOut(author=absent, reason=Reason.NOT_RECEIVED),)
        for author in range(MEMBERS):
            merged = Aggregation(
                rule=Rule.MEAN,
                parameters=(),
                inputs=inputs,
                left_out=left_out,
                result_digest=digest_of(f"model {number} {author % results}"),
            )
            self.write(author, Kind.AGGREGATION, number, merged)
        for author in range(MEMBERS):
            self.write(author, Kind.METRICS, number, measured(author, number))

    def _inputs(self, offered: Sequence[Verified[Record]]) -> tuple[Input, ...]:
        authors = [one.value.author for one in offered]
        weights = weights_micro([SAMPLES[a] for a in authors], self.charter.aggregation)
        return tuple(
            Input(author=author, epoch=0, seq=one.value.seq, id=one.id, weight_micro=weight)
            for author, one, weight in zip(authors, offered, weights, strict=True)
        )


def offer(author: int, number: int) -> Contribution:
    return Contribution(
        update_digest=digest_of(f"update {author} {number}"),
        bytes_count=4_096,
        codec=Codec.FLOAT32,
        base_digest=digest_of(f"model {number - 1} 0"),
        samples=SAMPLES[author],
        local_steps=20,
        norm_micro=1_500_000,
        sketch_digest=NO_ID,
        epsilon_micro=0,
        delta_exponent=0,
        mechanism=0,
        metrics=(),
        data_commitment=digest_of(f"data {author}"),
    )


def measured(author: int, number: int) -> Metrics:
    auc = 900_000 + 5_000 * number + 1_000 * author
    values = (
        (MetricId.AUC, auc, auc - 20_000, auc + 10_000),
        (MetricId.LOG_LOSS, 1_000_000 - auc, 50_000, 400_000),
    )
    return Metrics(
        round=number,
        model_digest=digest_of(f"model {number} 0"),
        values=tuple(
            MetricValue(metric=metric, micro=micro, low_micro=low, high_micro=high, count=30)
            for metric, micro, low, high in values
        ),
    )


@dataclass(frozen=True)
class Finished:
    """What `finish` made."""

    charter: Charter
    bundles: tuple[Path, ...]
    outcome: Outcome


def finish(directory: Path, hospitals: Hospitals) -> Finished:
    """Export every member's bundle from a real store, audit them together, build the outcome."""
    charter = hospitals.charter
    charter_path = directory / "charter.toml"
    charter_path.write_bytes(charter.source_bytes)
    with Store.open(directory / "ledger.db") as store:
        store.append(hospitals.records)
        bundles = tuple(
            export_bundle(store, charter.source_bytes, directory / f"bundle-{index}")
            for index in range(MEMBERS)
        )
    ledger = audit(bundles, charter=charter_path, charter_digest=charter.digest_hex)
    roster = read_roster(bundles, charter)
    outcome = build_outcome(
        Header(scenario="four-hospitals", title="A test", seed=7, wall_s=1.5),
        charter,
        read_own_logs(bundles, roster),
        ledger,
        {index: (level(0.90), level(0.96)) for index in range(MEMBERS)},
        [
            NodeView(name=f"Hospital {index}", bytes_sent=1000 + index, bytes_received=900)
            for index in range(MEMBERS)
        ],
        roster,
    )
    return Finished(charter=charter, bundles=bundles, outcome=outcome)


def played(rounds: int = ROUNDS) -> Hospitals:
    """Four hospitals after some rounds without a fault."""
    hospitals = Hospitals()
    for number in range(1, rounds + 1):
        hospitals.play(number)
    return hospitals


def level(auc: float) -> Level:
    return Level(
        auc=Measured(value=auc, low=auc - 0.03, high=auc + 0.03, count=30),
        loss=Measured(value=1 - auc, low=0.05, high=0.5, count=30),
    )
