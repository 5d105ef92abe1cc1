"""What the commands of `swarm-scenario` share: exit statuses, and how they end. Room: scenarios."""

from typing import Final, NoReturn

import typer

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130


def fail(message: str, status: int) -> NoReturn:
    """End with one line and an exit status."""
    typer.echo(f"swarm-scenario: {message}", err=True)
    raise typer.Exit(status)
