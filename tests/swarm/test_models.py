import hashlib
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
GOLDEN_CNN = "a8df410f7ac8c45d"


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
        spec("cnn", shape=(1, 5)),
        spec("cnn", shape=(1, 5, 1), channels=(2, 3, 4), kernel=1, batch_norm=True),
    ],
)
@pytest.mark.parametrize("outputs", [1, 3])
def test_every_built_in_model_passes_its_exam(model: ModelSpec, outputs: int) -> None:
    check_model(lambda: build(model, outputs=outputs), features=torch.randn(6, 5), outputs=outputs)


@pytest.mark.parametrize(("shape", "inputs"), [((1, 8, 8), 64), ((3, 7, 5), 0), ((2, 33), 0)])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_cnn_takes_columns_and_pictures_as_they_come(
    shape: tuple[int, ...], inputs: int, *, batch_norm: bool
) -> None:
    model = spec("cnn", shape=shape, channels=(4, 5), kernel=5, batch_norm=batch_norm)
    module = build(model, inputs=inputs, outputs=3)
    pictures = torch.randn(6, *shape)
    check_model(lambda: build(model, inputs=inputs, outputs=3), features=pictures, outputs=3)
    module.eval()
    assert torch.equal(module(pictures), module(pictures.reshape(6, -1)))


def test_convolutions_are_torchs_own() -> None:
    module = build(spec("cnn", shape=(2, 6, 6), channels=(3,)), inputs=72, outputs=4)
    pictures = torch.randn(5, 2, 6, 6)
    weight, bias, last, last_bias = module.parameters()
    hidden = torch.relu(torch.nn.functional.conv2d(pictures, weight, bias, padding=1))
    pooled = hidden.reshape(5, 3, 3, 2, 3, 2).amax(dim=(3, 5)).reshape(5, -1)
    torch.testing.assert_close(module(pictures), pooled @ last.T + last_bias)
    assert bool((weight.detach().abs() <= 1 / (2 * 9) ** 0.5).all())
    assert float(weight.detach().abs().max()) > 0.9 / (2 * 9) ** 0.5


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
    vector = flatten(build(spec("cnn", shape=(1, 5), channels=(2,)), seed=1))
    assert hashlib.sha256(vector.tobytes()).hexdigest()[:16] == GOLDEN_CNN


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
        (spec("cnn"), "shape: need"),
        (spec("cnn", shape=(5,)), "shape: need"),
        (spec("cnn", shape=(1, 6)), "are 6 values, and the charter's columns are 5"),
        (spec("cnn", shape=(1, 60_000, 60_000)), "shape: need"),
        (spec("cnn", shape=(1, 5), kernel=2), "kernel: need an odd"),
        (spec("cnn", shape=(1, 5), channels="8"), "channels"),
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
