"""`swarm-scenario run`: its options, and which engine they start. Room: scenarios."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ledger.errors import ConfigError, SwarmError
from scenarios.cli_common import FAILED, INTERRUPTED, OK, USAGE, check_json, fail
from scenarios.interrupts import end_on_request

Data = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Folder with the hospitals' tables, if the scenario needs one."
    ),
]
SeedList = Annotated[
    list[int] | None,
    typer.Option(min=0, max=2**32 - 1, help="Draws splits, starting model, batches. Repeatable."),
]
SeedCount = Annotated[
    int | None,
    typer.Option(min=1, max=100, metavar="N", help="So many seeds, from the first one on."),
]
Rounds = Annotated[int | None, typer.Option(min=1, max=10_000, help="Rounds to train.")]
Hospitals = Annotated[
    int | None, typer.Option(min=2, max=256, metavar="N", help="Only the first N hospitals.")
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the results as JSON.")
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Where run directories are made.")]


def run(  # noqa: PLR0913 - a command's options
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from `swarm-scenario list`.")],
    data: Data = None,
    seed: SeedList = None,
    seeds: SeedCount = None,
    rounds: Rounds = None,
    hospitals: Hospitals = None,
    engine: Annotated[
        str | None,
        typer.Option(metavar="processes|simulated", help="Real nodes, or one process per seed."),
    ] = None,
    variants: Annotated[
        bool, typer.Option("--variants/--no-variants", help="Run the scenario's variants too.")
    ] = True,
    case: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CASE", help="Of free-riders: who rides how. Repeatable; all if not given."
        ),
    ] = None,
    json_file: JsonFile = None,
    out: Out = Path("runs"),
    keep: Annotated[
        bool,
        typer.Option(
            "--keep/--no-keep",
            help="Keep the hospitals' own directories (keys, stores). Bundles, charter and report stay.",
        ),
    ] = True,
) -> None:
    """Let hospitals learn together, as real nodes or simulated; audit and report.

    \b
    Examples:
      swarm-scenario run four-hospitals --json demo.json
      swarm-scenario run heart --data ../data/heart --rounds 10 --no-keep
      swarm-scenario run stroke --data ../data/ist --seeds 5 --json stroke.json
      swarm-scenario run stroke --data ../data/ist --hospitals 5 --engine processes
    swarm-scenario run free-riders --case noise --seed 5000 --json riders.json

    Exit status: 0 every check holds, 1 one does not (or the run broke), 2 wrong usage.
    """  # noqa: D301
    end_on_request()  # the nodes are stopped on the way out
    try:
        from scenarios.spec import CLINICS, SIMULATED, load_spec

        check_json(json_file)
        spec = load_spec(name).override(rounds=rounds, engine=engine)
        if data is not None:
            spec = spec.found_in(data)
        spec = spec.first(hospitals) if spec.hospitals else spec
        if not variants:
            spec = replace(spec, variants=())
        chosen = chosen_seeds(spec.seed, spec.seeds, seed, seeds)
        if case and spec.data != CLINICS:
            fail("--case: only free-riders has cases", USAGE)
        if spec.data == CLINICS:
            status = find_free_riders(spec, case, chosen, engine=engine, json_file=json_file)
        elif spec.engine == SIMULATED:
            status = _simulate(spec, chosen, data=data, json_file=json_file, out=out)
        else:
            asked = chosen if seed or seeds else chosen[:1]
            spec = replace(spec, variants=())
            status = _run(spec, asked, data=data, json_file=json_file, out=out, keep=keep)
    except ConfigError as error:
        fail(str(error), USAGE)
    except SwarmError as error:
        fail(str(error), FAILED)
    except KeyboardInterrupt:
        fail("interrupted; the nodes are stopped", INTERRUPTED)
    raise typer.Exit(status)


def chosen_seeds(first: int, count: int, given: list[int] | None, wanted: int | None) -> list[int]:
    """Seeds to run: those given, or so many from the first of them (or the scenario's) on."""
    given = list(dict.fromkeys(given or ()))
    if wanted is None:
        return given or list(range(first, first + count))
    if len(given) > 1:
        raise ConfigError("--seeds: goes with one --seed or none")
    start = given[0] if given else first
    return list(range(start, start + wanted))


def write_json(json_file: Path | None, value: dict[str, Any]) -> None:
    """Write results where asked."""
    if json_file is not None:
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        json_file.write_text(text, encoding="utf-8")


def _run(
    spec: Any,
    seeds: list[int],
    *,
    data: Path | None,
    json_file: Path | None,
    out: Path,
    keep: bool,
) -> int:
    from rich.console import Console

    from scenarios.checks import failures
    from scenarios.main_job import Job, finish, new_directory, run_job
    from scenarios.spec import MAIN_VARIANT
    from scenarios.study import Study, VariantRuns, to_json
    from scenarios.study_report import write_study
    from scenarios.study_summary import print_study
    from scenarios.summary import print_summary

    console = Console()
    began_s = time.monotonic()
    jobs, runs = [], []
    for seed in seeds:
        job = Job.prepare(spec.override(seed=seed), data=data, out=out, keep=keep)
        run = run_job(job, console)
        found = failures(run.outcome, job.spec.targets)
        run = replace(run, outcome=replace(run.outcome, failures=found))
        finish(job, run.outcome)
        jobs.append(job)
        runs.append(run)
    wall_s = time.monotonic() - began_s
    study = Study(
        title=spec.title,
        variants=(VariantRuns(name=MAIN_VARIANT, spec=spec, runs=tuple(runs)),),
        wall_s=wall_s,
    )
    found = study.failures if len(runs) > 1 else runs[0].outcome.failures
    write_json(json_file, {**to_json(study), "failures": list(found)})
    if len(runs) > 1:
        print_study(console, study, report=write_study(study, new_directory(out, spec.name)))
    else:  # one split moves a site's AUC by chance: it is held against what one split can show
        print_summary(console, runs[0].outcome, report=jobs[0].report)
    return FAILED if found else OK


def _simulate(
    spec: Any, seeds: list[int], *, data: Path | None, json_file: Path | None, out: Path
) -> int:
    from rich.console import Console

    from scenarios.main_job import new_directory
    from scenarios.patients import find_sources
    from scenarios.study import to_json
    from scenarios.study_report import write_study
    from scenarios.study_run import all_variants, run_study
    from scenarios.study_summary import print_study

    console = Console()
    find_sources(spec, data)  # before a directory is made
    directory = new_directory(out, spec.name)
    study = run_study(
        spec, all_variants(spec), seeds, data=data, directory=directory,
        note=lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True),
    )  # fmt: skip
    found = to_json(study)
    report = write_study(study, directory)
    if spec.study:  # the same without a liar came first: whole services, for what is compared below
        print_study(console, study, report=report, hospitals=False)
        return _attack(spec, seeds, found, data=data, json_file=json_file)
    write_json(json_file, found)
    print_study(console, study, report=report)
    return FAILED if study.failures else OK


def _attack(
    spec: Any,
    seeds: list[int],
    clean: dict[str, Any],
    *,
    data: Path | None,
    json_file: Path | None,
) -> int:
    from scenarios.poisoning.study import as_table, run_attacks

    study = run_attacks(spec, seeds, data=data, note=lambda text: typer.echo(text, err=True))
    failures = [*clean["failures"], *study["failures"]]
    write_json(json_file, {**clean, **study, "failures": failures})
    for line in as_table(study):
        typer.echo(line)
    return FAILED if failures else OK


def find_free_riders(
    spec: Any,
    cases: list[str] | None,
    seeds: list[int],
    *,
    engine: str | None,
    json_file: Path | None,
) -> int:
    """Run the cases of `free-riders`; with `--engine simulated` as whole services."""
    from scenarios.riders.cases import CASES
    from scenarios.riders.study import as_table, run_study
    from scenarios.spec import PROCESSES

    wanted = list(dict.fromkeys(cases or CASES))
    unknown = sorted(set(wanted) - set(CASES))
    if unknown:
        raise ConfigError(f"--case {unknown[0]}: use one of {', '.join(CASES)}")
    if engine == PROCESSES:
        raise ConfigError("--engine: free-riders runs fast (the default) or simulated")
    study = run_study(
        wanted, len(spec.hospitals), seeds,
        rounds=spec.rounds, engine=engine or "fast", note=lambda text: typer.echo(text, err=True),
    )  # fmt: skip
    write_json(json_file, study)
    for line in as_table(study):
        typer.echo(line)
    return FAILED if study["failures"] else OK
