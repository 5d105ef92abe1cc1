"""One seed of one case, fast: real learners, real records, the auditor's signals; no network, no clock.

Room: scenarios. Law: it calls the code that hospitals and auditors call (learning task, projection,
scoring, records, reputation, signals), so what it finds is what they would. What it leaves out is in
docs/free-riders.md §6; the simulated engine runs the whole service on the same clinics as a check.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ledger.bodies import Score
from ledger.charter import Charter, load_charter
from ledger.insight import look
from ledger.keys import Signer, derive
from ledger.record import RecordId
from ledger.signals import MemberSignals
from ledger.sketch import seed_of
from ledger.weights import weights_micro
from node.charter_edit import CharterDraft, assemble, member_block
from scenarios.attacks import Attack, Careless, FreeRider, Leak, invented_scores, spoil
from scenarios.judging import quality
from scenarios.riders.book import Book
from scenarios.riders.cases import Cast
from scenarios.riders.clinics import CLASSES, FEATURES, LABEL, Clinics
from scenarios.simulation.swarm import identity_of
from swarm.learning import metrics
from swarm.learning.payload import HEADER
from swarm.learning.seeding import derive_seed
from swarm.learning.task import LearningTask
from swarm.protocol.payload import payload_digest
from swarm.scoring.evaluation import Contribution, leave_one_out
from swarm.scoring.projection import Projection, project

ROUNDS: Final = 20
STEPS: Final = 5
ROWS_BACK: Final = 2
"""Earlier updates that a SKETCH shows beside the round's own: those that a node keeps by default."""
LIE_MICRO: Final = 1_000_000_000
MICRO: Final = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What one run left: everybody's signals and reputation, and the model's AUC after each round."""

    cast: Cast
    signals: tuple[MemberSignals, ...]
    reputation_micro: Mapping[int, int]
    auc_by_round: tuple[float, ...]


def charter_of(
    seed: int, members: int, *, rounds: int = ROUNDS, steps: int = STEPS,
    more: Mapping[str, float] | None = None,
) -> Charter:  # fmt: skip
    """Return the clinics' charter, with more settings. Raises ConfigError."""
    features = [{"name": name, "type": "number"} for name in FEATURES]
    draft = CharterDraft(
        federation="Clinics", model="logistic", rounds=rounds,
        data={
            "label": LABEL, "head": "multiclass", "classes": [str(one) for one in range(CLASSES)],
            "features": features,
        },
        settings={
            "seed": seed, "training.local_steps": steps, "training.batch_size": 32,
            "training.learning_rate": 0.05, "training.momentum": 0.9, "reputation.mode": "score", "reputation.evaluators_max": max(members, 3), **(more or {}),
        },
    )  # fmt: skip
    blocks = [_block(seed, at) for at in range(members)]
    return load_charter("\n".join([assemble(draft), *blocks]).encode())


def _block(seed: int, at: int) -> str:
    identity = identity_of(seed, at)
    return member_block(
        {
            "name": f"Clinic {at + 1:02}", "role": "hospital", "addresses": (),
            "ledger_key": identity.ledger().public_key.hex(),
            "witness_key": identity.witness().public_key.hex(),
            "admin_key": Signer(derive(identity.seed, "admin")).public_key.hex(),
            "network_key": identity.network_key.hex(),
        }
    )  # fmt: skip


def run_case(seed: int, cast: Cast, clinics: Clinics, *, rounds: int = ROUNDS) -> Ran:
    """Run one seed of one case to its end."""
    charter = charter_of(seed, cast.members, rounds=rounds)
    lazy = charter_of(seed, cast.members, rounds=rounds, steps=1)
    tasks, learners = make_learners(charter, lazy, cast, clinics, seed)
    payloads = [task.local_moments() for task in tasks]
    merged = tasks[0].merge_moments([(payload_digest(2, one), one) for one in payloads])
    for task in tasks:
        task.set_moments(merged)
    signers = [identity_of(seed, at).ledger() for at in range(cast.members)]
    run = _Run(Book(charter, signers), tasks, learners, cast, seed)
    model = tasks[0].initial()
    areas: list[float] = []
    for number in range(1, rounds + 1):
        model = run.round(number, model)
        judged = quality([(tasks[cast.honest[0]], clinics.test)], [model], charter.schema.head)
        areas.append(judged.auc or 0.0)
    run.score_last(rounds)
    return _judge(run.book, cast, tuple(areas))


def _judge(book: Book, cast: Cast, auc_by_round: tuple[float, ...]) -> Ran:
    """From here on only records speak."""
    found = look(book.records, book.roster, book.charter)
    return Ran(
        cast=cast, signals=found.signals,
        reputation_micro=found.reputation.state.values_micro(), auc_by_round=auc_by_round,
    )  # fmt: skip


def make_learners(
    charter: Charter, lazy: Charter, cast: Cast, clinics: Clinics, seed: int
) -> tuple[list[LearningTask], list[Any]]:
    """Every member's task, and what its node is given as its learner."""
    leak = Leak()
    tasks, learners = [], []
    for at, data in enumerate(clinics.sites):
        riding = cast.riders.get(at)
        random = np.random.Generator(np.random.PCG64([seed, at]))
        own = data if riding is None else spoil(data, riding, random)
        is_lazy = riding is not None and riding.attack is Attack.LAZY
        task = LearningTask(
            lazy if is_lazy else charter, own, allow=(), seed=derive_seed("site", seed, at), threads=1
        )  # fmt: skip
        learner: Any = task
        if riding is not None:
            learner = FreeRider(task, riding, samples=_rows(data), random=random, leak=leak)
        elif at == cast.leaky:
            learner = Careless(task, leak)
        tasks.append(task)
        learners.append(learner)
    return tasks, learners


class _Run:
    """The rounds of one run."""

    def __init__(
        self,
        book: Book,
        tasks: Sequence[LearningTask],
        learners: Sequence[Any],
        cast: Cast,
        seed: int,
    ) -> None:
        self.book = book
        self._tasks = tasks
        self._learners = learners
        self._cast = cast
        self._order = np.random.Generator(np.random.PCG64([seed, 1]))
        self._updates: dict[int, list[tuple[RecordId, Any, Any]]] = {}
        self._unscored: list[tuple[int, RecordId, Contribution]] = []

    def round(self, number: int, model: bytes) -> bytes:
        """Contribute, merge, sketch and score; returns the next model."""
        self._score(number)
        count = len(self._learners)
        arrival = [int(one) for one in self._order.permutation(count)]
        arrival.sort(key=lambda one: one in self._cast.riders)  # riders wait for what they can take
        offers, trained = {}, {}
        for at in arrival:
            trained[at] = self._learners[at].train(model, number)
            offers[at] = self.book.contribute(at, number, trained[at], model)
        inputs = _weighted(self.book, offers, trained)
        for rider in self._cast.riders:
            self._learners[rider].merge(inputs)  # it keeps what it fetched for it
        result: bytes = self._tasks[self._cast.honest[0]].merge(inputs)
        for at in range(self.book.roster.q):  # all would say the same; a quorum agrees
            self.book.aggregate(at, number, offers, result)
        self._sketch(number, model, offers, trained)
        self._unscored = [
            (at, offers[at].id, Contribution(digest=digest, parameters=_values(payload), weight_micro=weight))
            for at, (digest, payload, weight) in zip(sorted(offers), inputs, strict=True)
        ]  # fmt: skip
        return result

    def score_last(self, rounds: int) -> None:
        """Score the last round's contributions, one round later as all."""
        self._score(rounds + 1)

    def _sketch(self, number: int, model: bytes, offers: Any, trained: Any) -> None:
        dimensions = self.book.charter.reputation.sketch_dimensions
        seed = seed_of(self.book.charter.net, number, [one.id for one in offers.values()])
        base = _values(model)
        for at in sorted(offers):
            kept = self._updates.setdefault(at, [])
            kept.append((offers[at].id, _values(trained[at].payload), base))
            del kept[: -1 - ROWS_BACK]
            rows: dict[RecordId, Projection] = {
                id_: project(update, origin, seed=seed, dimensions=dimensions)
                for id_, update, origin in kept
            }
            self.book.sketch(at, number, seed, rows)

    def _score(self, number: int) -> None:
        """Commit to what each evaluator measures of the round before, then open it."""
        if not self._unscored:
            return
        spoken = {at: self._measured(at) for at in range(len(self._tasks))}
        commits = {at: self.book.commit(at, number, scores) for at, scores in spoken.items()}
        for at, scores in spoken.items():
            self.book.reveal(at, number, commits[at], scores)

    def _measured(self, evaluator: int) -> list[Score]:
        task = self._tasks[evaluator]
        contributions = [one for *_, one in self._unscored]
        losses = leave_one_out(task.module, contributions, task.patients, task.head)
        together = metrics.to_micro(losses.together)
        changes = {
            member: metrics.to_micro(without) - together
            for (member, *_), without in zip(self._unscored, losses.without, strict=True)
            if member != evaluator
        }
        if evaluator in self._cast.colluders and self._cast.framed is not None:
            changes = invented_scores(
                changes, friends=self._cast.colluders, framed=self._cast.framed, size=LIE_MICRO
            )
        ids = {member: id_ for member, id_, _ in self._unscored}
        scores = [
            Score(
                target_id=ids[member], loss_with_micro=max(together, -change),
                loss_without_micro=max(together, -change) + change, count=losses.count,
            )
            for member, change in changes.items()
        ]  # fmt: skip
        return sorted(scores, key=lambda score: score.target_id)


def _weighted(book: Book, offers: Any, trained: Any) -> list[tuple[bytes, bytes, int]]:
    members = sorted(offers)
    weights = weights_micro([trained[at].samples for at in members], book.charter.aggregation)
    return [
        (offers[at].value.body.update_digest, trained[at].payload, weight)
        for at, weight in zip(members, weights, strict=True)
    ]


def _values(payload: bytes) -> Any:
    return np.frombuffer(payload, dtype="<f4", offset=HEADER.size)


def _rows(data: Any) -> int:
    return int(data.train.rows)
