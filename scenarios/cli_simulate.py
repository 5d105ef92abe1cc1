"""`swarm-scenario simulate`: its options. Room: scenarios. Spec: docs/simulator.md."""

from pathlib import Path
from typing import Annotated

import typer

from ledger.errors import ConfigError
from scenarios.cli_common import FAILED, INTERRUPTED, OK, USAGE, check_json, fail
from scenarios.interrupts import end_on_request


def simulate(  # noqa: PLR0913 - a command's options
    *,
    seeds: Annotated[
        int, typer.Option(min=1, max=10_000_000, metavar="N", help="How many seeds to run.")
    ] = 100,
    start: Annotated[int, typer.Option(min=0, metavar="S", help="The first of them.")] = 0,
    replay: Annotated[
        int | None, typer.Option(min=0, metavar="SEED", help="Run this one seed again.")
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Run the plan in this file, as --json gives it."),
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="With --replay, --plan: print what every member logs.")
    ] = False,
    members: Annotated[
        int | None, typer.Option(min=2, max=256, help="Members, instead of drawing 4 to 7.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=3, max=1_000, help="Rounds, instead of drawing them.")
    ] = None,
    averaging: Annotated[
        str | None,
        typer.Option(
            metavar="full|gossip", help="How the charter averages, instead of drawing it."
        ),
    ] = None,
    calm: Annotated[
        bool | None,
        typer.Option(
            "--calm/--faults",
            help="Whether nobody fails or lies. Unless said, so it is from 20 --members on: that measures, "
            "on two processes.",
        ),
    ] = None,
    plant: Annotated[
        str,
        typer.Option(metavar="BUG", help="For tests: give every node a bug; `list` names them."),
    ] = "",
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Processes.")] = 1,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the results as JSON.")
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep results here, and go on from them next time."),
    ] = None,
) -> None:
    """Run whole swarms in one process under virtual time, with faults drawn from each seed.

    \b
    Examples:
      swarm-scenario simulate --seeds 200 --jobs 2 --json seeds.json
      swarm-scenario simulate --replay 17 --trace
      swarm-scenario simulate --plant ack-before-persist --seeds 20
      swarm-scenario simulate --seeds 1 --members 100 --rounds 20 --averaging gossip

    Exit status: 0 every invariant held in every seed, 1 one did not, 2 wrong usage, 130 interrupted.
    """  # noqa: D301
    from scenarios.simulation import command
    from scenarios.simulation.plan import Size, draw_plan
    from scenarios.simulation.plan_file import load_plan
    from scenarios.simulation.soak import Settings, is_large

    if plant == "list":
        command.list_plants(typer.echo)
        return
    end_on_request()  # temporary folders are removed on the way out
    is_calm = is_large(members) if calm is None else calm
    size = Size(members=members, rounds=rounds, averaging=averaging, calm=is_calm)
    settings = Settings(size=size, plant=plant)
    try:
        check_json(json_file)
        command.check_settings(settings)
        if is_calm and calm is None and plan is None:
            typer.echo(f"{members} members: nobody fails or lies; --faults lets them, on one core")
        if replay is not None or plan is not None:
            _only_for_many(json=json_file, log=log)
            one = load_plan(plan) if plan is not None else draw_plan(replay or 0, size)
            holds = command.replay(one, settings, is_traced=trace, write=typer.echo)
        else:
            holds = command.simulate_seeds(
                start=start, count=seeds, settings=settings, jobs=jobs, json_file=json_file,
                log_file=log, write=typer.echo,
            )  # fmt: skip
    except ConfigError as error:
        fail(str(error), USAGE)
    except KeyboardInterrupt as stop:
        fail(str(stop) or "interrupted", INTERRUPTED)
    raise typer.Exit(OK if holds else FAILED)


def _only_for_many(**given: Path | None) -> None:
    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"--{name}: is written for --seeds, not for --replay or --plan")
