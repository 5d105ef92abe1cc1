"""A finished run for tests: real records, real bundles, the real auditor; only the learning is made up."""

from dataclasses import dataclass
from pathlib import Path

from ledger.bundle import export_bundle
from ledger.charter import Charter
from ledger.record import Kind, LeftOut, MetricId, Metrics, MetricValue, Reason
from ledger.store import Store
from scenarios.audit import audit
from scenarios.outcome import Level, Measured, Outcome
from scenarios.results import Header, build_outcome, read_own_logs
from scenarios.view import NodeView
from tests.ledger.ledger_factory import Federation, digest_of

ROUNDS = 10
MEMBERS = 4


class Hospitals(Federation):
    """Learns a little each round: AUC 0.900 + 0.005 · round + 0.001 · author."""

    def metrics_body(self, author: int, round_: int) -> Metrics:
        micro = 900_000 + 5_000 * round_ + 1_000 * author
        values = (
            MetricValue(
                metric=MetricId.AUC,
                micro=micro,
                low_micro=micro - 20_000,
                high_micro=micro + 10_000,
                count=30,
            ),
            MetricValue(
                metric=MetricId.LOG_LOSS,
                micro=1_000_000 - micro,
                low_micro=50_000,
                high_micro=400_000,
                count=30,
            ),
        )
        return Metrics(round=round_, model_digest=digest_of(f"model {round_}"), values=values)

    def play_without(self, absent: int, round_: int) -> None:
        """One round in which a hospital's update does not arrive in time."""
        everyone = range(self.roster.n)
        offered = [
            self.write(
                a, Kind.CONTRIBUTION, round_, self.contribution_body(a, round_), with_acks=True
            )
            for a in everyone
        ]
        body = self.aggregation_body(
            offered[:absent] + offered[absent + 1 :],
            round_,
            left_out=(LeftOut(author=absent, reason=Reason.NOT_RECEIVED),),
        )
        for author in everyone:
            self.write(author, Kind.AGGREGATION, round_, body)
        for author in everyone:
            self.write(author, Kind.METRICS, round_, self.metrics_body(author, round_))


@dataclass(frozen=True)
class Finished:
    """What `finish` made."""

    charter: Charter
    bundles: tuple[Path, ...]
    outcome: Outcome


def finish(directory: Path, hospitals: Hospitals) -> Finished:
    """Export every member's bundle from a real store, audit them together, build the outcome."""
    charter_path = directory / "charter.toml"
    charter_path.write_bytes(hospitals.charter_bytes)
    with Store.open(directory / "ledger.db") as store:
        store.append(sorted(hospitals.records(), key=lambda record: record.value.lamport))
        bundles = tuple(
            export_bundle(store, hospitals.charter_bytes, directory / f"bundle-{index}")
            for index in range(hospitals.roster.n)
        )
    charter = hospitals.charter
    ledger = audit(bundles, charter=charter_path, charter_digest=charter.digest_hex)
    outcome = build_outcome(
        Header(scenario="four-hospitals", title="A test", seed=7, wall_s=1.5),
        charter,
        read_own_logs(bundles, charter),
        ledger,
        {index: (level(0.90), level(0.96)) for index in range(MEMBERS)},
        [
            NodeView(name=f"Hospital {index}", bytes_sent=1000 + index, bytes_received=900)
            for index in range(MEMBERS)
        ],
    )
    return Finished(charter=charter, bundles=bundles, outcome=outcome)


def played(rounds: int = ROUNDS) -> Hospitals:
    """Four hospitals after some rounds without a fault."""
    hospitals = Hospitals(MEMBERS)
    hospitals.play(rounds)
    return hospitals


def level(auc: float) -> Level:
    return Level(
        auc=Measured(value=auc, low=auc - 0.03, high=auc + 0.03, count=30),
        loss=Measured(value=1 - auc, low=0.05, high=0.5, count=30),
    )
