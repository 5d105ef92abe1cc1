"""What the commands of `swarm-scenario` share: exit statuses, and how they end. Room: scenarios."""

from pathlib import Path
from typing import Final, NoReturn

import typer

from ledger.errors import ConfigError

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130


def fail(message: str, status: int) -> NoReturn:
    """End with one line and an exit status."""
    typer.echo(f"swarm-scenario: {message}", err=True)
    raise typer.Exit(status)


def check_json(path: Path | None) -> None:
    """Raise ConfigError before any work if ``--json`` names a file in a folder that is not there."""
    if path is not None and not path.absolute().parent.is_dir():
        raise ConfigError(f"--json {path}: there is no folder {path.absolute().parent}")
