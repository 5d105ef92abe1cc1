"""Attacks on a running hospital's port, by strangers and by a member, from another machine on the switch.

Room: scenarios. Runs as a program in the attacker's namespace: one JSON object says who attacks whom;
prints what came of it as JSON.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from scenarios import bad_member, strangers
from scenarios.commands import ScenarioError
from scenarios.faults.logs import now_s
from scenarios.strangers import Outcome

ATTACK_S: Final = 6.0
TIMEOUT_S: Final = 120.0
LOOK_S: Final = 0.05
GROWTH_MB_MAX: Final = 64.0
"""By how much a node may grow under any of the attacks: docs/adr/0012 bounds what it holds by half of it."""
KIB: Final = 1024
STRANGERS: Final = (*(one.__name__ for one in strangers.ATTACKS), strangers.no_member.__name__)
MEMBERS: Final = tuple(bad_member.ATTACKS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """Who is attacked, and as whom."""

    host: str
    port: int
    network_key: str
    """Of the node that is attacked, hexadecimal."""
    net: str = ""
    """The charter's digest, hexadecimal. A member's attacks need it, and the next."""
    directory: str = ""
    """The attacking member's own site."""


def attack(name: str, order: Order) -> Outcome:
    """Attack from here."""
    key = bytes.fromhex(order.network_key)
    if name in MEMBERS:
        from node.config import SitePaths
        from node.identity import load_identity

        target = bad_member.Target.of(
            order.host, order.port, network_key=key, net=bytes.fromhex(order.net),
            network_seed=load_identity(SitePaths(Path(order.directory))).network_seed,
        )  # fmt: skip
        return bad_member.attack_as_member(name, target, seconds=ATTACK_S)
    named: dict[str, Callable[..., Outcome]] = {one.__name__: one for one in strangers.ATTACKS}
    named["no_member"] = partial(strangers.no_member, network_key=key)
    return named[name](order.host, order.port, seconds=ATTACK_S)


def attack_from(prefix: tuple[str, ...], name: str, order: Order, *, victim: int) -> dict[str, Any]:
    """Run one attack behind ``prefix`` (a namespace) while looking at what process ``victim`` takes.

    Returns its outcome, when it began and ended (seconds since the epoch), and by how many MB the victim
    grew at most. Raises ScenarioError.
    """
    before_mb = most_mb = memory_mb(victim)
    words = [name, json.dumps(asdict(order))]
    with subprocess.Popen(  # noqa: S603 - our own module
        [*prefix, sys.executable, "-m", "scenarios.faults.attacks", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as attacker:  # fmt: skip
        ends_s = time.monotonic() + TIMEOUT_S
        while attacker.poll() is None:
            most_mb = max(most_mb, memory_mb(victim))
            if time.monotonic() > ends_s:
                attacker.kill()
                raise ScenarioError(f"the attack {name} does not end")
            time.sleep(LOOK_S)
        said, errors = attacker.communicate()
    if attacker.returncode != 0:
        raise ScenarioError(f"the attack {name} broke: {errors.strip()[-300:]}")
    outcome: dict[str, Any] = json.loads(said)
    return {**outcome, "memory_growth_mb": round(most_mb - before_mb, 1)}


def attack_failures(name: str, *, growth_mb: float, rounds: int) -> list[str]:
    """What is wrong with a node that grew by so much and completed so many rounds under an attack."""
    return [
        *(
            [f"{name}: grew by {growth_mb} MB (limit {GROWTH_MB_MAX:.0f})"]
            if growth_mb > GROWTH_MB_MAX
            else []
        ),
        *([f"{name}: no round was completed while it lasted"] if rounds == 0 else []),
    ]


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
    name, order = words
    began_s = now_s()
    outcome = asdict(attack(name, Order(**json.loads(order))))
    answer = {**outcome, "began_s": began_s, "ended_s": now_s()}
    print(json.dumps(answer))  # noqa: T201 - its answer


if __name__ == "__main__":
    main(sys.argv[1:])
