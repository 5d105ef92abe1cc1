"""Which models a finished swarm hands out: the agreed one of a round, or each hospital's own.

Room: scenarios. Law: the charter's stopping rule is the nodes' own (swarm/protocol/stopping.py); a scenario's
`patience` chooses after the run instead, where a charter leaves the choice open.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ledger.bundle import read_bundle
from ledger.charter import Charter
from ledger.frames import read_frames
from ledger.record import MetricId, Record, open_record, parse_envelope
from ledger.roster import Roster
from scenarios.commands import ScenarioError
from scenarios.exchanged import models_by_round
from scenarios.outcome import Merge
from scenarios.results import read_points
from swarm.learning.stopping import RoundLoss, mean_loss, released_round
from swarm.protocol.book import RoundBook
from swarm.protocol.stopping import Stopping


@dataclass(frozen=True, kw_only=True)
class Released:
    """What is handed out. number: of the round (the newest, where each hospital has its own model).

    last: the round after which training ended. models: author → payload. rounds: round → author → payload, of agreed rounds, or of all where nothing
    is agreed.
    """

    number: int
    last: int
    models: dict[int, bytes]
    rounds: dict[int, dict[int, bytes]]


def release(
    charter: Charter,
    logs: Mapping[int, Sequence[Record]],
    merges: Sequence[Merge],
    payloads: Mapping[bytes, bytes],
    *,
    bundles: Sequence[Path],
    roster: Roster,
    patience: int,
) -> Released:
    """Choose. payloads: digest → model. Raises ScenarioError when there is none."""
    rounds = {
        number: {author: payloads[one] for author, one in by.items() if one in payloads}
        for number, by in models_by_round(logs).items()
    }
    if charter.aggregation.is_gossip:
        newest = {author: by[author] for _, by in sorted(rounds.items()) for author in by}
        if len(newest) < len(logs):
            raise ScenarioError("a hospital ended without a model")
        last = charter.rounds.rounds
        return Released(number=max(rounds), last=last, models=newest, rounds=rounds)
    agreed = {m.round: rounds[m.round] for m in merges if m.agreed and rounds.get(m.round)}
    if not agreed:
        raise ScenarioError("no round was agreed")
    number = max(agreed)
    last = charter.rounds.rounds
    if charter.stopping.patience:
        stopping = stopping_of(charter, bundles, roster)
        best, last = stopping.released(), stopping.last_round()
        number = best.round if best else number
    elif patience:
        number = _best(logs, sorted(agreed), patience=patience)
    model = next(iter(agreed[number].values()))
    return Released(number=number, last=last, models=dict.fromkeys(logs, model), rounds=agreed)


def stopping_of(charter: Charter, bundles: Sequence[Path], roster: Roster) -> Stopping:
    """Fold the bundles' own logs as every node folds them."""
    book = RoundBook(roster)
    for own, directory in enumerate(bundles):
        for (author, _), path in sorted(read_bundle(directory).logs.items()):
            if author == own:
                for envelope in read_frames(path):
                    book.learn(open_record(parse_envelope(envelope), roster=roster))
    return Stopping(book, charter.stopping, rounds=charter.rounds.rounds)


def _best(logs: Mapping[int, Sequence[Record]], agreed: Sequence[int], *, patience: int) -> int:
    """Choose among agreed rounds by what all METRICS records say."""
    losses: dict[int, list[tuple[float, int]]] = {number: [] for number in agreed}
    for log in logs.values():
        for point in read_points(log, MetricId.LOG_LOSS):
            if point.round in losses:
                losses[point.round].append((point.measured.value, point.measured.count))
    means: dict[int, RoundLoss] = {}
    for number, values in losses.items():
        mean = mean_loss(values)
        if mean is not None:
            means[number] = mean
    return released_round(means, patience=patience) if means else agreed[-1]
