"""One seed of the scenario `attacks`, fast: real learning tasks and the nodes' own merges; no network, no ledger.

Room: scenarios. Law: what is trained, weighed and merged is what nodes train, weigh and merge: without a
liar it gives the simulated engine's models bit for bit (a test compares the digests).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from ledger.charter import Charter
from ledger.record import Codec
from ledger.weights import weights_micro
from scenarios.engine_simulated import charter_of
from scenarios.judging import Judge
from scenarios.patients import Patients, data_config, split_table
from scenarios.poisoning.poisons import LABEL_FLIP, NONE, POISONS, Seen, flip_labels
from scenarios.spec import ScenarioSpec
from scenarios.spec_table import Setting
from swarm.learning.dataset import SiteData
from swarm.learning.payload import HEADER
from swarm.learning.seeding import derive_seed
from swarm.learning.task import LearningTask
from swarm.protocol.payload import payload_digest

LIARS_SHARE: Final = 0.19
MIXED: Final = "nnm+"
"""Before a rule's name: nearest-neighbour mixing first."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The last model under one attack. auc: on external patients. digests: of every round's result."""

    attack: str
    auc: float
    digests: tuple[str, ...]


def liars_of(seed: int, members: int) -> tuple[int, ...]:
    """Return who lies, drawn by the seed; ascending."""
    random = np.random.Generator(np.random.PCG64([seed, 0x11A5]))
    count = max(round(LIARS_SHARE * members), 1)
    return tuple(sorted(int(one) for one in random.permutation(members)[:count]))


def ruled(spec: ScenarioSpec, rule: str) -> ScenarioSpec:
    """Return the scenario under a rule, "nnm+" before its name for nearest-neighbour mixing."""
    more: dict[str, Setting] = {
        "aggregation.rule": rule.removeprefix(MIXED),
        "aggregation.neighbour_mixing": rule.startswith(MIXED),
    }
    return replace(spec, charter={**spec.charter, **more})


def run_rule(
    spec: ScenarioSpec, patients: Patients, table: Mapping[str, object], attacks: Sequence[str]
) -> list[Ended]:
    """Run one seed under the spec's rule, once an attack. Raises ConfigError."""
    charter = charter_of(spec, table)
    data = [
        split_table(one, data_config(spec, hospital, ()), charter.schema)
        for hospital, one in zip(spec.hospitals, patients.tables, strict=True)
    ]
    if patients.external is None:
        raise ValueError("attacks are judged on patients of hospitals that take no part")
    honest = _tasks(charter, data)
    sums = [task.local_moments() for task in honest] if honest[0].needs_moments else []
    moments = honest[0].merge_moments([(payload_digest(Codec.MOMENTS, one), one) for one in sums])
    classes = len(charter.schema.classes)
    flipped = _tasks(charter, [flip_labels(one, classes) for one in data])
    for task in (*honest, *flipped):
        task.set_moments(moments)
    judge = Judge(charter, patients.external, moments, allow=())
    swarm = _Swarm(charter, honest, flipped, liars_of(spec.seed, len(data)))
    return [swarm.run(attack, judge) for attack in attacks]


def _tasks(charter: Charter, data: Sequence[SiteData]) -> list[LearningTask]:
    return [
        LearningTask(charter, one, allow=(), seed=derive_seed("site", charter.seed, at), threads=1)
        for at, one in enumerate(data)
    ]


@dataclass(frozen=True)
class _Swarm:
    charter: Charter
    honest: Sequence[LearningTask]
    flipped: Sequence[LearningTask]
    liars: Sequence[int]

    def run(self, attack: str, judge: Judge) -> Ended:
        """Train all rounds under one attack."""
        random = np.random.Generator(np.random.PCG64([self.charter.seed, len(attack)]))
        model = self.honest[0].initial()
        digests = []
        for number in range(1, self.charter.rounds.rounds + 1):
            model = self._round(attack, number, model, random)
            digests.append(payload_digest(Codec.FLOAT32, model).hex())
        auc = judge.swarm(model).auc
        return Ended(attack=attack, auc=auc or 0.0, digests=tuple(digests))

    def _round(self, attack: str, number: int, model: bytes, random: np.random.Generator) -> bytes:
        sites = list(self.honest)
        if attack == LABEL_FLIP:
            for liar in self.liars:
                sites[liar] = self.flipped[liar]
        trained = [task.train(model, number) for task in sites]
        payloads = [one.payload for one in trained]
        if attack != NONE:
            base = _values(model)
            updates = {at: _values(one) - base for at, one in enumerate(payloads)}
            others = np.stack([update for at, update in updates.items() if at not in self.liars])
            for liar in self.liars:
                seen = Seen(own=updates[liar], honest=others, liars=len(self.liars), random=random)
                sent = (base + POISONS[attack](seen)).astype("<f4")
                payloads[liar] = model[: HEADER.size] + sent.tobytes()
        weights = weights_micro([one.samples for one in trained], self.charter.aggregation)
        inputs = [
            (payload_digest(Codec.FLOAT32, payload), payload, weight)
            for payload, weight in zip(payloads, weights, strict=True)
        ]
        return self.honest[0].merge(inputs, model)


def _values(payload: bytes) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.frombuffer(payload, dtype="<f4", offset=HEADER.size).astype(np.float64)
