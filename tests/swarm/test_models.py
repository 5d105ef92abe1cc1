import sys
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch

from ledger.charter import ModelSpec, TomlValue
from ledger.errors import ConfigError
from swarm.conformance import ConformanceError, check_model
from swarm.learning.models import build_model
from swarm.learning.parameters import flatten

OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, inputs, outputs, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, outputs))
    def forward(self, x):
        return self.layers(x)

class Counting(Net):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.calls = 0
    def forward(self, x):
        self.calls += 1
        return super().forward(x) + self.calls

def not_a_model():
    return 3
"""


GOLDEN_START = "7daf413c2da3e63eb630b6be"


def spec(name: str, **arguments: TomlValue) -> ModelSpec:
    return ModelSpec(name=name, arguments=MappingProxyType(arguments))


def build(model: ModelSpec, *, inputs: int = 5, outputs: int = 1, seed: int = 0) -> torch.nn.Module:
    return build_model(model, inputs=inputs, outputs=outputs, seed=seed, allow=("own_net",))


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_net.py").write_text(OWN)
    (tmp_path / "broken_net.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("own_net", "broken_net"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.parametrize(
    "model",
    [
        spec("logistic"),
        spec("mlp"),
        spec("mlp", hidden=()),
        spec("mlp", hidden=(8, 4), dropout=0.5, batch_norm=True),
    ],
)
@pytest.mark.parametrize("outputs", [1, 3])
def test_every_built_in_model_passes_its_exam(model: ModelSpec, outputs: int) -> None:
    check_model(lambda: build(model, outputs=outputs), features=torch.randn(6, 5), outputs=outputs)


def test_logistic_regression_starts_at_zero() -> None:
    assert not flatten(build(spec("logistic"))).any()


def test_the_starting_model_follows_from_the_seed_alone() -> None:
    before = torch.random.get_rng_state()
    one = flatten(build(spec("mlp"), seed=7))
    assert torch.equal(torch.random.get_rng_state(), before), "torch's own generator was moved"
    torch.rand(3)
    assert np.array_equal(flatten(build(spec("mlp"), seed=7)), one)
    assert not np.array_equal(flatten(build(spec("mlp"), seed=8)), one)


def test_the_starting_bits_are_the_same_in_every_release() -> None:
    vector = flatten(build(spec("mlp", hidden=(2,)), inputs=4, seed=1))
    assert vector[:3].tobytes().hex() == GOLDEN_START


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (spec("resnet"), '"resnet" is unknown'),
        (spec("logistic", hidden=(3,)), "logistic.*does not know hidden"),
        (spec("mlp", width=3), "does not know width; it takes hidden, dropout, batch_norm"),
        (spec("mlp", hidden=3), "hidden"),
        (spec("mlp", hidden=(0,)), "hidden"),
        (spec("mlp", hidden=(True,)), "hidden"),
        (spec("mlp", hidden=(8,) * 17), "hidden"),
        (spec("mlp", dropout=1.0), "dropout"),
        (spec("mlp", batch_norm=1), "batch_norm"),
        (spec("python:other.net:Net"), 'add "other" to allow'),
        (spec("python:own_net"), "must look like"),
        (spec("python:own_net:a b"), "must look like"),
        (spec("python:own_net:Missing"), 'has no "Missing"'),
        (spec("python:own_net.sub:Net"), "cannot import"),
        (spec("python:own_net:Net", depth=3), "refused them"),
        (spec("python:own_net:not_a_model"), "gave a int"),
    ],
)
@pytest.mark.usefixtures("own_package")
def test_a_wrong_model_is_one_line_for_the_operator(model: ModelSpec, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        build(model)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("own_package")
def test_a_peer_cannot_name_code_that_the_site_does_not_allow() -> None:
    # The charter is signed by all, but what runs at a hospital is the hospital's own decision.
    with pytest.raises(ConfigError, match="not allowed"):
        build_model(spec("python:broken_net:Net"), inputs=1, outputs=1, seed=0, allow=("own_net",))
    assert "broken_net" not in sys.modules


@pytest.mark.usefixtures("own_package")
def test_own_code_that_fails_to_import_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        build_model(
            spec("python:broken_net:Net"), inputs=1, outputs=1, seed=0, allow=("broken_net",)
        )


@pytest.mark.usefixtures("own_package")
def test_an_own_model_is_told_its_inputs_and_outputs() -> None:
    module = build(spec("python:own_net:Net", width=2), inputs=3, outputs=4, seed=5)
    assert len(flatten(module)) == 3 * 2 + 2 + 2 * 4 + 4
    assert np.array_equal(
        flatten(build(spec("python:own_net:Net", width=2), inputs=3, outputs=4, seed=5)),
        flatten(module),
    )


@pytest.mark.usefixtures("own_package")
def test_the_exam_finds_a_model_with_state_that_is_not_shared() -> None:
    with pytest.raises(ConformanceError):
        check_model(
            lambda: build(spec("python:own_net:Counting")), features=torch.randn(4, 5), outputs=1
        )


def test_the_exam_finds_a_model_of_the_wrong_shape() -> None:
    with pytest.raises(ConformanceError, match="shape"):
        check_model(lambda: torch.nn.Linear(5, 2), features=torch.randn(4, 5), outputs=1)
