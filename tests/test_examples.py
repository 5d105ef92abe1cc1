"""The example's README, run literally: three real nodes, an own table, an own model."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scenarios.commands import free_ports

pytestmark = pytest.mark.processes

EXAMPLE = Path(__file__).parent.parent / "examples" / "own-model"
TIMEOUT_S = 120.0


def commands(text: str) -> list[str]:
    """Every indented command line of a README, in order."""
    return re.findall(r"^ {4}((?:python|swarm-\w+|cp) .*)$", text, flags=re.MULTILINE)


def test_the_example_works_as_its_readme_says(tmp_path: Path) -> None:
    folder = tmp_path / "own-model"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    readme = (EXAMPLE / "README.md").read_text()
    for old, new in zip((4101, 4102, 4103), free_ports(3), strict=True):
        readme = readme.replace(f"/tcp/{old}", f"/tcp/{new}")
    scripts = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    nodes: list[subprocess.Popen[str]] = []
    printed = ""
    try:
        for line in commands(readme):
            words = shlex.split(line)
            if words[:2] == ["swarm-node", "run"]:
                nodes.append(
                    subprocess.Popen(
                        words, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
                    )
                )
                continue
            while nodes and words[0] == "swarm-node":
                node = nodes.pop()
                _, log = node.communicate(timeout=TIMEOUT_S)
                assert node.returncode == 0, log
            done = subprocess.run(
                words, cwd=folder, env=environment, capture_output=True, text=True,
                timeout=TIMEOUT_S, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            printed = done.stdout
    finally:
        for node in nodes:
            node.kill()
            node.wait()
    auc = re.search(r"auc\D+(\d\.\d+)", printed, flags=re.IGNORECASE)
    assert auc is not None, printed
    assert 0.6 < float(auc[1]) < 0.95
