"""What round zero sums up: moments of the columns, counts of the classes."""

import numpy as np
import pytest

from ledger.charter import Charter
from ledger.errors import ConfigError
from swarm.learning.dataset import SiteData, Table
from swarm.learning.fits import has_round_zero
from swarm.learning.moments import Moments, local_moments, merge_moments
from swarm.learning.preprocessing import observed_matrix
from swarm.learning.round_zero import RoundZero
from swarm.learning.training import balanced_weights
from tests.learning import make_charter, make_site

COUNTED = 'class_weights = "federated"\nlocal_steps = 1'


def merged_of(charter: Charter, sites: list[SiteData]) -> tuple[RoundZero, Moments]:
    zero = RoundZero.of(charter)
    parts = [zero.local(charter, site.train, site.train.labels) for site in sites]  # type: ignore[union-attr]
    return zero, merge_moments(parts)


@pytest.mark.parametrize(("head", "classes"), [("binary", 2), ("multiclass", 3)])
@pytest.mark.parametrize("standardise", ["federated", "none"])
def test_class_counts_are_those_of_all_rows_in_one_table(
    head: str, classes: int, standardise: str
) -> None:
    names = str([str(at) for at in range(classes)]).replace("'", '"')
    charter = make_charter(
        head=head, classes=names, data=f'standardise = "{standardise}"', training=COUNTED
    )
    sites = [make_site(at, rows=30 + 17 * at, head=head) for at in range(5)]
    zero, merged = merged_of(charter, sites)
    labels = np.concatenate([site.train.labels for site in sites])  # type: ignore[union-attr]
    assert has_round_zero(charter)
    assert zero.class_counts(merged).tolist() == np.bincount(labels, minlength=classes).tolist()
    assert len(zero.of_features(merged).mean) == (4 if standardise == "federated" else 0)


def test_counts_are_exact_for_a_nation() -> None:
    charter = make_charter(data='standardise = "none"', training=COUNTED)
    zero = RoundZero.of(charter)
    generator = np.random.default_rng(0)
    parts, total = [], np.zeros(2)
    for _ in range(256):
        counts = generator.integers(1, 4_000_000, 2).astype(float)
        n = counts.sum()
        share = counts / n
        parts.append(Moments(np.full(2, n), share, n * share * (1 - share)))
        total += counts
    assert zero.class_counts(merge_moments(parts)).tolist() == total.tolist()


def test_the_columns_moments_are_what_they_are_without_classes() -> None:
    sites = [make_site(0), make_site(1, lacks="dose")]
    zero, merged = merged_of(make_charter(training=COUNTED), sites)
    plain, alone = merged_of(make_charter(), sites)
    assert zero.of_features(merged).to_vector().tobytes() == alone.to_vector().tobytes()
    assert plain.classes == ()
    assert plain.class_counts(alone).size == 0
    assert zero.digest != plain.digest
    schema = make_charter().schema
    pooled = local_moments(
        np.concatenate([observed_matrix(schema, site.train) for site in sites])  # type: ignore[arg-type]
    )
    np.testing.assert_allclose(alone.mean, pooled.mean)


def test_a_site_with_one_class_alone_takes_part() -> None:
    charter = make_charter(training=COUNTED)
    table = make_site(0).train
    assert isinstance(table, Table)
    ill = table.take(table.labels == 1)
    sites = [SiteData(train=ill, validation=ill), make_site(1)]
    zero, merged = merged_of(charter, sites)
    assert zero.class_counts(merged)[1] > ill.rows


def test_federated_weights_count_each_class_of_the_swarm_the_same() -> None:
    import torch

    weights = balanced_weights(torch.tensor([30.0, 10.0, 0.0]))
    assert weights[0] * 30 == pytest.approx(float(weights[1]) * 10)
    assert weights[0] * 30 + weights[1] * 10 == pytest.approx(40)


def test_own_data_sets_have_no_columns_but_classes() -> None:
    charter = make_charter(features="", training=COUNTED)
    zero = RoundZero.of(charter)
    labels = np.array([0, 1, 1])
    assert zero.class_counts(zero.local(charter, [(0, 0)] * 3, labels)).tolist() == [1, 2]
    tabular = make_charter(training=COUNTED)
    with pytest.raises(ConfigError, match="own scaling"):
        RoundZero.of(tabular).local(tabular, [(0, 0)] * 3, labels)
    assert not has_round_zero(make_charter(features=""))
