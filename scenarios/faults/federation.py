"""Hospitals to hurt: made by the commands that hospitals use, with rounds long enough to hit.

Room: scenarios. Everything follows from the seed, but for ports and times. Where root allows, every
hospital lies in a network namespace of its own; else all share the loopback.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from ledger.charter import Charter
from scenarios.commands import LOOPBACK, free_ports
from scenarios.faults.namespaces import address_of
from scenarios.hospitals import LABEL, write_csv
from scenarios.main_job import Job, make_charter, make_sites
from scenarios.processes import Site
from scenarios.spec import FOLDER, Hospital, ScenarioSpec, Targets
from scenarios.spec_table import Setting

PORT: Final = 4001
CHARTER: Final[Mapping[str, Setting]] = MappingProxyType(
    {
        "model.name": "mlp",
        "training.local_steps": 250,
        "training.learning_rate": 0.1,
        "rounds.deadline_min_s": 6.0,
        "rounds.deadline_max_s": 25.0,
        "rounds.grace_s": 2.0,
        "rounds.start_wait_s": 120.0,
        "rounds.inactive_after_rounds": 2,
    }
)
"""Rounds of a second or two, and little patience, so that a fault lasts many rounds."""


@dataclass(frozen=True, kw_only=True)
class Federation:
    """The hospitals of one case, before any runs."""

    job: Job
    charter: Charter
    digest: str

    @property
    def sites(self) -> tuple[Site, ...]:
        """In roster order."""
        return self.job.sites


def make_federation(
    directory: Path,
    *,
    members: int,
    rounds: int,
    seed: int,
    namespaces: bool,
    charter: Mapping[str, Setting] | None = None,
    site: Mapping[str, str | int | float | bool | tuple[str, ...]] | None = None,
) -> Federation:
    """Deal scikit-learn's breast-cancer cases to ``members`` hospitals and make their directories."""
    tables = directory / "tables"
    tables.mkdir(parents=True)
    names = [f"hospital-{'abcdefghijklmnopqrstuvwxyz'[at]}" for at in range(members)]
    _deal(tables, names, seed)
    spec = ScenarioSpec(
        name="faults", title="Faults of real nodes", about="", seed=seed, rounds=rounds,
        federation="faults", data=FOLDER, label=LABEL, query="", model="mlp",
        charter={**CHARTER, **(charter or {})},
        site={"run.linger_s": 240.0, "run.sync_interval_s": 1.0, **(site or {})},
        hospitals=tuple(Hospital(folder=n, name=n, file=f"{n}.csv") for n in names),
        targets=Targets(),
    )  # fmt: skip
    job = Job.prepare(spec, data=tables, out=directory, keep=True)
    if namespaces:
        listens = [f"/ip4/{address_of(at)}/tcp/{PORT}" for at in range(members)]
    else:
        listens = [f"/ip4/{LOOPBACK}/tcp/{port}" for port in free_ports(members)]
    make_sites(job, listens=listens)
    loaded, digest = make_charter(job)
    return Federation(job=job, charter=loaded, digest=digest)


def _deal(tables: Path, names: list[str], seed: int) -> None:
    """Deal all 569 rows, the first hospital most, each with both kinds of patients."""
    from sklearn.datasets import load_breast_cancer

    cases = load_breast_cancer()
    order = np.random.default_rng(seed).permutation(len(cases.target))
    shares = np.arange(2 * len(names), len(names), -1, dtype=float)
    cuts = (np.cumsum(shares) / shares.sum() * len(order)).astype(int)[:-1]
    columns = (*(str(name).replace(" ", "_") for name in cases.feature_names), LABEL)
    for name, part in zip(names, np.split(order, cuts), strict=True):
        rows = [
            (*(f"{value:.6g}" for value in cases.data[row]), str(int(cases.target[row] == 0)))
            for row in part
        ]
        write_csv(tables / f"{name}.csv", columns, rows)
