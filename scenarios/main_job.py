"""The main job: make the hospitals, let them learn, take what they hand out, judge it.

Room: scenarios. Reads like the story: sites → charter → run → export → audit → baselines → outcome.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

from rich.console import Console

from ledger.charter import Charter, load_charter
from ledger.errors import ConfigError
from node.charter_edit import to_toml
from node.knobs import Value
from node.payload_export import payloads_beside
from scenarios.commands import LOOPBACK, command, edit_site, free_ports
from scenarios.live import Progress, choose_progress
from scenarios.outcome import Outcome
from scenarios.patients import (
    PATIENTS_FILE,
    data_settings,
    find_sources,
    read_external,
    write_own_patients,
)
from scenarios.payloads import Payloads
from scenarios.processes import Nodes, Site
from scenarios.report import write_report
from scenarios.results import read_own_logs, read_roster
from scenarios.seed_run import Finished, SeedRun, judge
from scenarios.spec import FOLDER, ScenarioSpec
from scenarios.view import NodeView

WORKERS: Final = 2  # commands at once: they are short and mostly start-up
NO_SETTINGS: Final[Mapping[str, Value]] = MappingProxyType({})
KEEP_PAYLOADS: Final[Mapping[str, Value]] = MappingProxyType({"storage.keep_rounds": "all"})
"""The models of all rounds are judged."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a scenario: its directory, and where each hospital's patients are."""

    spec: ScenarioSpec
    directory: Path
    sources: tuple[tuple[Path, ...], ...]
    data: Path | None
    keep: bool

    @classmethod
    def prepare(cls, spec: ScenarioSpec, *, data: Path | None, out: Path, keep: bool) -> Self:
        """Check what the operator gave and make a new run directory. Raises ConfigError."""
        sources = find_sources(spec, data)
        directory = new_directory(out, spec.name)
        return cls(spec=spec, directory=directory, sources=sources, data=data, keep=keep)

    @property
    def charter(self) -> Path:
        """The federation's charter."""
        return self.directory / "charter.toml"

    @property
    def report(self) -> Path:
        """The page."""
        return self.directory / "report.html"

    @property
    def sites(self) -> tuple[Site, ...]:
        """The hospitals in roster order."""
        return tuple(
            Site(name=hospital.name, directory=self.directory / hospital.folder)
            for hospital in self.spec.hospitals
        )


def run_job(job: Job, console: Console) -> SeedRun:
    """Do everything but hold it against the targets.

    Raises ConfigError or ScenarioError when there is no outcome to judge.
    """
    started_s = time.monotonic()
    with choose_progress(console) as progress:
        progress.note(f"{job.spec.title}: {job.directory}")
        make_sites(job, settings=KEEP_PAYLOADS)
        charter, digest = make_charter(job)
        progress.note(f"{len(job.sites)} hospitals, charter {digest[:16]}…, starting their nodes")
        nodes_s = time.monotonic()
        views = _run_nodes(job, progress)
        nodes_s = time.monotonic() - nodes_s
        progress.note("all nodes have left; auditing their ledgers")
        bundles = export_bundles(job, payloads=True)
        ended = _ended(job, charter, bundles, views, nodes_s)
        return judge(job.spec, ended, progress.note, started_s=started_s)


def finish(job: Job, outcome: Outcome) -> None:
    """Write the page; remove what is not to be kept."""
    write_report(outcome, job.report)
    if not job.keep:
        for site in job.sites:
            shutil.rmtree(site.directory)


def _ended(
    job: Job, charter: Charter, bundles: Sequence[Path], views: Sequence[NodeView], nodes_s: float
) -> Finished:
    """Read what the nodes left, through the sites' own configuration and loader."""
    from node.config import load_site
    from node.data import load_site_data
    from swarm.learning.seeding import derive_seed
    from swarm.learning.task import LearningTask

    sites = [load_site(site.config) for site in job.sites]
    data = [
        load_site_data(site.data, charter.schema, directory=site.directory, allow=site.allow)
        for site in sites
    ]
    payloads = Payloads([payloads_beside(bundle) for bundle in bundles])
    logs = read_own_logs(bundles, read_roster(bundles, charter))
    moments = payloads.moments(logs)
    tasks = []
    for at, (site, one) in enumerate(zip(sites, data, strict=True)):
        seed = derive_seed("site", charter.seed, at)
        task = LearningTask(charter, one, allow=site.allow, seed=seed, threads=1)
        if moments is not None:
            task.set_moments(moments)
        tasks.append(task)
    models = payloads.models(logs)
    payloads.remove()
    return Finished(
        charter=charter, charter_path=job.charter, bundles=bundles, data=data, tasks=tasks,
        views=views, models=models, moments=moments,
        external=read_external(job.spec, charter.schema, job.data),
        virtual_s=nodes_s, allow=sites[0].allow, has_own_parts=False,
    )  # fmt: skip


def make_sites(
    job: Job, *, listens: Sequence[str] | None = None, settings: Mapping[str, Value] = NO_SETTINGS
) -> None:
    """`swarm-node init` for each hospital, its patients' table, its [data] and other ``settings``.

    listens: the multiaddr at which each site listens and is reached; without it, free loopback ports.
    """
    if listens is None:
        listens = [f"/ip4/{LOOPBACK}/tcp/{port}" for port in free_ports(len(job.sites))]

    def make(at: int) -> None:
        site = job.sites[at]
        command(
            "swarm-node", "init", site.directory, "--name", site.name,
            "--listen", listens[at], "--address", listens[at],
        )  # fmt: skip

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(make, range(len(job.sites))))
    if job.spec.data != FOLDER:
        write_own_patients(job.spec, [site.directory for site in job.sites])
    for hospital, site, sources in zip(job.spec.hospitals, job.sites, job.sources, strict=True):
        table = data_settings(job.spec, hospital, sources)
        edit_site(site.config, {**table, **settings, **job.spec.site})


def make_charter(job: Job) -> tuple[Charter, str]:
    """`swarm-node charter new`, `add`, `digest`; then every hospital gets the file and pins it."""
    spec, sites = job.spec, job.sites
    settings = {"seed": spec.seed, **spec.charter}
    agreed = "data.features" in settings
    tables = job.sources[0] or (sites[0].directory / PATIENTS_FILE,)
    draft = () if agreed else tuple(word for table in tables for word in ("--data", table))
    assignments = [f"{key}={to_toml(value)}" for key, value in settings.items()]
    command(
        "swarm-node", "charter", "new", job.charter, "--federation", spec.federation,
        "--rounds", str(spec.rounds), "--label", spec.label, "--model", spec.model, *draft,
        *(word for assignment in assignments for word in ("--set", assignment)),
    )  # fmt: skip
    members = [site.directory / "member.toml" for site in sites]
    command("swarm-node", "charter", "add", job.charter, *members)
    _, printed = command("swarm-node", "charter", "digest", job.charter)
    digest = "".join(printed.split())
    for site in sites:
        shutil.copyfile(job.charter, site.directory / "charter.toml")
        edit_site(site.config, {"charter_digest": digest})
    return load_charter(job.charter.read_bytes()), digest


def export_bundles(job: Job, *, payloads: bool = False) -> tuple[Path, ...]:
    """`swarm-node export` for each hospital, with what its ledger names where asked."""
    bundles = tuple(job.directory / "bundles" / site.directory.name for site in job.sites)
    (job.directory / "bundles").mkdir()

    def export(at: int) -> None:
        beside = ("--payloads",) if payloads else ()
        command("swarm-node", "export", bundles[at], *beside, "--config", job.sites[at].config)

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(export, range(len(bundles))))
    return bundles


def _run_nodes(job: Job, progress: Progress) -> tuple[NodeView, ...]:
    with Nodes(job.sites) as nodes:
        return nodes.follow(progress, wall_s_max=job.spec.targets.wall_s_max)


def new_directory(out: Path, name: str) -> Path:
    """Make OUT/<name>-<n> with the first free n."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            try:
                (directory := out / f"{name}-{number}").mkdir()
            except FileExistsError:
                number += 1
            else:
                return directory
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot write there: {error.strerror}") from error
