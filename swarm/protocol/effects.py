"""Work that a round wants done. Plain values: equal work is the same work, so asking twice is free.

The machine states everything it wants now; the node starts what is not yet running and stops what is
no longer wanted. What was done comes back as a record on the ledger or a payload that is held.
"""

from dataclasses import dataclass

from ledger.record import Sketch
from swarm.protocol.book import Offer, Proposal


@dataclass(frozen=True, slots=True)
class SignOpen:
    """Join: sign the charter."""


@dataclass(frozen=True, slots=True)
class Train:
    """Produce and record this round's CONTRIBUTION. ``base`` None is the charter's initial model."""

    round: int
    base: bytes | None
    moments: bytes | None


@dataclass(frozen=True, slots=True)
class Fetch:
    """Obtain the payload called ``digest``; ``sources`` are worth asking first.

    ``offer`` is set when the payload is a member's contribution, which is checked before it is held.
    """

    digest: bytes
    sources: tuple[int, ...]
    offer: Offer | None = None


@dataclass(frozen=True, slots=True)
class Merge:
    """Aggregate ``offers`` and record the AGGREGATION, naming who is left out and why.

    ``ballot``: of round zero (ballots.py), else 0. ``origin``: the base that the merge starts from,
    where the charter's merges do.
    """

    round: int
    offers: tuple[Offer, ...]
    left_out: tuple[tuple[int, int], ...]
    ballot: int = 0
    origin: bytes | None = None


@dataclass(frozen=True, slots=True)
class Adopt:
    """Record the AGGREGATION of others as the own vote or confirmation: their result is held.

    Only in round zero; docs/wire.md §5.7.
    """

    round: int
    proposal: Proposal
    left_out: tuple[tuple[int, int], ...]
    ballot: int


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Evaluate the round's model on the hospital's own validation patients and record METRICS."""

    round: int
    model: bytes
    moments: bytes | None


@dataclass(frozen=True, slots=True)
class SignClose:
    """Acknowledge what everybody wrote and say goodbye. left: before the last round, for good."""

    round: int
    left: bool = False


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Fail loudly: a round cannot close without members whom the charter requires."""

    round: int
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """Measure what each of ``targets`` does to the loss of a merge, and record an EVALUATION_COMMIT.

    round: the record's, one after what is scored. inputs: what was merged, each with its weight in
    millionths. origin: the base that the merge starts from.
    """

    round: int
    inputs: tuple[tuple[Offer, int], ...]
    targets: tuple[bytes, ...]
    origin: bytes


@dataclass(frozen=True, slots=True)
class OpenScores:
    """Record the EVALUATION_REVEAL that opens the own commit at this place of the log."""

    round: int
    commit_seq: int


@dataclass(frozen=True, slots=True)
class ShowSketch:
    """Project the own updates ``rows`` with an agreed round's seed and record a SKETCH."""

    round: int
    seed: bytes
    rows: tuple[Offer, ...]


@dataclass(frozen=True, slots=True)
class CheckSketch:
    """Project again what somebody's SKETCH shows, as far as payloads are held; refuse a false one."""

    id: bytes
    author: int
    sketch: Sketch


Beside = Score | OpenScores | ShowSketch | CheckSketch
"""Work that runs beside a round's own, and that no round waits for."""
Effect = SignOpen | Train | Fetch | Merge | Adopt | Evaluate | SignClose | GiveUp | Beside
