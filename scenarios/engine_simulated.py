"""One seed of a scenario in one process: real learning and real ledgers, virtual time, memory network.

Room: scenarios. Law: hospitals run the same service code as in a hospital (law 9) and hold the same rows
with the same seeds as real nodes of the same scenario, so both engines agree on the same models, bit
for bit. What is judged comes from the exported bundles, as with real nodes; only the models themselves
are noted as the hospitals evaluate them.
"""

import functools
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, final

import trio

from ledger import keys
from ledger.bundle import export_bundle
from ledger.charter import Charter, load_charter
from ledger.keys import Signer, derive
from ledger.record import Codec, GroupValue, MetricValue, Record
from ledger.store import Store
from node.charter_edit import CharterDraft, assemble, member_block
from node.network_memory import MemoryHub
from node.service import Service
from scenarios.audit import audit
from scenarios.baselines import level_of
from scenarios.commands import ScenarioError
from scenarios.exchanged import Exchanged, exchanged, seconds_by_round
from scenarios.judging import (
    External,
    Judge,
    Quality,
    calibration_gap,
    judge_all,
    quality,
)
from scenarios.outcome import Outcome
from scenarios.pace import Paced
from scenarios.patients import Patients, data_config, split_table
from scenarios.releasing import release
from scenarios.results import Header, build_outcome, read_own_logs, read_roster
from scenarios.simulation.swarm import Calm, SimulatedSite, Swarm, identity_of
from scenarios.spec import ScenarioSpec
from scenarios.view import NodeView
from swarm.learning.baselines import Baseline, train_alone, train_pooled
from swarm.learning.dataset import SiteData
from swarm.learning.payload import HEADER, payload_bytes
from swarm.learning.seeding import derive_seed
from swarm.learning.strategy import strategy_of
from swarm.learning.task import LearningTask
from swarm.learning.trained import Trained
from swarm.learning.training_state import NO_MEMORY, Arrays
from swarm.protocol.payload import payload_digest

DEADLINE_MIN_S: Final = 120.0
"""Virtual seconds a round waits at least: nobody is ever late, so every merge has every hospital."""
LINGER_S: Final = 20.0
SYNC_INTERVAL_S: Final = 10.0
VIRTUAL_S_MAX: Final = 100_000.0
SIGNATURES_KEPT: Final = 1 << 15
RAM_DISK: Final = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
LOOK_S: Final = 1.0
FLOAT32_BYTES: Final = 4

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class SeedJob:
    """One seed of one variant. spec: with that seed. directory: for charter and bundles, new."""

    spec: ScenarioSpec
    variant: str
    directory: Path
    patients: Patients
    table: dict[str, object]
    """The charter's [data] table, as far as the scenario does not set it."""


@dataclass(frozen=True, kw_only=True)
class SeedRun:
    """What one seed gave.

    released: the round whose model is handed out. test_*: on all hospitals' validation patients
    together. bytes_payloads: of all payloads that members fetched from each other; bytes_float32: what
    these take as bare float32 vectors.
    """

    seed: int
    outcome: Outcome
    released: int
    test_swarm: Quality
    test_pooled: Quality
    external: External | None
    gaps: tuple[float | None, ...]
    """Per hospital: judging.calibration_gap of the model that it uses."""
    bytes_payloads: int
    bytes_float32: int
    virtual_s: float
    digests: dict[int, str]
    """Round → digest of the agreed result, hexadecimal."""


@dataclass
class Noted:
    """Models and moments that the hospitals of one swarm evaluated, each once."""

    moments: bytes | None = None
    models: dict[bytes, bytes] = field(default_factory=dict)


@final
class NotedLearner:
    """A hospital's learning task; notes the models that pass through it."""

    def __init__(self, task: LearningTask, noted: Noted) -> None:
        self._task = task
        self._noted = noted
        self.initial = task.initial
        self.local_moments = task.local_moments
        self.merge_moments = task.merge_moments
        self.check = task.check
        self.check_result = task.check_result
        self.update_bytes = task.update_bytes
        self.samples = task.samples

    def set_moments(self, merged: bytes) -> None:
        """Note the federation's moments."""
        self._noted.moments = merged
        self._task.set_moments(merged)

    def train(
        self,
        base: bytes,
        round: int,  # noqa: A002 - the protocol's word
        memory: Arrays = NO_MEMORY,
        left_out: bool = False,  # noqa: FBT001, FBT002 - as the protocol has it
    ) -> Trained:
        """Train."""
        return self._task.train(base, round, memory, left_out)

    def merge(
        self, inputs: Sequence[tuple[bytes, bytes, int]], origin: bytes | None = None
    ) -> bytes:
        """Note the result."""
        model = self._task.merge(inputs, origin)
        self._noted.models[payload_digest(Codec.FLOAT32, model)] = model
        return model

    def evaluate(self, model: bytes, memory: Arrays) -> tuple[MetricValue, ...]:
        """Evaluate."""
        return self._task.evaluate(model, memory)

    def evaluate_groups(self, model: bytes, memory: Arrays) -> tuple[GroupValue, ...]:
        """Evaluate subgroups."""
        return self._task.evaluate_groups(model, memory)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ran:
    hub: MemoryHub
    virtual_s: float


def run_seed(job: SeedJob, report: Report) -> SeedRun:
    """Run one seed to its end. report: takes one line when something has been reached.

    Raises ConfigError, or ScenarioError when nothing was agreed.
    """
    started_s = time.monotonic()
    spec = job.spec
    charter = charter_of(spec, job.table)
    data = [
        split_table(table, data_config(spec, hospital, (Path(hospital.folder),)), charter.schema)
        for hospital, table in zip(spec.hospitals, job.patients.tables, strict=True)
    ]
    noted = Noted()
    tasks = [
        LearningTask(charter, one, allow=(), seed=derive_seed("site", charter.seed, at), threads=1)
        for at, one in enumerate(data)
    ]
    job.directory.mkdir(parents=True)
    charter_path = job.directory / "charter.toml"
    charter_path.write_bytes(charter.source_bytes)
    with _stores() as stores:
        ran = _simulate(spec, charter, tasks, noted, stores, report)
        folders = [hospital.folder for hospital in spec.hospitals]
        bundles = _export(charter, folders, stores, job.directory)
    views = _views(ran, [hospital.name for hospital in spec.hospitals])
    report("auditing")
    ledger = audit(bundles, charter=charter_path, charter_digest=charter.digest_hex)
    roster = read_roster(bundles, charter)
    logs = read_own_logs(bundles, roster)
    report("alone and pooled")
    alone, pooled = _baselines(charter, data, charter.stopping.patience or spec.patience)
    levels = {
        at: (level_of(alone[at].evaluate(one)), level_of(pooled.evaluate(one)))
        for at, one in enumerate(data)
    }
    header = Header(scenario=spec.name, title=spec.title, seed=spec.seed, wall_s=0.0)
    outcome = build_outcome(header, charter, logs, ledger, levels, views, roster)
    released = release(
        charter, logs, outcome.merges, noted.models,
        bundles=bundles, roster=roster, patience=spec.patience,
    )  # fmt: skip
    is_gossip = charter.aggregation.is_gossip
    outcome = outcome if is_gossip else outcome.releasing(released.number, last=released.last)
    head = charter.schema.head
    validation = [one.validation for one in data]
    external = None
    if job.patients.external is not None:
        judge = Judge(charter, job.patients.external, noted.moments, allow=())
        external = judge_all(judge, alone, pooled, released, seconds_by_round(logs))
    models = [released.models[at] for at in range(len(tasks))]
    moved = _moved(charter, logs, tasks[0])
    return SeedRun(
        seed=spec.seed,
        outcome=replace(outcome, wall_s=time.monotonic() - started_s),
        released=released.number,
        test_swarm=quality(list(zip(tasks, validation, strict=True)), models, head),
        test_pooled=quality(
            [(pooled.task, one) for one in validation], [pooled.model] * len(tasks), head
        ),
        external=external,
        gaps=tuple(
            calibration_gap(task, one, head) for task, one in zip(tasks, models, strict=True)
        ),
        bytes_payloads=moved.sent,
        bytes_float32=moved.float32,
        virtual_s=ran.virtual_s,
        digests={m.round: next(iter(m.digests.values())) for m in outcome.merges if m.agreed},
    )


def charter_of(spec: ScenarioSpec, table: Mapping[str, object]) -> Charter:
    """Return the federation's genesis with simulated members. Raises ConfigError."""
    settings = {
        "seed": spec.seed,
        **spec.charter,
        "rounds.deadline_min_s": DEADLINE_MIN_S,
        "rounds.deadline_max_s": 2 * DEADLINE_MIN_S,
        "rounds.start_wait_s": DEADLINE_MIN_S,
    }
    draft = CharterDraft(
        federation=spec.federation,
        model=spec.model,
        data=table,
        rounds=spec.rounds,
        settings=settings,
    )
    blocks = []
    for at, hospital in enumerate(spec.hospitals):
        identity = identity_of(spec.seed, at)
        admin = Signer(derive(identity.seed, "admin"))
        blocks.append(
            member_block(
                {
                    "name": hospital.name,
                    "role": "hospital",
                    "addresses": (),
                    "ledger_key": identity.ledger().public_key.hex(),
                    "witness_key": identity.witness().public_key.hex(),
                    "admin_key": admin.public_key.hex(),
                    "network_key": identity.network_key.hex(),
                }
            )
        )
    return load_charter("\n".join([assemble(draft), *blocks]).encode())


@contextmanager
def signatures_once() -> Iterator[None]:
    """Verify each signature once in this process, not once for each simulated hospital.

    Whether a signature is a key's is a pure function of its bytes, so nobody notices but the clock.
    """
    real = keys.opens
    keys.opens = functools.lru_cache(maxsize=SIGNATURES_KEPT)(real)
    try:
        yield
    finally:
        keys.opens = real


def _simulate(
    spec: ScenarioSpec,
    charter: Charter,
    tasks: Sequence[LearningTask],
    noted: Noted,
    folder: Path,
    report: Report,
) -> _Ran:
    seed = charter.seed
    sites = [
        SimulatedSite(
            identity=identity_of(seed, at), learner=functools.partial(NotedLearner, task, noted)
        )
        for at, task in enumerate(tasks)
    ]
    hub = MemoryHub(seed=seed, conditions=None)
    calm = Calm(hub, folder)
    around = calm if spec.pace is None else Paced(calm, spec.pace, len(sites))
    swarm = Swarm(
        charter, sites, folder, hub, seed, around,
        linger_s=LINGER_S, sync_interval_s=SYNC_INTERVAL_S,
    )  # fmt: skip
    with signatures_once():
        virtual_s = swarm.run_to_end(
            functools.partial(_watch, rounds=charter.rounds.rounds, report=report),
            virtual_s_max=VIRTUAL_S_MAX,
        )
    if swarm.failures:
        raise ScenarioError(f"seed {seed}: {'; '.join(swarm.failures)}")
    return _Ran(hub=hub, virtual_s=virtual_s)


async def _watch(swarm: Swarm, *, rounds: int, report: Report) -> None:
    """Tell when everybody has agreed on one more round."""
    told = 0
    while told < rounds and not all(one.is_set() for one in swarm.ended.values()):
        await trio.sleep(LOOK_S)
        agreed = [_reached(one) for one in swarm.services.values()]
        if len(agreed) == len(swarm.sites) and min(agreed) > told:
            told = min(agreed)
            report(f"round {told} of {rounds} done")


def _reached(service: Service) -> int:
    """The newest round that is agreed, or that this hospital has merged where nothing is agreed."""
    if service.charter.aggregation.is_gossip:
        merge = service.book.latest_merge(service.own)
        return merge[0] if merge else 0
    return max(service.book.agreed_rounds(), default=0)


def _views(ran: _Ran, names: Sequence[str]) -> list[NodeView]:
    traffic = [ran.hub._networks[at].traffic() for at in range(len(names))]  # noqa: SLF001 - read only
    return [
        NodeView(name=name, bytes_sent=one.bytes_sent, bytes_received=one.bytes_received)
        for name, one in zip(names, traffic, strict=True)
    ]


def _export(charter: Charter, folders: Sequence[str], stores: Path, directory: Path) -> list[Path]:
    bundles = []
    (directory / "bundles").mkdir()
    for at, folder in enumerate(folders):
        with Store.open(stores / f"{at}.db", read_only=True) as store:
            target = directory / "bundles" / folder
            bundles.append(export_bundle(store, charter.source_bytes, target))
    return bundles


def _baselines(
    charter: Charter, data: Sequence[SiteData], patience: int
) -> tuple[list[Baseline], Baseline]:
    """Train each hospital alone, and all together in one place, from the seeds of real runs."""
    alone = [
        train_alone(charter, one, seed=derive_seed("site", charter.seed, at), patience=patience)
        for at, one in enumerate(data)
    ]
    seed = derive_seed("pooled", charter.seed)
    return alone, train_pooled(charter, data, seed=seed, patience=patience)


def _moved(charter: Charter, logs: Mapping[int, Sequence[Record]], task: LearningTask) -> Exchanged:
    strategy = strategy_of(charter)
    result = len(task.initial())
    count = (result - HEADER.size) // FLOAT32_BYTES // strategy.state_vectors
    update = payload_bytes(Codec.FLOAT32, strategy.update_length(count))
    return exchanged(logs, update_float32=update, result_float32=result)


@contextmanager
def _stores() -> Iterator[Path]:
    """Yield a folder in memory where there is one: a simulated disk need not survive."""
    place = RAM_DISK if RAM_DISK.is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="swarm-simulated-", dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
