"""One seed of one case as whole services: rounds, network, ledger and scoring as in hospitals, virtual time.

Room: scenarios. Law: riders are the same learners as in the fast engine, behind real nodes; what is
judged are the records that an honest node's store holds at the end.
"""

import functools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final

from ledger.insight import look
from ledger.record import Aggregation, Codec, Record, Rule, Verified, open_record
from ledger.roster import Roster
from ledger.store import Store
from node.network_memory import MemoryHub
from scenarios.attacks import invented_scores
from scenarios.commands import ScenarioError
from scenarios.engine_simulated import signatures_once
from scenarios.judging import quality
from scenarios.riders.cases import Cast
from scenarios.riders.clinics import Clinics
from scenarios.riders.engine import LIE_MICRO, MICRO, ROUNDS, Ran, charter_of, make_learners
from scenarios.simulation.swarm import Calm, SimulatedSite, Swarm, identity_of
from swarm.learning.trained import Trained
from swarm.protocol.payload import payload_digest
from swarm.scoring.evaluation import Losses
from swarm.scoring.judge import Judge

LINGER_S: Final = 20.0
SYNC_INTERVAL_S: Final = 10.0
DEADLINE_S: Final = 120.0
VIRTUAL_S_MAX: Final = 100_000.0


@final
class Noting:
    """A hospital's learner; notes whose update has which digest, as its ledger says, and each merge."""

    def __init__(
        self, inner: Any, member: int, authors: dict[bytes, int], models: dict[bytes, bytes]
    ) -> None:
        self._inner = inner
        self._member = member
        self._authors = authors
        self._models = models

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def train(self, base: bytes, round: int, *rest: Any) -> Trained:  # noqa: A002 - the protocol's word
        """Train, and note the digest."""
        trained: Trained = self._inner.train(base, round, *rest)
        self._authors[payload_digest(Codec.FLOAT32, trained.payload)] = self._member
        return trained

    def merge(self, inputs: Sequence[tuple[bytes, bytes, int]], *rest: Any) -> bytes:
        """Merge, and note the model."""
        model: bytes = self._inner.merge(inputs, *rest)
        self._models[payload_digest(Codec.FLOAT32, model)] = model
        return model


@final
class LyingJudge:
    """A colluder's judge: measures like everybody, and says what suits its friends."""

    def __init__(self, inner: Judge, cast: Cast, authors: Mapping[bytes, int]) -> None:
        self._inner = inner
        self._cast = cast
        self._authors = authors
        self.is_apart = inner.is_apart
        self.sketch = inner.sketch

    def score(self, inputs: Sequence[tuple[bytes, bytes, int]], origin: bytes) -> Losses:
        """Praise friends, blame the framed one."""
        losses = self._inner.score(inputs, origin)
        members = [self._authors.get(digest, -1) for digest, _, _ in inputs]
        changes = {
            member: round((without - losses.together) * MICRO)
            for member, without in zip(members, losses.without, strict=True)
        }
        framed = -1 if self._cast.framed is None else self._cast.framed
        said = invented_scores(changes, friends=self._cast.colluders, framed=framed, size=LIE_MICRO)
        together = max(losses.together, LIE_MICRO / MICRO)
        without = tuple(together + said[member] / MICRO for member in members)
        return Losses(together=together, without=without, count=losses.count)


def run_service(seed: int, cast: Cast, clinics: Clinics, *, rounds: int = ROUNDS) -> Ran:
    """Run one seed of one case to its end. Raises ScenarioError if a node fails."""
    deadlines = {
        "rounds.deadline_min_s": DEADLINE_S, "rounds.deadline_max_s": 2 * DEADLINE_S,
        "rounds.start_wait_s": DEADLINE_S,
    }  # fmt: skip
    charter = charter_of(seed, cast.members, rounds=rounds, more=deadlines)
    lazy = charter_of(seed, cast.members, rounds=rounds, steps=1)
    tasks, learners = make_learners(charter, lazy, cast, clinics, seed)
    authors: dict[bytes, int] = {}
    models: dict[bytes, bytes] = {}

    def judge_of(at: int, _: Any) -> Any:
        judge = Judge(tasks[at], dimensions=charter.reputation.sketch_dimensions)
        return LyingJudge(judge, cast, authors) if at in cast.colluders else judge

    def learner_of(at: int) -> Any:
        return Noting(learners[at], at, authors, models)

    sites = [
        SimulatedSite(
            identity=identity_of(seed, at),
            learner=functools.partial(learner_of, at),
            judge=functools.partial(judge_of, at),
        )
        for at in range(cast.members)
    ]
    with tempfile.TemporaryDirectory(prefix="swarm-riders-") as name, signatures_once():
        folder = Path(name)
        hub = MemoryHub(seed=seed, conditions=None)
        swarm = Swarm(
            charter, sites, folder, hub, seed, Calm(hub, folder),
            linger_s=LINGER_S, sync_interval_s=SYNC_INTERVAL_S,
        )  # fmt: skip
        swarm.run_to_end(None, virtual_s_max=VIRTUAL_S_MAX)
        if swarm.failures:
            raise ScenarioError(f"seed {seed}: {'; '.join(swarm.failures)}")
        roster = Roster.from_charter(charter)
        with Store.open(folder / f"{cast.honest[0]}.db", read_only=True) as store:
            records = [open_record(signed, roster=roster) for signed in store.records()]
    found = look(records, roster, charter)
    agreed = _models(records, cast.honest[0], models)
    task = tasks[cast.honest[0]]
    areas = [quality([(task, clinics.test)], [model], task.head).auc or 0.0 for model in agreed]
    return Ran(
        cast=cast, signals=found.signals,
        reputation_micro=found.reputation.state.values_micro(), auc_by_round=tuple(areas),
    )  # fmt: skip


def _models(
    records: Sequence[Verified[Record]], author: int, models: Mapping[bytes, bytes]
) -> list[bytes]:
    """The models that one member recorded as results, in order of rounds."""
    results = {
        one.value.round: one.value.body.result_digest
        for one in records
        if one.value.author == author
        and isinstance(one.value.body, Aggregation)
        and one.value.body.rule != Rule.MOMENTS
    }
    return [models[digest] for _, digest in sorted(results.items())]
