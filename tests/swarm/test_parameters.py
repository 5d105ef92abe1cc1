import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ledger.errors import ConfigError
from swarm.learning.parameters import Layout, flatten, load


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inward = nn.Linear(3, 3, bias=False)
        self.outward = nn.Linear(3, 3)
        self.outward.weight = self.inward.weight


@given(st.integers(0, 2**31))
def test_a_vector_survives_the_journey_into_a_model_and_back(seed: int) -> None:
    module = network()
    vector = np.random.default_rng(seed).normal(size=Layout.of(module).count).astype(np.float32)
    load(module, vector)
    assert np.array_equal(flatten(module), vector)
    assert np.array_equal(Layout.of(module).join(Layout.of(module).unflatten(vector)), vector)


def test_running_statistics_travel_and_counters_stay() -> None:
    names = Layout.of(network()).names
    assert "1.running_mean" in names
    assert "1.running_var" in names
    assert "1.num_batches_tracked" not in names


def test_buffers_that_are_not_stored_stay() -> None:
    module = nn.Linear(1, 1)
    module.register_buffer("scratch", torch.zeros(5), persistent=False)
    assert Layout.of(module).count == 2


def test_a_tied_weight_is_sent_once() -> None:
    module = Tied()
    assert Layout.of(module).count == 12
    load(module, np.arange(12, dtype=np.float32))
    assert torch.equal(module.inward.weight, module.outward.weight)


def test_models_that_differ_in_name_or_shape_have_another_digest() -> None:
    digests = {
        Layout.of(module).digest
        for module in (network(), nn.Linear(3, 4), nn.Linear(4, 3), nn.Sequential(nn.Linear(3, 4)))
    }
    assert len(digests) == 4


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 16"):
        load(nn.Linear(3, 4), np.zeros(15, np.float32))


def test_a_loaded_model_does_not_share_memory_with_the_vector() -> None:
    vector = np.zeros(2, np.float32)
    module = nn.Linear(1, 1)
    load(module, vector)
    vector[:] = 9
    assert not flatten(module).any()


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize("module", [nn.LazyLinear(2), nn.Linear(1, 1, dtype=torch.complex64)])
def test_parameters_that_no_float_vector_holds_are_the_operators_error(module: nn.Module) -> None:
    with pytest.raises(ConfigError, match="parameter"):
        Layout.of(module)
