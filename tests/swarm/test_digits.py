"""The small networks on real pictures: scikit-learn's handwritten digits, shared out unequally."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from ledger.record import MetricId
from swarm.learning.dataset import SiteData, Table
from tests.learning import federate, make_charter

FEATURES = "".join(f'[[data.features]]\nname = "p{at}"\ntype = "number"\n' for at in range(64))
CLASSES = str([str(at) for at in range(10)]).replace("'", '"')


def sites() -> list[SiteData]:
    """Three sites; each lacks most of three digits in training, all are validated on every digit."""
    pictures, labels = load_digits(return_X_y=True)
    generator = np.random.default_rng(0)
    order = generator.permutation(len(labels))[:1200]
    held, rest = order[:300], order[300:]

    def table(chosen: np.ndarray) -> Table:
        columns = {f"p{at}": pictures[chosen, at] for at in range(64)}
        return Table(columns=columns, labels=labels[chosen].astype(np.int64))

    parts = []
    for at, part in enumerate(np.array_split(rest, 3)):
        rare = (labels[part] // 3 == at) & (generator.random(len(part)) < 0.9)
        parts.append(SiteData(train=table(part[~rare]), validation=table(held)))
    return parts


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 64)])
def test_a_swarm_reads_digits_with_either_cnn(shape: tuple[int, ...]) -> None:
    charter = make_charter(
        model=f'name = "cnn"\narguments = {{ shape = {list(shape)}, channels = [8, 16] }}',
        head="multiclass",
        classes=CLASSES,
        features=FEATURES,
        training="learning_rate = 0.2\nmomentum = 0.5\nbatch_size = 32\nlocal_steps = 20",
        rounds=8,
    )
    model = federate(charter, sites(), seed=0)
    accuracy = {value.metric: value.micro / 1e6 for value in model.evaluate(sites()[0])}
    assert accuracy[MetricId.ACCURACY] > (0.93 if len(shape) == 3 else 0.88)
