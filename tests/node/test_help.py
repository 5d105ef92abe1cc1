"""Every command of `swarm-node` shows an example of itself and can speak to machines."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from node.cli import app


def commands() -> Iterator[tuple[str, Any]]:
    pending: list[tuple[str, Any]] = [("swarm-node", typer.main.get_command(app))]
    while pending:
        name, command = pending.pop()
        inside = getattr(command, "commands", None)
        if inside is None:
            yield name, command
        else:
            pending += [(f"{name} {word}", one) for word, one in inside.items()]


@pytest.mark.parametrize("name", sorted(name for name, _ in commands()))
def test_every_command_has_an_example_and_json(name: str) -> None:
    command = dict(commands())[name]
    examples = [line for line in (command.help or "").splitlines() if f" {name} " in f" {line} "]
    assert examples, f"`{name} --help` shows no `{name} …`"
    assert "--json" in {option for one in command.params for option in one.opts}
