"""The commands that a hospital types, run as it would run them.

Room: scenarios. Law: no back channel: a site is made, joined, asked and exported only by its own
commands and by editing its site.toml; a command that fails is reported with its own last line.
"""

import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from random import SystemRandom
from typing import Final

from ledger.errors import SwarmError
from node.knobs import Value, to_toml

COMMAND_TIMEOUT_S: Final = 120.0
LOOPBACK: Final = "127.0.0.1"
PORTS: Final = range(20_000, 32_000)
"""Below those from which Linux and others give outgoing connections theirs: such a port may be taken at any time."""


class ScenarioError(SwarmError):
    """A step of the scenario did not work: one line that names the step."""


def program(name: str) -> str:
    """Path of an installed command, the one beside this Python first."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise ScenarioError(f"{name} is not installed beside {sys.executable}: run `make setup`")
    return found


def command(name: str, *arguments: str | Path, accept: Sequence[int] = (0,)) -> tuple[int, str]:
    """Run a command to its end; return exit status and what it printed.

    Raises ScenarioError with the last line of its errors when the status is none of ``accept``.
    """
    line = [program(name), *map(str, arguments)]
    try:
        done = subprocess.run(  # noqa: S603 - our own commands, no shell
            line,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise ScenarioError(
            f"{name} {arguments[0]} took longer than {COMMAND_TIMEOUT_S:.0f} s"
        ) from None
    if done.returncode not in accept:
        raise ScenarioError(
            f"{name} {arguments[0]} ended with exit status {done.returncode}: "
            f"{last_line(done.stderr) or last_line(done.stdout) or 'no message'}"
        )
    return done.returncode, done.stdout


def last_line(text: str) -> str:
    """Return the last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def edit_site(path: Path, settings: Mapping[str, Value]) -> None:
    """Set keys in a site.toml as one does in an editor: the line changes, its comment stays.

    settings: dotted keys, `data.source` → value; a commented-out default counts as the key's line.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    for key, value in settings.items():
        table, _, name = key.rpartition(".")
        assignment = f"{name} = {to_toml(value)}"
        start, stop = _section(lines, table)
        pattern = re.compile(rf"#?\s*{re.escape(name)}\s*=")
        at = next((i for i in range(start, stop) if pattern.match(lines[i])), None)
        if at is None:
            lines.insert(start, assignment)
        else:
            lines[at] = assignment
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _section(lines: Sequence[str], table: str) -> tuple[int, int]:
    """First and last-plus-one line of a table's body; the top of the file for an empty name."""
    headers = [i for i, line in enumerate(lines) if re.match(r"\[", line)]
    start = 0
    if table:
        header = next((i for i in headers if lines[i].split("#")[0].strip() == f"[{table}]"), None)
        if header is None:
            raise ScenarioError(f"site.toml has no [{table}] table")
        start = header + 1
    return start, next((i for i in headers if i >= start), len(lines))


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different; none that the system gives to outgoing connections."""
    ports: list[int] = []
    with ExitStack() as stack:
        for port in SystemRandom().sample(PORTS, len(PORTS)):
            line = stack.enter_context(socket.socket())
            with suppress(OSError):
                line.bind((LOOPBACK, port))
                ports.append(port)
            if len(ports) == count:
                return ports
    raise ScenarioError(f"no {count} free ports from {PORTS.start} to {PORTS.stop - 1}")


def tail(path: Path, lines: int) -> Iterator[str]:
    """Yield the last lines of a file that may be large or missing."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 4096 * max(1, lines // 8)))
            text = file.read().decode(errors="replace")
    except OSError:
        return
    yield from text.splitlines()[-lines:]
