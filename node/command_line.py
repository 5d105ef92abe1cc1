"""One command of a Typer program, from its words to an exit status and at most one line on stderr.

Room: node. Law: no operator's mistake ends in a traceback, or in more than one line.
"""

import os
import sys
from collections.abc import Sequence
from enum import IntEnum
from typing import Final, cast

import typer

from ledger.errors import ConfigError, SwarmError

CommandLineError: Final = cast("type[Exception]", typer.BadParameter.__mro__[2])
"""Base of everything that the parser raises; Typer exports only its grandchild."""


class ExitStatus(IntEnum):
    """What a shell or a systemd unit sees; documented in `swarm-node --help`."""

    OK = 0
    FAILED = 1
    USAGE = 2
    INTERRUPTED = 130


def call(app: typer.Typer, program: str, arguments: Sequence[str] | None = None) -> int:
    """Run one command of ``program`` and return its exit status; errors become one line on stderr."""
    try:
        status = app(arguments, prog_name=program, standalone_mode=False)
        return status if isinstance(status, int) else ExitStatus.OK
    except SwarmError as error:
        return _refuse(program, error)
    except CommandLineError as error:
        return _misused(program, error)
    except (KeyboardInterrupt, typer.Abort):
        return ExitStatus.INTERRUPTED
    except BrokenPipeError:  # `swarm-node status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.FAILED
    except BaseExceptionGroup as group:
        return _refuse_group(program, group)


def _refuse(program: str, error: SwarmError) -> int:
    _one_line(program, str(error))
    return ExitStatus.USAGE if isinstance(error, ConfigError) else ExitStatus.FAILED


def _misused(program: str, error: Exception) -> int:
    """Say in one line what is wrong with the command line, and where the help is."""
    message = str(getattr(error, "format_message", error.__str__)())
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(message)
        return ExitStatus.USAGE
    path = context.command_path if context is not None else program
    _one_line(program, f"{message.rstrip('.')}: see `{path} --help`")
    return ExitStatus.USAGE


def _refuse_group(program: str, group: BaseExceptionGroup[BaseException]) -> int:
    """Unpack what tasks raised together: one of our own errors is the cause, the rest its echo."""
    interrupts, rest = group.split((KeyboardInterrupt, SystemExit))
    known, unknown = rest.split(SwarmError) if rest is not None else (None, None)
    if unknown is not None:
        raise unknown
    leaf: BaseException | None = known
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    if isinstance(leaf, SwarmError):
        return _refuse(program, leaf)
    return ExitStatus.INTERRUPTED if interrupts is not None else ExitStatus.FAILED


def _one_line(program: str, message: str) -> None:
    typer.echo(f"{program}: {' '.join(message.split())}", err=True)
