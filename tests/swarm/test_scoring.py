"""Projections are exact and close enough; leaving one out equals merging again, for every kind of model."""

import hashlib
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from swarm.learning.aggregation import weighted_mean
from swarm.learning.batches import MatrixBatches
from swarm.learning.models import Logistic, Mlp
from swarm.learning.parameters import Layout, flatten, load
from swarm.learning.rows import Vector
from swarm.learning.training import mean_loss
from swarm.scoring.evaluation import Contribution, leave_one_out
from swarm.scoring.projection import VALUE_MAX, Projection, project

DIMENSIONS = 256


def seed(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(4, "big")).digest()


def rows(projection: Projection) -> np.ndarray:
    return np.array(projection.values, dtype=np.float64) * 2.0**projection.exponent


def projected(vector: Vector, number: int, dimensions: int = DIMENSIONS) -> np.ndarray:
    origin = np.zeros_like(vector)
    return rows(project(vector, origin, seed=seed(number), dimensions=dimensions))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_a_projection_is_the_same_integers_everywhere() -> None:
    vector = (np.arange(1_000, dtype=np.float32) - 400) / 7
    origin = np.full(1_000, 0.25, dtype=np.float32)
    found = project(vector, origin, seed=seed(1), dimensions=64)
    assert hashlib.sha256(found.to_bytes()).hexdigest() == (
        "944dfab89dfb8bb98c77f00792405f56e0e4a39bcf8832d34fade68ee3c1bbe2"
    )
    assert found.exponent == -6


@pytest.mark.parametrize("length", [1, 63, 256, 257, 100_003])
def test_values_are_int16_and_use_their_bits(length: int) -> None:
    vector = np.random.default_rng(length).normal(size=length).astype(np.float32)
    found = project(vector, np.zeros_like(vector), seed=seed(2), dimensions=DIMENSIONS)
    assert len(found.values) == DIMENSIONS
    assert VALUE_MAX // 2 < max(map(abs, found.values)) <= VALUE_MAX
    assert len(found.to_bytes()) == 2 * DIMENSIONS


def test_up_to_its_dimensions_nothing_is_lost() -> None:
    generator = np.random.default_rng(3)
    a, b = (generator.normal(size=DIMENSIONS).astype(np.float32) for _ in range(2))
    assert cosine(projected(a, 3), projected(b, 3)) == pytest.approx(cosine(a, b), abs=1e-3)
    assert np.linalg.norm(projected(a, 3)) == pytest.approx(float(np.linalg.norm(a)), rel=1e-3)


def test_nothing_is_projected_to_nothing() -> None:
    vector = np.ones(10, dtype=np.float32)
    assert project(vector, vector, seed=seed(1), dimensions=16) == Projection(0, (0,) * 16)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    vector = np.ones(10, dtype=np.float32)
    vector[3] = bad
    with pytest.raises(ValueError, match="not finite"):
        project(vector, np.zeros_like(vector), seed=seed(1), dimensions=16)


@pytest.mark.parametrize("similarity", [0.0, 0.5, 0.9, 0.99])
def test_cosines_and_norms_err_as_little_as_documented(similarity: float) -> None:
    generator = np.random.default_rng(4)
    one = generator.normal(size=3_000)
    other = similarity * one + math.sqrt(1 - similarity**2) * generator.normal(size=3_000)
    a, b = one.astype(np.float32), other.astype(np.float32)
    truth, size = cosine(a, b), float(np.linalg.norm(a))
    pairs = [(projected(a, number), projected(b, number)) for number in range(100)]
    cosines = np.array([cosine(x, y) - truth for x, y in pairs])
    norms = np.array([np.linalg.norm(x) / size - 1 for x, _ in pairs])
    assert cosines.std() <= 1.3 * (1 - truth**2) / math.sqrt(DIMENSIONS)
    assert norms.std() <= 1.3 / math.sqrt(2 * DIMENSIONS)
    assert abs(cosines.mean()) <= 4 * cosines.std() / 10 + 1e-4


def test_the_worst_vectors_keep_chebyshevs_bound() -> None:
    vector = np.zeros(100_000, dtype=np.float32)
    vector[[17, 50_000]] = 1.0  # two coordinates hold everything
    squares = np.array([np.square(projected(vector, number)).sum() / 2 for number in range(200)])
    far = float((np.abs(squares - 1) > 0.5).mean())
    assert far <= 2 / (DIMENSIONS * 0.5**2) + 0.02, far


class Doubling(nn.Module):
    """Looks into its values, which vmap cannot map."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = self.linear(features)
        return scores * 2 if float(scores.sum()) > 0 else scores


def models() -> dict[str, tuple[nn.Module, str]]:
    torch.manual_seed(1)
    return {
        "logistic": (Logistic(6, 1), "binary"),
        "logistic of classes": (Logistic(6, 3), "multiclass"),
        "mlp": (Mlp(6, 3, (5,), dropout=0.5, batch_norm=True), "multiclass"),
        "regression": (Mlp(6, 1, (4,), dropout=0.0, batch_norm=False), "regression"),
        "not to be mapped": (Doubling(6), "binary"),
    }


@pytest.mark.parametrize("name", models())
def test_leaving_one_out_is_merging_without_it(name: str) -> None:
    module, head = models()[name]
    generator = np.random.default_rng(5)
    base = flatten(module)
    contributions = [
        Contribution(
            digest=seed(at),
            parameters=base + generator.normal(scale=0.1, size=base.size).astype(np.float32) ** 2,
            weight_micro=weight,
        )
        for at, weight in enumerate((500_000, 200_000, 0, 300_000))
    ]
    labels = generator.integers(0, 3 if head == "multiclass" else 2, 40)
    patients = MatrixBatches.of(
        generator.normal(size=(40, 6)).astype(np.float32),
        labels.astype(np.float64) if head == "regression" else labels,
    )
    found = leave_one_out(module, contributions, patients, head)
    assert found.count == 40

    def again(kept: list[Contribution]) -> float:
        merged = weighted_mean(
            [one.parameters for one in kept], [one.weight_micro for one in kept],
            [one.digest for one in kept],
        )  # fmt: skip
        load(module, merged, Layout.of(module))
        return mean_loss(module, patients, head)

    assert found.together == pytest.approx(again(contributions), rel=1e-5)
    for at, without in enumerate(found.without):
        kept = [*contributions[:at], *contributions[at + 1 :]]
        assert without == pytest.approx(again(kept), rel=1e-4), at
    assert found.without[2] == pytest.approx(found.together, rel=1e-6)  # it weighed nothing


def test_who_has_all_the_weight_cannot_be_left_out() -> None:
    module = Logistic(6, 1)
    one = Contribution(digest=seed(1), parameters=flatten(module), weight_micro=1)
    none = Contribution(digest=seed(2), parameters=flatten(module), weight_micro=0)
    patients = MatrixBatches.of(np.ones((3, 6), dtype=np.float32), np.zeros(3, dtype=np.int64))
    with pytest.raises(ValueError, match="all the weight"):
        leave_one_out(module, [one, none], patients, "binary")
