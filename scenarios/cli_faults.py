"""`swarm-scenario faults`: its options and exit status. Room: scenarios."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ledger.errors import ConfigError, SwarmError
from scenarios.cli_common import FAILED, INTERRUPTED, OK, USAGE, check_json, fail
from scenarios.interrupts import end_on_request

if TYPE_CHECKING:
    from scenarios.faults.cases import Options


def faults(  # noqa: PLR0913 - the options of a command
    *,
    case: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A case; repeat for several. Without it, all of them."),
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="Print the cases and stop.")] = False,
    members: Annotated[int, typer.Option(min=3, max=26, help="Hospitals.")] = 7,
    rounds: Annotated[
        int, typer.Option(min=0, max=100_000, help="Rounds; 0: as many as the case needs.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Deals the patients.")] = 1,
    partition_s: Annotated[
        float, typer.Option(min=5, max=86_400, help="How long the partition lasts.")
    ] = 300.0,
    averaging: Annotated[
        str, typer.Option(metavar="full|gossip", help="How the charter averages.")
    ] = "full",
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the results as JSON.")
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where run directories are made.")
    ] = Path("runs"),
    keep: Annotated[
        bool, typer.Option("--keep/--no-keep", help="Keep the directories of cases that passed.")
    ] = False,
) -> None:
    """Hurt real nodes on this machine and say what it cost the others.

    \b
    Examples:
      swarm-scenario faults --list
      swarm-scenario faults --case kill --case pause --json faults.json
      swarm-scenario faults --case kill --averaging gossip
      sudo swarm-scenario faults --partition-s 60

    Each node is a process of its own; with root also a network namespace of its own, on a switch whose
    cables this command slows and cuts. Cases that need root are skipped without it.

    Exit status: 0 nothing completed was lost, 1 something was (or a case broke), 2 wrong usage,
    130 interrupted.
    """  # noqa: D301
    end_on_request()  # the nodes are stopped on the way out
    try:
        if show:
            raise typer.Exit(_list())
        from scenarios.faults.cases import Options

        options = Options(
            members=members, rounds=rounds, seed=seed, partition_s=partition_s, averaging=averaging
        )
        status = _faults(case or [], options, json_file=json_file, out=out, keep=keep)
    except ConfigError as error:
        fail(str(error), USAGE)
    except SwarmError as error:
        fail(str(error), FAILED)
    except KeyboardInterrupt:
        fail("interrupted; the nodes are stopped", INTERRUPTED)
    raise typer.Exit(status)


def _list() -> int:
    from scenarios.faults.cases import CASES
    from scenarios.faults.run import needs

    for name, case in CASES.items():
        missing = needs(case)
        typer.echo(f"{name:<10} {case.about}" + (f" ({missing})" if missing else ""))
    return OK


def _faults(
    names: list[str],
    options: "Options",
    *,
    json_file: Path | None,
    out: Path,
    keep: bool,
) -> int:
    from rich.console import Console

    from scenarios.faults.run import choose, run_cases, write_json
    from scenarios.main_job import new_directory

    chosen = choose(names)
    check_json(json_file)
    result = run_cases(
        chosen, new_directory(out, "faults"), options, Console(), keep=keep,
        skip_impossible=not names,
    )  # fmt: skip
    if json_file is not None:
        write_json(result, json_file)
    return OK if result["ok"] else FAILED
