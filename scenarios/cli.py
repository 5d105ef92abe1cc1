"""`swarm-scenario`: parse, call, map what went wrong to an exit status. Room: scenarios."""

import sys

try:
    import typer
except ModuleNotFoundError:  # an auditor's install has no node
    sys.exit("swarm-scenario: not in the auditor's install: pip install 'swarm-node[node]'")

from node.command_line import call
from scenarios.cli_compare import compare
from scenarios.cli_faults import faults
from scenarios.cli_run import run
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
      swarm-scenario run stroke --data ../data/ist --seeds 5
      swarm-scenario compare stroke --data ../data/ist --variant k50=training.local_steps=50
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


app.command()(run)
app.command()(compare)
app.command()(faults)
app.command()(simulate)
app.command()(topology)


def main() -> None:
    """Entry point."""
    sys.exit(call(app, "swarm-scenario"))
