"""The house's laws, as far as a machine can see them."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("ledger", "swarm", "node", "scenarios")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def test_imports_keep_the_contracts() -> None:
    tool = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([tool], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_an_auditor_installs_two_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[<>=]", requirement)[0] for requirement in project["dependencies"]]
    assert names == ["msgpack", "pynacl"]


@pytest.mark.parametrize(
    ("module", "strangers"),
    [
        ("ledger.cli", ("torch", "numpy", "trio", "libp2p", "typer", "rich")),
        ("node.cli", ("torch", "libp2p", "duckdb", "sklearn", "numpy")),
        ("scenarios.cli", ("torch", "libp2p", "duckdb", "sklearn", "matplotlib")),
    ],
)
def test_a_command_starts_without_what_it_may_not_need(
    module: str, strangers: tuple[str, ...]
) -> None:
    program = f"import sys, {module}; print([n for n in {strangers!r} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is_and_reads_no_clock_that_it_should_not(path: Path) -> None:
    text = path.read_text()
    assert text.startswith(('"""', "#!")), "the first line says what the module is"
    if path.is_relative_to(ROOT / "swarm") or path.is_relative_to(ROOT / "ledger"):
        assert not re.search(r"\btime\.(time|monotonic|perf_counter)\b|datetime\.now", text)
