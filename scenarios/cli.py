"""`swarm-scenario`: parse, call, map what went wrong to an exit status. Room: scenarios."""

import json
import signal
import sys
from pathlib import Path
from typing import Annotated

try:
    import typer
except ModuleNotFoundError:  # an auditor's install has no node
    sys.exit("swarm-scenario: not in the auditor's install: pip install 'swarm-node[node]'")

from ledger.errors import ConfigError, SwarmError
from scenarios.cli_common import FAILED, INTERRUPTED, OK, USAGE, fail, interrupt
from scenarios.cli_faults import faults
from scenarios.cli_simulate import simulate
from scenarios.cli_topology import topology

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Run whole swarms on one machine and check what came out.

    \b
    Examples:
      swarm-scenario list
      swarm-scenario run four-hospitals
      swarm-scenario run heart --data ../data/heart --json heart.json
      swarm-scenario faults --case kill
      swarm-scenario simulate --seeds 200

    \b
    Exit status: 0 every check holds, 1 one does not (or the run broke), 2 wrong usage.
    """,
)


@app.command("list")
def list_() -> None:
    """Print the scenarios of the catalogue, one a line."""
    from scenarios.spec import load_spec, scenario_names

    names = scenario_names()
    for name in names:
        typer.echo(f"{name:<{max(map(len, names))}}  {load_spec(name).about}")


@app.command()
def run(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from `swarm-scenario list`.")],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder with the hospitals' tables, if the scenario needs one."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**32 - 1, help="Draws splits, starting model and batches."),
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, max=10_000, help="Rounds to train.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the results as JSON.")
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where run directories are made.")
    ] = Path("runs"),
    keep: Annotated[
        bool,
        typer.Option(
            "--keep/--no-keep",
            help="Keep the hospitals' own directories (keys, stores). Bundles, charter and report stay.",
        ),
    ] = True,
) -> None:
    """Start one real node per hospital, let them learn together, audit and report.

    \b
    Examples:
      swarm-scenario run four-hospitals --json demo.json
      swarm-scenario run heart --data ../data/heart --rounds 10 --no-keep

    Exit status: 0 every check holds, 1 one does not (or the run broke), 2 wrong usage.
    """  # noqa: D301
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)  # the nodes are stopped on the way out
    try:
        status = _run(
            name, data=data, seed=seed, rounds=rounds, json_file=json_file, out=out, keep=keep
        )
    except ConfigError as error:
        fail(str(error), USAGE)
    except SwarmError as error:
        fail(str(error), FAILED)
    except KeyboardInterrupt:
        fail("interrupted; the nodes are stopped", INTERRUPTED)
    raise typer.Exit(status)


def _run(
    name: str,
    *,
    data: Path | None,
    seed: int | None,
    rounds: int | None,
    json_file: Path | None,
    out: Path,
    keep: bool,
) -> int:
    from rich.console import Console

    from scenarios.main_job import Job, run_job
    from scenarios.results import to_json
    from scenarios.spec import load_spec
    from scenarios.summary import print_summary

    console = Console()
    spec = load_spec(name).override(seed=seed, rounds=rounds)
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise ConfigError(f"--json {json_file}: there is no folder {json_file.absolute().parent}")
    job = Job.prepare(spec, data=data, out=out, keep=keep)
    outcome = run_job(job, console)
    if json_file is not None:
        text = json.dumps(to_json(outcome), indent=2, ensure_ascii=False) + "\n"
        json_file.write_text(text, encoding="utf-8")
    print_summary(console, outcome, report=job.report)
    return FAILED if outcome.failures else OK


app.command()(faults)
app.command()(simulate)
app.command()(topology)


def main() -> None:
    """Entry point."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
