"""`swarm-node`: what a hospital's engineer types.

Room: node. Law: parses, calls, maps errors to exit statuses. Nothing heavy is imported before a
command needs it (`--help` starts without torch, libp2p, DuckDB or numpy), and no operator's mistake
ends in a traceback.
"""

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Final, cast

try:
    import typer
except ModuleNotFoundError:  # an auditor's install has no node
    sys.exit("swarm-node: not in the auditor's install: pip install 'swarm-node[node]'")

from ledger.errors import ConfigError, SwarmError
from node.commands import charter, model, roster, running, site
from node.commands.common import ExitStatus

PROGRAM: Final = "swarm-node"
CommandLineError: Final = cast("type[Exception]", typer.BadParameter.__mro__[2])
"""Base of everything that the parser raises; Typer exports only its grandchild."""

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
app.command()(running.status)
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
    try:
        status = app(arguments, prog_name=PROGRAM, standalone_mode=False)
        return status if isinstance(status, int) else ExitStatus.OK
    except SwarmError as error:
        return _refuse(error)
    except CommandLineError as error:
        return _misused(error)
    except (KeyboardInterrupt, typer.Abort):
        return ExitStatus.INTERRUPTED
    except BrokenPipeError:  # `swarm-node status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.FAILED
    except BaseExceptionGroup as group:
        return _refuse_group(group)


def _refuse(error: SwarmError) -> int:
    _one_line(str(error))
    return ExitStatus.USAGE if isinstance(error, ConfigError) else ExitStatus.FAILED


def _misused(error: Exception) -> int:
    """Say in one line what is wrong with the command line, and where the help is."""
    message = str(getattr(error, "format_message", error.__str__)())
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(message)
        return ExitStatus.USAGE
    path = context.command_path if context is not None else PROGRAM
    _one_line(f"{message.rstrip('.')}: see `{path} --help`")
    return ExitStatus.USAGE


def _refuse_group(group: BaseExceptionGroup[BaseException]) -> int:
    """Unpack what tasks raised together: one of our own errors is the cause, the rest its echo."""
    interrupts, rest = group.split((KeyboardInterrupt, SystemExit))
    known, unknown = rest.split(SwarmError) if rest is not None else (None, None)
    if unknown is not None:
        raise unknown
    leaf: BaseException | None = known
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    if isinstance(leaf, SwarmError):
        return _refuse(leaf)
    return ExitStatus.INTERRUPTED if interrupts is not None else ExitStatus.FAILED


def _one_line(message: str) -> None:
    typer.echo(f"{PROGRAM}: {' '.join(message.split())}", err=True)


if __name__ == "__main__":
    main()
