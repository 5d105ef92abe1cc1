"""Strangers at a running hospital's port, from a machine of their own on the switch.

Room: scenarios. Runs as a program in the attackers' namespace: attack, host, port, seconds, key of the
node that is attacked; prints what came of it as JSON.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from scenarios.commands import ScenarioError
from scenarios.strangers import ATTACKS, Outcome, no_member

ATTACK_S: Final = 6.0
TIMEOUT_S: Final = 120.0
KIB: Final = 1024


def attacks(network_key: bytes) -> Mapping[str, Callable[..., Outcome]]:
    """Every attack by name."""
    named: dict[str, Callable[..., Outcome]] = {one.__name__: one for one in ATTACKS}
    named["no_member"] = partial(no_member, network_key=network_key)
    return MappingProxyType(named)


def attack_from(
    prefix: tuple[str, ...], name: str, host: str, port: int, *, network_key: bytes
) -> dict[str, Any]:
    """Run one attack behind ``prefix`` (a namespace); return its outcome. Raises ScenarioError."""
    words = [name, host, str(port), str(ATTACK_S), network_key.hex()]
    done = subprocess.run(  # noqa: S603 - our own module
        [*prefix, sys.executable, "-m", "scenarios.faults.attacks", *words],
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise ScenarioError(f"the attack {name} broke: {done.stderr.strip()[-300:]}")
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def memory_mb(pid: int) -> float:
    """Resident memory of a process now."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / KIB
    raise ScenarioError(f"process {pid} has no memory to look at")


def listening(pid: int) -> int:
    """TCP sockets that listen in a process's network namespace."""
    tables = [
        Path(f"/proc/{pid}/net/{name}").read_text(encoding="utf-8") for name in ("tcp", "tcp6")
    ]
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    return sum(row[3] == "0A" for row in rows)


def main(words: list[str]) -> None:
    """Attack as the words say."""
    name, host, port, seconds, key = words
    outcome = attacks(bytes.fromhex(key))[name](host, int(port), seconds=float(seconds))
    print(json.dumps(asdict(outcome)))  # noqa: T201 - its answer


if __name__ == "__main__":
    main(sys.argv[1:])
