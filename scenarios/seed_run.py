"""What one seed gave, whichever engine ran it: audited from its bundles, judged with its models.

Room: scenarios. Law: alone, swarm and pooled are put to the same patients; what members say of themselves is
not asked, but for the traffic that they counted.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ledger.charter import Charter
from ledger.record import Codec, Record
from scenarios.audit import audit
from scenarios.baselines import level_of, train_baselines
from scenarios.exchanged import Exchanged, exchanged, seconds_by_round
from scenarios.judging import (
    NOT_JUDGED,
    External,
    Judge,
    Quality,
    calibration_gap,
    first_rounds,
    judge_all,
    quality,
)
from scenarios.outcome import Outcome
from scenarios.releasing import release
from scenarios.results import Header, build_outcome, read_own_logs, read_roster
from scenarios.spec import ScenarioSpec
from scenarios.view import NodeView
from swarm.learning.dataset import SiteData, Table
from swarm.learning.payload import HEADER, payload_bytes
from swarm.learning.strategy import strategy_of
from swarm.learning.task import LearningTask

FLOAT32_BYTES: Final = 4

Report = Callable[[str], None]
"""Takes one line when something has been reached."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Finished:
    """What a swarm that has ended leaves. Sequences are in roster order.

    tasks: with which the hospitals' rows are scored. models: digest → result, of at least those that are
    handed out and, with ``external``, of every round. virtual_s: virtual or real seconds it took.
    """

    charter: Charter
    charter_path: Path
    bundles: Sequence[Path]
    data: Sequence[SiteData]
    tasks: Sequence[LearningTask]
    views: Sequence[NodeView]
    models: Mapping[bytes, bytes]
    moments: bytes | None
    external: Table | None
    virtual_s: float
    allow: Sequence[str] = ()
    has_own_parts: bool = True
    """Whether ``tasks`` hold what a personalised model has of each hospital's own."""


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
    reached: tuple[int | None, ...]
    """Per hospital, the first round after which its model had 99 % of the pooled AUC, on external patients, or
    where there are none, on all hospitals' validation patients."""
    reached_s: tuple[float | None, ...]
    """Per hospital, seconds of training until then."""
    gaps: tuple[float | None, ...]
    """Per hospital: judging.calibration_gap of the model that it uses."""
    bytes_payloads: int
    bytes_float32: int
    virtual_s: float
    digests: dict[int, str]
    """Round → digest of the agreed result, hexadecimal."""


def judge(spec: ScenarioSpec, ended: Finished, report: Report, *, started_s: float) -> SeedRun:
    """Audit, train the baselines, choose what is handed out, and judge all of it.

    started_s: when the run began (time.monotonic). Raises ScenarioError when nothing was agreed.
    """
    charter, data, tasks = ended.charter, ended.data, ended.tasks
    report("auditing")
    ledger = audit(ended.bundles, charter=ended.charter_path, charter_digest=charter.digest_hex)
    roster = read_roster(ended.bundles, charter)
    logs = read_own_logs(ended.bundles, roster)
    report("alone and pooled")
    patience = charter.stopping.patience or spec.patience
    alone, pooled = train_baselines(charter, data, allow=ended.allow, patience=patience)
    levels = {
        at: (level_of(alone[at].evaluate(one)), level_of(pooled.evaluate(one)))
        for at, one in enumerate(data)
    }
    header = Header(scenario=spec.name, title=spec.title, seed=spec.seed, wall_s=0.0)
    outcome = build_outcome(header, charter, logs, ledger, levels, ended.views, roster)
    released = release(
        charter, logs, outcome.merges, ended.models,
        bundles=ended.bundles, roster=roster, patience=spec.patience,
    )  # fmt: skip
    is_gossip = charter.aggregation.is_gossip
    outcome = outcome if is_gossip else outcome.releasing(released.number, last=released.last)
    head = charter.schema.head
    is_whole = ended.has_own_parts or charter.personalisation.mode == "none"
    models = [released.models[at] for at in range(len(tasks))]
    validation = [(task, one.validation) for task, one in zip(tasks, data, strict=True)]
    known: dict[bytes, Quality] = {}

    def tested(model: bytes) -> Quality:
        if model not in known:
            known[model] = quality(validation, [model] * len(tasks), head)
        return known[model]

    pooled_tested = quality(
        [(pooled.task, one.validation) for one in data], [pooled.model] * len(tasks), head
    )
    external = None
    reached: tuple[int | None, ...] = (None,) * len(tasks)
    if ended.external is not None:
        table = Judge(charter, ended.external, ended.moments, allow=ended.allow)
        external = judge_all(table, alone, pooled, released)
        reached = first_rounds(released, table.swarm, external.pooled)
    elif is_whole:
        reached = first_rounds(released, tested, pooled_tested)
    seconds = seconds_by_round(logs)
    moved = _moved(charter, logs, tasks[0])
    return SeedRun(
        seed=spec.seed,
        outcome=replace(outcome, wall_s=time.monotonic() - started_s),
        released=released.number,
        test_swarm=quality(validation, models, head) if is_whole else NOT_JUDGED,
        test_pooled=pooled_tested,
        external=external,
        reached=reached,
        reached_s=tuple(
            None if number is None else seconds.get(number, {}).get(author)
            for author, number in enumerate(reached)
        ),
        gaps=tuple(
            calibration_gap(task, one, head) if is_whole else None
            for task, one in zip(tasks, models, strict=True)
        ),
        bytes_payloads=moved.sent,
        bytes_float32=moved.float32,
        virtual_s=ended.virtual_s,
        digests={m.round: next(iter(m.digests.values())) for m in outcome.merges if m.agreed},
    )


def _moved(charter: Charter, logs: Mapping[int, Sequence[Record]], task: LearningTask) -> Exchanged:
    strategy = strategy_of(charter)
    result = len(task.initial())
    count = (result - HEADER.size) // FLOAT32_BYTES // strategy.state_vectors
    update = payload_bytes(Codec.FLOAT32, strategy.update_length(count))
    return exchanged(logs, update_float32=update, result_float32=result)
