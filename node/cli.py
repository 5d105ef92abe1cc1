"""`swarm-node`: what a hospital's engineer types.

Room: node. Law: parses, calls, maps errors to exit statuses. Nothing heavy is imported before a
command needs it (`--help` starts without torch, libp2p, DuckDB or numpy), and no operator's mistake
ends in a traceback.
"""

import sys
from collections.abc import Sequence
from typing import Annotated, Final

try:
    import typer
except ModuleNotFoundError:  # an auditor's install has no node
    sys.exit("swarm-node: not in the auditor's install: pip install 'swarm-node[node]'")

from node import command_line
from node.commands import charter, metrics, model, roster, running, site, standing

PROGRAM: Final = "swarm-node"

app = typer.Typer(
    name=PROGRAM,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # it would print local variables, and those hold patients
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command()(site.init)
app.add_typer(charter.app, name="charter")
app.command()(site.doctor)
app.command()(running.run)
app.command()(running.leave)
app.command()(running.status)
app.command()(standing.reputation)
app.command()(metrics.metrics)
app.command("config")(site.config)
app.command()(running.export)
app.add_typer(model.app, name="model")
app.add_typer(roster.app, name="roster")


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - a Typer callback
    if wanted:
        from node.software import software_version

        typer.echo(f"{PROGRAM} {software_version()}")
        raise typer.Exit


@app.callback()
def swarm_node(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print it and exit."
        ),
    ] = False,
) -> None:
    """One hospital's node in a learning swarm without a server.

    \b
    A first site, step by step:
      swarm-node init anna --name "St. Anna" --address /dns4/swarm.anna.example/tcp/4001
      swarm-node charter new charter.toml --federation f --data patients.csv --label y --rounds 20
      swarm-node charter add charter.toml anna/member.toml berta/member.toml
      swarm-node charter digest charter.toml
      swarm-node doctor --config anna/site.toml
      swarm-node run --config anna/site.toml

    \b
    Exit status:
      0    done
      1    failed, or the doctor found something
      2    wrong usage or configuration: the message says what to change
      130  interrupted
    """  # noqa: D301
    _ = version


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `swarm-node` and leave with its exit status."""
    sys.exit(call(arguments))


def call(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; errors become one line on stderr."""
    return command_line.call(app, PROGRAM, arguments)


if __name__ == "__main__":
    main()
