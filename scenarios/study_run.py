"""Runs a study: every variant with every seed, on two processes, telling how far each is.

Room: scenarios. Law: ends only processes that it started. Tables are read once and handed to them.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ledger.errors import SwarmError
from scenarios.commands import ScenarioError
from scenarios.engine_simulated import SeedJob, charter_of, run_seed
from scenarios.patients import data_table, find_sources, read_patients
from scenarios.seed_run import SeedRun
from scenarios.spec import FOLDER, MAIN_VARIANT, ScenarioSpec
from scenarios.study import Study, VariantRuns
from scenarios.workers import Say, each

WORKERS: Final = 2


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
    started_s = time.monotonic()

    def told(job: SeedJob, text: str) -> None:
        note(f"{time.monotonic() - started_s:6.1f} s  {job.variant}, seed {job.spec.seed}: {text}")

    results: list[SeedRun] = []
    for job, result in zip(jobs, each(_run, jobs, workers=workers, note=told), strict=True):
        results.append(result)
        told(job, f"done ({len(results)} of {len(jobs)})")
    return results


def _run(job: SeedJob, say: Say) -> SeedRun:
    try:
        return run_seed(job, say)
    except SwarmError as error:
        raise ScenarioError(f"{job.variant}, seed {job.spec.seed}: {error}") from None
