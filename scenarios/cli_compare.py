"""`swarm-scenario compare`: its options. Room: scenarios."""

from pathlib import Path
from typing import Annotated

import typer

from ledger.errors import ConfigError, SwarmError
from scenarios.cli_common import FAILED, INTERRUPTED, OK, USAGE, check_json, fail
from scenarios.cli_run import (
    Data,
    Hospitals,
    JsonFile,
    Out,
    Rounds,
    SeedCount,
    SeedList,
    chosen_seeds,
    write_json,
)
from scenarios.interrupts import end_on_request


def compare(  # noqa: PLR0913 - a command's options
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from `swarm-scenario list`.")],
    variant: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=KEY=VALUE[,KEY=VALUE]",
            help="Charter settings to try. Repeatable. None: the scenario's own variants.",
        ),
    ] = None,
    data: Data = None,
    seed: SeedList = None,
    seeds: SeedCount = None,
    rounds: Rounds = None,
    hospitals: Hospitals = None,
    json_file: JsonFile = None,
    out: Out = Path("runs"),
) -> None:
    """Run a scenario and variants of its charter on the same seeds: a table, a plot, JSON.

    \b
    Examples:
      swarm-scenario compare stroke --data ../data/ist --variant k50=training.local_steps=50
      swarm-scenario compare stroke --data ../data/ist --hospitals 8 --seeds 3 \\
          --variant uniform=aggregation.weighting=uniform --json weights.json

    Exit status: 0 every round was agreed and audited, 1 one was not, 2 wrong usage.
    """  # noqa: D301
    end_on_request()
    try:
        from rich.console import Console

        from scenarios.compare import compared
        from scenarios.main_job import new_directory
        from scenarios.patients import find_sources
        from scenarios.spec import load_spec
        from scenarios.study import to_json
        from scenarios.study_report import write_study
        from scenarios.study_run import run_study
        from scenarios.study_summary import print_study

        check_json(json_file)
        spec = load_spec(name).override(rounds=rounds)
        spec = spec.found_in(data) if data is not None else spec
        spec = spec.first(hospitals) if spec.hospitals else spec
        variants = compared(spec, variant or ())
        find_sources(spec, data)  # before a directory is made
        console = Console()
        directory = new_directory(out, f"{name}-compare")
        study = run_study(
            spec, variants, chosen_seeds(spec.seed, spec.seeds, seed, seeds), data=data,
            directory=directory,
            note=lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True),
        )  # fmt: skip
        write_json(json_file, to_json(study))
        print_study(console, study, report=write_study(study, directory), hospitals=False)
    except ConfigError as error:
        fail(str(error), USAGE)
    except SwarmError as error:
        fail(str(error), FAILED)
    except KeyboardInterrupt:
        fail("interrupted", INTERRUPTED)
    raise typer.Exit(FAILED if study.failures else OK)
