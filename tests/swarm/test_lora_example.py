"""The adapters' example: what its README says of bytes and of what is learned."""

import importlib
import re
import shutil
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "lora"
ROUNDS = 6


def test_adapters_learn_with_a_twentieth_of_the_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "lora"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    monkeypatch.syspath_prepend(folder)
    for name in ("lora_model", "lora_model.net", "lora_model.pictures", "pretrain", "compare"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.import_module("pretrain").main()
    compare = importlib.import_module("compare")
    monkeypatch.setattr(compare, "ROUNDS", ROUNDS)
    said = dict(
        re.findall(
            r"^ +(\w[\w ]+): +([\d,]+) bytes", (EXAMPLE / "README.md").read_text(), re.MULTILINE
        )
    )
    assert said.keys() == compare.WAYS.keys()
    whole, _ = compare.federate(*compare.WAYS["everything"])
    adapters, accuracy = compare.federate(*compare.WAYS["adapters"])
    _, before = compare.federate(*compare.WAYS["nothing"])
    assert (f"{whole:,}", f"{adapters:,}") == (said["everything"], said["adapters"])
    assert whole > 20 * adapters
    assert accuracy > before + 0.5
