"""Real nodes: hospitals that accept no connection take part fully, and nobody else notices."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from site_factory import SWARM_NODE, Site, free_port, make_federation

from node.cli import call
from node.config import socket_path
from node.status import ask

pytestmark = pytest.mark.processes

ROUNDS = 4
WALL_S_MAX = 240.0


class Running:
    """`swarm-node run` for some sites; whatever happens, none outlives the test."""

    def __init__(self) -> None:
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, site: Site) -> None:
        with (site.directory / "console.log").open("ab") as console:
            self.processes[site.directory.name] = subprocess.Popen(
                [SWARM_NODE, "run", "--config", site.config, "--linger", "60"],
                stdout=console,
                stderr=subprocess.STDOUT,
            )

    def stop(self, site: Site) -> None:
        process = self.processes[site.directory.name]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0, console_of(site)

    def wait(self, sites: list[Site]) -> None:
        deadline_s = time.monotonic() + WALL_S_MAX
        for site in sites:
            left_s = max(1.0, deadline_s - time.monotonic())
            assert self.processes[site.directory.name].wait(left_s) == 0, console_of(site)

    def ended(self, site: Site) -> bool:
        return self.processes[site.directory.name].poll() is not None

    def listening_ports(self, site: Site) -> list[int]:
        """Ports of TCP that the kernel says this node listens on; none once it has ended."""
        if self.ended(site):
            return []
        process = Path(f"/proc/{self.processes[site.directory.name].pid}")
        sockets = {str(link.readlink()) for link in (process / "fd").iterdir() if link.is_symlink()}
        rows = [
            line.split()
            for table in ("tcp", "tcp6")
            for line in (process / "net" / table).read_text().splitlines()[1:]
        ]
        return [
            int(row[1].rsplit(":", 1)[1], 16)
            for row in rows
            if row[3] == "0A" and f"socket:[{row[9]}]" in sockets
        ]


@pytest.fixture
def running() -> Iterator[Running]:
    nodes = Running()
    yield nodes
    for process in nodes.processes.values():
        if process.poll() is None:
            process.kill()
            process.wait()


def console_of(site: Site) -> str:
    return (site.directory / "console.log").read_text()[-3000:]


def until(condition: Callable[[], object], *, s: float = 120.0) -> None:
    deadline_s = time.monotonic() + s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come to that"
        time.sleep(0.05)


def reached(site: Site) -> dict[str, str]:
    """How a running node reaches each member, as `status --json` says."""
    status = ask(socket_path(site.directory)) or {"members": []}
    return {one["name"]: one["reached"] for one in status["members"] if not one["self"]}


def doctor_of(site: Site, capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[str, str]]:
    """Each member's line of `doctor --network`: its level and how it begins."""
    capsys.readouterr()
    assert call(["doctor", "--network", "--json", "--config", str(site.config)]) == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    found = [one for one in findings if one["check"] == "dial"]
    lines = {one["what"].split()[0].rstrip(":"): one for one in found}
    return {
        name: (one["level"], one["what"].removeprefix(f"{name}: ").split(":")[0])
        for name, one in lines.items()
    }


def events(site: Site, name: str) -> list[dict[str, object]]:
    lines = (site.directory / "node.log").read_text().splitlines()
    return [entry for line in lines if (entry := json.loads(line))["event"] == name]


def hospitals(directory: Path) -> list[Site]:
    """Four of them; no round begins before all have started."""
    names = ("Anna", "Berta", "Clara", "Dora")
    return make_federation(directory, names, rounds=ROUNDS, settings=("rounds.start_wait_s=100",))


def accept_no_connection(site: Site) -> None:
    site.edit("inbound = true", "inbound = false")


def test_two_hospitals_accept_no_connection_one_moves_and_every_round_is_agreed_by_all(
    tmp_path: Path, running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    sites = anna, berta, clara, dora = hospitals(tmp_path)
    accept_no_connection(clara)
    accept_no_connection(dora)
    files = {site: (site.charter.read_bytes(), site.config.read_bytes()) for site in sites}
    for site in (anna, berta, dora):
        running.start(site)
    until(lambda: reached(dora) == {"Anna": "direct", "Berta": "direct", "Clara": "unreachable"})
    running.stop(anna)
    port = free_port()
    anna.edit(f"/tcp/{anna.port}", f"/tcp/{port}")
    running.start(anna)
    # Dora accepts no connection: it heard from Berta where Anna is now, and dialled it.
    until(lambda: reached(dora).get("Anna") == "direct")
    (learnt,) = events(dora, "address_learnt")
    assert learnt["addresses"] == [f"/ip4/127.0.0.1/tcp/{port}"]
    assert doctor_of(dora, capsys) == {  # asked over its socket
        "Anna": ("ok", "direct"), "Berta": ("ok", "direct"), "Clara": ("warn", "refused"),
    }  # fmt: skip
    assert doctor_of(clara, capsys) == {  # dials by itself, and hears from Berta where the others are
        "Anna": ("ok", "Anna answers"), "Berta": ("ok", "Berta answers"),
        "Dora": ("ok", "via Berta; it accepts no connection (outbound only)"),
    }  # fmt: skip
    running.start(clara)
    until(lambda: reached(clara).get("Dora", "").startswith("via ") or running.ended(clara))
    assert running.listening_ports(anna) in ([port], [])  # none: it has left
    assert running.listening_ports(clara) == running.listening_ports(dora) == []
    running.wait(sites)
    for site in sites:
        closed = [(one["agreed"], one["merged"]) for one in events(site, "round_closed")]
        assert closed == [(True, 4)] * ROUNDS, f"{site.directory.name} left somebody out"
    assert len({str(events(site, "finished")[0]["model"]) for site in sites}) == 1
    assert "Dora" in {event["name"] for event in events(clara, "peer_carried")}
    # Who said that it cannot be dialled is not dialled, although the charter has an address.
    assert not [one for one in events(clara, "dial_failed") if one["name"] == "Dora"][3:]
    for site in (berta, clara, dora):
        assert (site.charter.read_bytes(), site.config.read_bytes()) == files[site]
