"""What the README says exists: commands, options, files."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GROUPS = {("swarm-node", "charter"), ("swarm-node", "model"), ("swarm-node", "roster")}


def shown_commands() -> list[str]:
    """Indented command lines of the README, continuation lines joined, comments cut."""
    joined = README.replace("\\\n", " ")
    lines = re.findall(r"^ {4}(swarm-\w+ .*)$", joined, flags=re.MULTILINE)
    return [line.split("  #")[0] for line in lines]


@cache
def help_of(*command: str) -> str:
    program = Path(sys.executable).parent / command[0]
    done = subprocess.run(
        [program, *command[1:], "--help"], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("line", shown_commands())
def test_every_command_in_the_readme_has_the_options_that_it_shows(line: str) -> None:
    words = line.split()
    depth = 3 if tuple(words[:2]) in GROUPS else 2
    text = help_of(*words[:depth])
    for option in (word for word in words if word.startswith("--")):
        assert option in text, f"{option} is not in `{' '.join(words[:depth])} --help`"


@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"(?:`|^    )make (\w+)", README, flags=re.MULTILINE)))
)
def test_every_make_target_in_the_readme_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_of_ours_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
