"""`training.trained`: what no pattern matches is not trained, not sent, and the same everywhere."""

import numpy as np
import pytest
import torch
from torch import nn

from ledger.errors import ConfigError
from swarm.learning.layouts import layout_of
from swarm.learning.parameters import Layout, flatten, load
from swarm.learning.training import predict, train_site
from tests.swarm.local_sites import charter_with, normed, rows, site_of


class Tied(nn.Module):
    """An input layer whose weight the output layer shares, in half precision where asked."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Linear(3, 3, dtype=dtype)
        self.second = nn.Linear(3, 3, dtype=dtype)
        self.second.weight = self.first.weight
        self.last = nn.Linear(3, 1, dtype=dtype)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.second(torch.relu(self.first(x.to(self.last.weight.dtype)))))
        return self.last(hidden).float()


def bits(module: nn.Module) -> dict[str, bytes]:
    return {
        name: tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        for name, tensor in module.state_dict().items()
    }


def trained_names(module: nn.Module, patterns: list[str]) -> tuple[Layout, set[str]]:
    before, layout = bits(module), Layout.of(module, trained=patterns)
    train_site(site_of(rows(), module, layout=layout))
    after = bits(module)
    return layout, {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("patterns", "sent"),
    [
        (["3.*"], {"3.weight", "3.bias"}),
        (["*.bias"], {"0.bias", "1.bias", "3.bias"}),
        (["0.weight", "?.bias"], {"0.weight", "0.bias", "1.bias", "3.bias"}),
        (["1.*"], {"1.weight", "1.bias", "1.running_mean", "1.running_var"}),
    ],
)
def test_only_what_a_pattern_matches_is_trained_and_sent(
    patterns: list[str], sent: set[str]
) -> None:
    layout, changed = trained_names(normed(), patterns)
    assert set(layout.names) == sent
    assert changed - {"1.num_batches_tracked"} == sent


def test_all_else_keeps_its_bits_running_statistics_and_counters_too() -> None:
    layout, changed = trained_names(normed(), ["3.*"])
    assert changed == {"3.weight", "3.bias"}
    assert {"1.running_mean", "1.num_batches_tracked"} <= layout.frozen


def test_another_base_model_has_another_digest() -> None:
    layouts = [Layout.of(normed(seed), trained=["3.*"]) for seed in (0, 0, 1)]
    assert layouts[0].names == layouts[2].names
    assert layouts[0].digest == layouts[1].digest != layouts[2].digest
    module = normed()
    with torch.no_grad():
        module[1].running_mean[2] += 1e-6  # type: ignore[index]
    assert Layout.of(module, trained=["3.*"]).digest != layouts[0].digest
    assert Layout.of(normed(0)).digest == Layout.of(normed(1)).digest
    assert Layout.of(normed(), trained=["*"]).frozen == frozenset()


@pytest.mark.parametrize("pattern", ["first.weight", "second.weight", "second.*"])
def test_a_tied_weight_is_chosen_by_any_of_its_names_and_sent_once(pattern: str) -> None:
    layout, changed = trained_names(Tied(), [pattern])
    assert "first.weight" in layout.names
    assert "second.weight" not in layout.names
    assert {"first.weight", "second.weight"} <= changed
    assert "last.weight" in layout.frozen


def test_what_the_models_author_froze_is_sent_if_chosen_but_never_moves() -> None:
    module = normed()
    module[3].weight.requires_grad_(False)  # type: ignore[index]
    layout, changed = trained_names(module, ["3.*"])
    assert layout.names == ("3.weight", "3.bias")
    assert changed == {"3.bias"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_of_other_precision_travel_as_float32_and_come_back(dtype: torch.dtype) -> None:
    module, twin = Tied(dtype), Tied(dtype)
    layout = Layout.of(module, trained=["last.*"])
    frozen = {name: value for name, value in bits(module).items() if not name.startswith("last")}
    result = train_site(site_of(rows(), module, layout=layout))
    assert result.parameters.dtype == np.float32
    load(twin, result.parameters, layout)
    assert np.array_equal(flatten(twin, layout), result.parameters)
    assert np.allclose(predict(twin, rows()), predict(module, rows()), rtol=1e-5)
    after = bits(module)
    assert all(after[name] == value for name, value in frozen.items())
    assert bits(twin).keys() == after.keys()


def test_other_precision_of_what_is_frozen_is_another_model() -> None:
    digests = {
        Layout.of(Tied(dtype), trained=["last.*"]).digest
        for dtype in (torch.float16, torch.bfloat16, torch.float32)
    }
    assert len(digests) == 3


def test_a_pattern_that_matches_nothing_names_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r'called like "\*lora\*"; there are 0\.weight'):
        layout_of(charter_with(training='trained = ["*lora*", "3.*"]'), normed())
    with pytest.raises(ConfigError, match="nothing learns"):
        layout_of(charter_with(training='trained = ["*running*"]'), normed())


def test_outer_steps_along_running_statistics_are_refused() -> None:
    charter = charter_with('strategy = "fedadam"')
    with pytest.raises(ConfigError, match=r'running statistics such as "1\.running_mean"'):
        layout_of(charter, normed())
    some = charter_with('strategy = "fedadam"', training='trained = ["3.*"]')
    assert layout_of(some, normed()).count == 5
