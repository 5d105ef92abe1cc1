"""Golden vectors: files that a script writes from fixed seeds, and that must be what it writes now."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_vectors(folder: Path, name: str, *, number: int) -> Any:
    """Return what one vector file holds."""
    document = json.loads((folder / name).read_text())
    assert document["format"] == number
    return document["vectors"]


def assert_committed(folder: Path, made: Mapping[str, str], script: str) -> None:
    """The folder holds these files, and each of them to the letter."""
    assert sorted(made) == sorted(path.name for path in folder.glob("*.json"))
    for name, text in made.items():
        assert (folder / name).read_text() == text, f"run {script} ({name})"
