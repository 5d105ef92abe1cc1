"""`swarm-scenario topology`: its options and what it prints. Room: scenarios."""

import json
from typing import Annotated

import typer

from scenarios.cli_common import USAGE, fail


def topology(
    *,
    name: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]…", help="Graphs; without a name, all of them."),
    ] = None,
    members: Annotated[
        list[int] | None,
        typer.Option(min=2, max=256, help="How many hospitals; repeat for several sizes."),
    ] = None,
    degree: Annotated[
        int, typer.Option(min=2, max=64, help="Neighbours in random_regular and epidemic, even.")
    ] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how fast each graph of `averaging = "gossip"` mixes, and what it moves.

    \b
    Examples:
      swarm-scenario topology
      swarm-scenario topology static_exponential ring --members 32 --members 128 --json
    """  # noqa: D301
    from ledger.topology import TOPOLOGIES
    from scenarios.topologies import mixing_of

    names = name or [one for one in TOPOLOGIES if one != "edges"]
    try:
        rows = [
            mixing_of(one, count, degree=degree) for count in members or [8, 32] for one in names
        ]
    except ValueError as error:
        fail(str(error), USAGE)
    if as_json:
        typer.echo(json.dumps([row.to_json() for row in rows], indent=2))
        return
    typer.echo(f"{'graph':<22}{'members':>8}{'payloads':>10}{'gap':>9}{'rounds to 1 %':>15}")
    for row in rows:
        rounds = "never" if row.rounds is None else f"{row.rounds:.1f}"
        typer.echo(
            f"{row.topology:<22}{row.members:>8}{row.payloads:>10.1f}{row.spectral_gap:>9.4f}"
            f"{rounds:>15}"
        )
