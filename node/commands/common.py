"""What every command shares: options, the site it works on, exit statuses, output.

Room: node. Law: results go to stdout, everything else to stderr; errors are one line.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from node.config import SiteConfig


ConfigPath = Annotated[
    Path,
    typer.Option("--config", "-c", help="The site's configuration file.", metavar="FILE"),
]
SetValues = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Override a setting, e.g. run.threads=2. Repeatable.", metavar="KEY=VALUE"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]

SITE_DEFAULT = Path("site.toml")


def open_site(path: Path, overrides: Mapping[str, str] | None = None) -> "SiteConfig":
    """Load a site's settings and make its own Python modules importable."""
    from node.config import load_site

    config = load_site(path, overrides)
    sys.path[:0] = [str(folder) for folder in config.python_path if str(folder) not in sys.path]
    return config


def split_overrides(assignments: Sequence[str] | None) -> dict[str, str]:
    """Turn ``["run.threads=2"]`` into ``{"run.threads": "2"}``."""
    from ledger.errors import ConfigError

    overrides = {}
    for assignment in assignments or ():
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set {assignment}: write it as key=value")
        overrides[key.strip()] = value.strip()
    return overrides


def say(text: str = "") -> None:
    """Print a result."""
    typer.echo(text)


def note(text: str) -> None:
    """Print something for the person at the terminal, beside the result."""
    typer.echo(text, err=True)


def say_json(value: Any) -> None:
    """Print a result for machines."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def refuse_existing(path: Path) -> None:
    """Raise ConfigError if ``path`` is there: nothing of the operator's is overwritten."""
    from ledger.errors import ConfigError

    if path.exists():
        raise ConfigError(f"{path} exists: choose another name, or move it away")


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing."""
    from ledger.errors import ConfigError

    partial = path.with_name(f".{path.name}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
