"""Outer optimisers: FedAvg at rate one, the papers' formulas, the same bits, state in the result."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.learning.outer import OUTER, Adaptive, Nesterov, outer_of, outer_step

NAMES = [name for name in OUTER if name != "fedavg"]


def start(name: str, parameters: np.ndarray) -> np.ndarray:
    moments = np.zeros(outer_of(name).moments * parameters.size, dtype=np.float32)
    return np.concatenate([parameters, moments])


def vector(seed: int, count: int = 50) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count).astype(np.float32)


def test_fedavg_takes_the_mean_as_it_is() -> None:
    base, mean = vector(1), vector(2)
    np.testing.assert_allclose(outer_step(outer_of("fedavg"), base, mean), mean, rtol=1e-6)


def test_nesterov_without_momentum_at_rate_one_is_fedavg() -> None:
    base, mean = vector(1), vector(2)
    state = outer_step(Nesterov(rate=1.0, momentum=0.0), np.concatenate([base, base * 0]), mean)
    np.testing.assert_allclose(state[:50], mean, rtol=1e-5)


def test_diloco_is_torchs_nesterov_on_the_pseudo_gradient() -> None:
    parameter = torch.from_numpy(vector(1)).double()
    velocity = torch.zeros_like(parameter)
    state = start("diloco", vector(1))
    for round_ in range(10):
        mean = (parameter.numpy() * 0.9 + vector(round_ + 5)).astype(np.float32)
        gradient = parameter - torch.from_numpy(mean).double()
        velocity = velocity * 0.9 + gradient
        parameter = parameter - 0.7 * (gradient + 0.9 * velocity)
        state = outer_step(outer_of("diloco"), state, mean)
        np.testing.assert_allclose(state[:50], parameter.numpy(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["fedadam", "fedyogi", "fedadagrad"])
def test_adaptive_steps_follow_the_paper(name: str) -> None:
    rate, beta_1, beta_2, tau = 0.1, 0.9, 0.99, 1e-3
    x, m, v = vector(1).astype(float), np.zeros(50), np.zeros(50)
    state = start(name, vector(1))
    for round_ in range(12):
        mean = vector(round_ + 9)
        delta = mean.astype(float) - x
        m = beta_1 * m + (1 - beta_1) * delta
        if name == "fedadagrad":
            v = v + delta**2
        elif name == "fedyogi":
            v = v - (1 - beta_2) * delta**2 * np.sign(v - delta**2)
        else:
            v = beta_2 * v + (1 - beta_2) * delta**2
        x = x + rate * m / (np.sqrt(v) + tau)
        state = outer_step(outer_of(name), state, mean)
        np.testing.assert_allclose(state[:50], x, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", OUTER)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 70_000))
def test_blocks_and_repeats_give_the_same_bits(name: str, seed: int, count: int) -> None:
    base, mean = start(name, vector(seed, count)), vector(seed + 1, count)
    whole = outer_step(outer_of(name), base, mean)
    half = count // 2
    if half:
        states = base.reshape(-1, count)
        parts = [
            outer_step(outer_of(name), states[:, cut].reshape(-1), mean[cut]).reshape(-1, end)
            for cut, end in ((slice(0, half), half), (slice(half, count), count - half))
        ]
        assert np.concatenate(parts, axis=1).reshape(-1).tobytes() == whole.tobytes()
    assert outer_step(outer_of(name), base, mean).tobytes() == whole.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_swarm_that_agrees_stays_where_it_is(name: str) -> None:
    state = start(name, vector(3))
    for _ in range(5):
        state = outer_step(outer_of(name), state, state[:50].copy())
    np.testing.assert_array_equal(state, start(name, vector(3)))


def test_a_state_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="is none for 50 parameters"):
        outer_step(outer_of("fedadam"), vector(1), vector(2))


def test_a_step_that_explodes_is_refused() -> None:
    huge = np.full(3, 3e38, dtype=np.float32)
    with pytest.raises(ValueError, match="lower its rate"), np.errstate(over="ignore"):
        outer_step(Nesterov(rate=10.0), np.concatenate([huge, huge]), -huge)


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match="fedyogi"):
        outer_of("fedsgd")


def test_the_rate_is_the_charters() -> None:
    assert outer_of("fedadam", rate=0.5) == Adaptive(kind="adam", rate=0.5)
