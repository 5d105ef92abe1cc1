"""One seed of a scenario in one process: real learning and real ledgers, virtual time, memory network.

Room: scenarios. Law: hospitals run the same service code as in a hospital (law 9) and hold the same rows
with the same seeds as real nodes of the same scenario, so both engines agree on the same models, bit
for bit. What is judged (seed_run.py) comes from the exported bundles, as with real nodes; only the models
themselves are noted as the hospitals evaluate them.
"""

import functools
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

import trio

from ledger import keys
from ledger.bundle import export_bundle
from ledger.charter import Charter, load_charter
from ledger.keys import Signer, derive
from ledger.record import Codec
from ledger.store import Store
from node.charter_edit import CharterDraft, assemble, member_block
from node.learner_around import LearnerAround
from node.network import Traffic
from node.network_memory import MemoryHub
from node.service import Service
from scenarios.commands import ScenarioError
from scenarios.pace import Paced
from scenarios.patients import Patients, data_config, split_table
from scenarios.seed_run import Finished, Report, SeedRun, judge
from scenarios.simulation.swarm import Calm, SimulatedSite, Swarm, identity_of
from scenarios.spec import ScenarioSpec
from scenarios.view import NodeView
from swarm.learning.seeding import derive_seed
from swarm.learning.task import LearningTask
from swarm.protocol.payload import payload_digest
from swarm.scoring.judge import Judge

DEADLINE_MIN_S: Final = 120.0
"""Virtual seconds a round waits at least: nobody is ever late, so every merge has every hospital."""
LINGER_S: Final = 20.0
SYNC_INTERVAL_S: Final = 10.0
VIRTUAL_S_MAX: Final = 100_000.0
SIGNATURES_KEPT: Final = 1 << 15
RAM_DISK: Final = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
LOOK_S: Final = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class SeedJob:
    """One seed of one variant. spec: with that seed. directory: for charter and bundles, new."""

    spec: ScenarioSpec
    variant: str
    directory: Path
    patients: Patients
    table: dict[str, object]
    """The charter's [data] table, as far as the scenario does not set it."""


@dataclass
class Noted:
    """Models and moments that the hospitals of one swarm evaluated, each once."""

    moments: bytes | None = None
    models: dict[bytes, bytes] = field(default_factory=dict)


@final
class NotedLearner(LearnerAround[LearningTask]):
    """A hospital's learning task; notes the models that pass through it."""

    def __init__(self, task: LearningTask, noted: Noted) -> None:
        super().__init__(task)
        self._noted = noted

    def set_moments(self, merged: bytes) -> None:
        """Note the federation's moments."""
        self._noted.moments = merged
        self.inner.set_moments(merged)

    def merge(self, inputs: Sequence[tuple[bytes, bytes, int]], origin: bytes | None) -> bytes:
        """Note the result."""
        model = self.inner.merge(inputs, origin)
        self._noted.models[payload_digest(Codec.FLOAT32, model)] = model
        return model


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ran:
    traffic: Sequence[Traffic]
    """Per member."""
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
    return judge(
        spec,
        Finished(
            charter=charter,
            charter_path=charter_path,
            bundles=bundles,
            data=data,
            tasks=tasks,
            views=_views(ran, [hospital.name for hospital in spec.hospitals]),
            models=noted.models,
            moments=noted.moments,
            external=job.patients.external,
            virtual_s=ran.virtual_s,
        ),
        report,
        started_s=started_s,
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
            identity=identity_of(seed, at),
            learner=functools.partial(NotedLearner, task, noted),
            judge=None
            if charter.reputation.mode == "off"
            else functools.partial(_judge_of, task, charter.reputation.sketch_dimensions),
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
    traffic = [swarm.services[at].network.traffic() for at in range(len(sites))]
    return _Ran(traffic=traffic, virtual_s=virtual_s)


def _judge_of(task: LearningTask, dimensions: int, _: object) -> Judge:
    return Judge(task, dimensions=dimensions)


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
    return [
        NodeView(name=name, bytes_sent=one.bytes_sent, bytes_received=one.bytes_received)
        for name, one in zip(names, ran.traffic, strict=True)
    ]


def _export(charter: Charter, folders: Sequence[str], stores: Path, directory: Path) -> list[Path]:
    bundles = []
    (directory / "bundles").mkdir()
    for at, folder in enumerate(folders):
        with Store.open(stores / f"{at}.db", read_only=True) as store:
            target = directory / "bundles" / folder
            bundles.append(export_bundle(store, charter.source_bytes, target))
    return bundles


@contextmanager
def _stores() -> Iterator[Path]:
    """Yield a folder in memory where there is one: a simulated disk need not survive."""
    place = RAM_DISK if RAM_DISK.is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="swarm-simulated-", dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
