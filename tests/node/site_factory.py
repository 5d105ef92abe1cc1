"""Sites as an operator makes them: real commands, real files, for the tests here."""

import csv
import random
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from node.cli import call

SWARM_NODE = Path(sys.executable).with_name("swarm-node")
HEADER = ("age", "crp", "sex", "smoker", "died")


def write_patients(path: Path, rows: int = 60, seed: int = 1) -> Path:
    """Invent patients: two numbers (one with gaps), two categories and an outcome that follows."""
    draw = random.Random(seed)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(HEADER)
        for _ in range(rows):
            age = round(draw.gauss(60, 10), 1)
            crp = round(abs(draw.gauss(20, 15)), 1)
            sex, smoker = draw.choice("FM"), draw.choice(["never", "ex", "current"])
            risk = (age - 60) / 6 + (crp - 20) / 12 + (smoker == "current") + draw.gauss(0, 0.5)
            shown = crp if draw.random() > 0.2 else ""
            table.writerow([age, shown, sex, smoker, "yes" if risk > 0 else "no"])
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Site:
    directory: Path
    port: int

    @property
    def config(self) -> Path:
        return self.directory / "site.toml"

    @property
    def charter(self) -> Path:
        return self.directory / "charter.toml"

    @property
    def patients(self) -> Path:
        return self.directory / "patients.csv"

    @property
    def seed(self) -> Path:
        return self.directory / "keys" / "node.seed"

    def edit(self, old: str, new: str) -> None:
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new))


def make_federation(
    directory: Path,
    names: Sequence[str] = ("Anna",),
    *,
    rounds: int = 1,
    settings: Sequence[str] = (),
) -> list[Site]:
    """Init for each, charter new, charter add; every site gets its copy."""
    sites = []
    for number, name in enumerate(names):
        site = Site(directory / name.lower(), free_port())
        site.directory.mkdir(parents=True)
        write_patients(site.patients, seed=number)
        listen = f"/ip4/127.0.0.1/tcp/{site.port}"
        arguments = ["init", str(site.directory), "--name", name, "--listen", listen]
        assert call([*arguments, "--data", str(site.patients)]) == 0
        sites.append(site)
    charter = directory / "charter.toml"
    set_ = [f"--set=rounds.members_min={min(2, len(names))}", *(f"--set={one}" for one in settings)]
    arguments = ["charter", "new", str(charter), "--federation", "test", "--label", "died"]
    arguments += ["--data", str(sites[0].patients), "--rounds", str(rounds), *set_]
    assert call(arguments) == 0
    assert (
        call(["charter", "add", str(charter), *(f"{s.directory}/member.toml" for s in sites)]) == 0
    )
    for site in sites:
        site.charter.write_bytes(charter.read_bytes())
    return sites


def run_command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `swarm-node` as a shell would."""
    return subprocess.run(
        [SWARM_NODE, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


def assert_one_line_error(stderr: str, *words: str) -> None:
    """One line, prefixed, without a traceback, that says all of ``words``."""
    lines = stderr.strip().splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("swarm-node: ")
    assert "Traceback" not in stderr
    for word in words:
        assert word in lines[0], lines[0]
