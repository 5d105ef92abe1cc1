"""Runs a study: every variant with every seed, on two processes, telling how far each is.

Room: scenarios. Law: ends only processes that it started. Tables are read once and handed to them.
"""

import multiprocessing
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Final

from ledger.errors import SwarmError
from scenarios.commands import ScenarioError
from scenarios.engine_simulated import SeedJob, SeedRun, charter_of, run_seed
from scenarios.patients import data_table, find_sources, read_patients
from scenarios.spec import FOLDER, MAIN_VARIANT, ScenarioSpec
from scenarios.study import Study, VariantRuns

WORKERS: Final = 2
POLL_S: Final = 0.5
END_WAIT_S: Final = 5.0


@dataclass(frozen=True, kw_only=True)
class Said:
    """One line of one job. state: "note", "done" or "failed"."""

    job: int
    state: str
    value: Any


def run_study(
    spec: ScenarioSpec,
    variants: Sequence[tuple[str, ScenarioSpec]],
    seeds: Sequence[int],
    *,
    data: Path | None,
    directory: Path,
    note: Callable[[str], None],
    workers: int = WORKERS,
) -> Study:
    """Run all variants with all seeds. Raises ConfigError or ScenarioError; then all has ended."""
    started_s = time.monotonic()
    jobs = make_jobs(variants, seeds, data=data, directory=directory)
    note(
        f"{spec.title}: {len(spec.hospitals)} hospitals, {len(variants)} variants x {len(seeds)} seeds"
    )
    runs = run_jobs(jobs, note, workers=workers)
    count = len(seeds)
    return Study(
        title=spec.title,
        variants=tuple(
            VariantRuns(name=name, spec=varied, runs=tuple(runs[at * count : (at + 1) * count]))
            for at, (name, varied) in enumerate(variants)
        ),
        wall_s=time.monotonic() - started_s,
    )


def all_variants(spec: ScenarioSpec) -> list[tuple[str, ScenarioSpec]]:
    """Return the scenario itself and those that it names."""
    main = replace(spec, variants=())
    return [(MAIN_VARIANT, main), *((one.name, spec.varied(one)) for one in spec.variants)]


def make_jobs(
    variants: Sequence[tuple[str, ScenarioSpec]],
    seeds: Sequence[int],
    *,
    data: Path | None,
    directory: Path,
) -> list[SeedJob]:
    """Read the patients, once where no seed draws them, and describe every run."""
    sources = find_sources(variants[0][1], data)
    known: dict[object, Any] = {}
    jobs = []
    for name, spec in variants:
        for seed in seeds:
            seeded = spec.override(seed=seed)
            drawn = None if spec.data == FOLDER else seed
            columns = repr([(k, v) for k, v in spec.charter.items() if k.startswith("data.")])
            if (drawn, columns) not in known:
                table = data_table(seeded, sources)
                schema = charter_of(seeded, table).schema
                known[drawn, columns] = table, read_patients(seeded, schema, sources, data)
            table, patients = known[drawn, columns]
            place = directory / name / f"seed-{seed}"
            jobs.append(
                SeedJob(spec=seeded, variant=name, directory=place, patients=patients, table=table)
            )
    return jobs


def run_jobs(
    jobs: Sequence[SeedJob], note: Callable[[str], None], *, workers: int
) -> list[SeedRun]:
    """Run every job; results in their order. Raises ScenarioError with the first that failed."""
    context = multiprocessing.get_context("spawn")
    tasks: Any = context.Queue()
    said: Any = context.Queue()
    for task in [*enumerate(jobs), *([None] * workers)]:
        tasks.put(task)
    processes = [
        context.Process(target=_work, args=(tasks, said), daemon=True)
        for _ in range(min(workers, len(jobs)))
    ]
    results: dict[int, SeedRun] = {}
    started_s = time.monotonic()
    try:
        for process in processes:
            process.start()
        while len(results) < len(jobs):
            heard = _hear(said, processes)
            if heard is None:
                continue
            job = jobs[heard.job]
            who = f"{time.monotonic() - started_s:6.1f} s  {job.variant}, seed {job.spec.seed}"
            if heard.state == "failed":
                raise ScenarioError(f"{job.variant}, seed {job.spec.seed}: {heard.value}")
            if heard.state == "done":
                results[heard.job] = heard.value
                note(f"{who}: done ({len(results)} of {len(jobs)})")
            else:
                note(f"{who}: {heard.value}")
    finally:
        _end(processes)
        tasks.cancel_join_thread()  # what nobody takes any more must not keep this process
    return [results[at] for at in range(len(jobs))]


def _hear(said: Any, processes: Sequence[SpawnProcess]) -> Said | None:
    try:
        heard: Said = said.get(timeout=POLL_S)
    except queue.Empty:
        codes = [process.exitcode for process in processes]
        if any(code not in (None, 0) for code in codes) or all(code == 0 for code in codes):
            raise ScenarioError(
                f"a process of the study ended early (exit status {codes})"
            ) from None
        return None
    return heard


def _end(processes: Sequence[SpawnProcess]) -> None:
    for process in processes:
        if process.pid is None:
            continue
        process.join(0 if process.exitcode is None else END_WAIT_S)
        if process.is_alive():
            process.terminate()
            process.join(END_WAIT_S)
        if process.is_alive():
            process.kill()
            process.join()


def _note(said: Any, job: int, text: str) -> None:
    said.put(Said(job=job, state="note", value=text))


def _work(tasks: Any, said: Any) -> None:
    """Take jobs until there are none (in a process of its own)."""
    for at, job in iter(tasks.get, None):
        try:
            run = run_seed(job, partial(_note, said, at))
        except SwarmError as error:
            said.put(Said(job=at, state="failed", value=str(error)))
            return
        said.put(Said(job=at, state="done", value=run))
