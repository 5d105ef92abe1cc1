"""What a run gave, as plain values: filled by results.py, judged by checks.py, shown by report.py.

Room: scenarios. Law: no I/O; every number here was read from a ledger bundle, a status interface
or the baselines, never from inside a node.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import sqrt


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A metric on a site's validation patients with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    count: int = 0


@dataclass(frozen=True, kw_only=True)
class Level:
    """A baseline's quality at one hospital; None where a metric is undefined (one class only)."""

    auc: Measured | None = None
    loss: Measured | None = None


@dataclass(frozen=True, kw_only=True)
class Point:
    """A metric after one round."""

    round: int
    measured: Measured


@dataclass(frozen=True, kw_only=True)
class HospitalOutcome:
    """One hospital at the end of the run.

    samples: training patients as its last contribution states them. weight_micro: its share of the
    last agreed merge. result_digest: of its own last AGGREGATION record.
    """

    index: int
    name: str
    samples: int
    weight_micro: int
    bytes_sent: int
    bytes_received: int
    result_digest: str
    alone: Level
    pooled: Level
    auc: tuple[Point, ...]
    loss: tuple[Point, ...]
    memory_mb: float = 0.0
    released: int | None = None

    @property
    def swarm(self) -> Level:
        """The released round's: the last, unless another was chosen."""
        return Level(auc=self._at(self.auc), loss=self._at(self.loss))

    def _at(self, points: Sequence[Point]) -> Measured | None:
        chosen = [p for p in points if self.released is None or p.round == self.released]
        return chosen[-1].measured if chosen else None


@dataclass(frozen=True, kw_only=True)
class Merge:
    """One round as the ledger tells it.

    merged: index → weight_micro of the inputs. left_out: index → reason in words. digests: the
    members' result digests, by index. agreed: at least q members merged the same inputs to the
    same digest. heard: whose update somebody else merged, in whatever merge: where hospitals average with
    neighbours, each has its own.
    """

    round: int
    agreed: bool
    merged: dict[int, int]
    left_out: dict[int, str]
    digests: dict[int, str]
    heard: frozenset[int]

    @property
    def unanimous(self) -> bool:
        """Everyone who recorded a merge got the same bits."""
        return len(set(self.digests.values())) == 1


@dataclass(frozen=True, kw_only=True)
class LedgerOutcome:
    """What the auditor says. kinds: kind → (records, final). anchored: under a quorum's checkpoint."""

    verdict: str
    exit_status: int
    records: int
    final: int
    anchored: int
    kinds: dict[str, tuple[int, int]]
    missing: tuple[str, ...]
    findings: tuple[str, ...]
    bundles: tuple[str, ...]
    charter: str
    charter_digest: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Everything about a finished run. has_moments: round 0 summed up means and spreads."""

    scenario: str
    title: str
    seed: int
    wall_s: float
    rounds: int
    members_quorum: int
    model: str
    has_moments: bool
    hospitals: tuple[HospitalOutcome, ...]
    merges: tuple[Merge, ...]
    ledger: LedgerOutcome
    is_gossip: bool = False
    """Whether hospitals average with their neighbours: then each has its own model."""
    failures: tuple[str, ...] = field(default=())

    @property
    def rounds_agreed(self) -> int:
        """Rounds that at least q members agreed on."""
        return sum(merge.agreed for merge in self.merges)

    def releasing(self, number: int, *, last: int) -> "Outcome":
        """The same run, judged by the model of one round. last: the round that training ended with."""
        hospitals = tuple(replace(h, released=number) for h in self.hospitals)
        return replace(self, hospitals=hospitals, rounds=last, merges=self.merges[:last])

    def overall(self, name: str) -> Measured | None:
        """AUC of "alone", "swarm" or "pooled" over all hospitals, weighted by training samples."""
        levels: list[Level] = [getattr(hospital, name) for hospital in self.hospitals]
        return weighted([level.auc for level in levels], [h.samples for h in self.hospitals])


def weighted(values: Sequence[Measured | None], samples: Sequence[int]) -> Measured | None:
    """Sample-weighted mean over the hospitals where the value is defined.

    The hospitals' patients are independent, so half-widths of the intervals add in squares.
    """
    known = [(v, n) for v, n in zip(values, samples, strict=True) if v is not None and n > 0]
    total = sum(n for _, n in known)
    if not total:
        return None
    mean = sum(v.value * n for v, n in known) / total
    below = sqrt(sum(((v.value - v.low) * n) ** 2 for v, n in known)) / total
    above = sqrt(sum(((v.high - v.value) * n) ** 2 for v, n in known)) / total
    return Measured(
        value=mean, low=mean - below, high=mean + above, count=sum(v.count for v, _ in known)
    )
