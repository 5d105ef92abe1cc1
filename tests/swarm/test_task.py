"""One site's learning, bytes in and bytes out."""

import itertools
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from ledger.charter import Charter
from ledger.errors import ConfigError, PeerError
from ledger.record import Codec
from swarm.learning.baselines import train_alone, train_pooled
from swarm.learning.dataset import SiteData
from swarm.learning.moments import columns_digest, local_moments
from swarm.learning.payload import PayloadError, decode_moments
from swarm.learning.preprocessing import feature_names, observed_matrix
from swarm.learning.task import LearningTask, Trained
from tests.learning import auc, digest, federate, make_charter, make_site

MLP = 'name = "mlp"\narguments = { hidden = [6], dropout = 0.2, batch_norm = true }'


def make_task(charter: Charter, data: SiteData, seed: int = 0) -> LearningTask:
    return LearningTask(charter, data, allow=("own_pictures",), seed=seed, threads=1)


def agree_on_moments(tasks: Sequence[LearningTask]) -> bytes:
    payloads = [(digest(payload), payload) for payload in (t.local_moments() for t in tasks)]
    merged = {task.merge_moments(payloads) for task in tasks}
    assert len(merged) == 1
    for task in tasks:
        task.set_moments(next(iter(merged)))
    return merged.pop()


def one_round(tasks: Sequence[LearningTask], base: bytes, number: int) -> bytes:
    trained = [task.train(base, number) for task in tasks]
    total = sum(result.samples for result in trained)
    return tasks[0].merge(
        [
            (digest(result.payload), result.payload, result.samples * 1_000_000 // total)
            for result in trained
        ]
    )


def federation(charter: Charter, sites: int = 3, **options: str | None) -> list[LearningTask]:
    tasks = [make_task(charter, make_site(at, **options), seed=at) for at in range(sites)]
    if tasks[0].needs_moments:
        agree_on_moments(tasks)
    return tasks


@pytest.mark.parametrize("model", ['name = "logistic"', MLP])
def test_the_same_question_gets_the_same_bytes_also_after_a_restart(model: str) -> None:
    charter = make_charter(model=model)
    tasks = federation(charter)
    base = one_round(tasks, tasks[0].initial(), 1)
    asked = tasks[0].train(base, 2)
    tasks[0].evaluate(asked.payload)
    assert tasks[0].train(base, 2) == asked
    restarted = federation(charter)[0]
    assert restarted.train(base, 2) == asked
    assert restarted.evaluate(base) == tasks[0].evaluate(base)


def test_rounds_bases_and_sites_draw_their_own_batches() -> None:
    tasks = federation(make_charter())
    base = tasks[0].initial()
    other = tasks[0].train(base, 1).payload
    results = [tasks[0].train(base, 1), tasks[0].train(base, 2), tasks[0].train(other, 1)]
    assert len({result.payload for result in results}) == 3


def test_all_members_start_from_the_same_model() -> None:
    tasks = federation(make_charter(model=MLP))
    assert len({task.initial() for task in tasks}) == 1


def test_moments_are_the_pooled_ones_and_a_site_without_a_column_takes_part() -> None:
    charter = make_charter()
    data = [make_site(0), make_site(1, lacks="dose")]
    tasks = [make_task(charter, site, at) for at, site in enumerate(data)]
    names = feature_names(charter.schema)
    merged = decode_moments(agree_on_moments(tasks), columns_digest(names), len(names))
    pooled = local_moments(
        np.concatenate([observed_matrix(charter.schema, site.train) for site in data])  # type: ignore[arg-type]
    )
    assert np.array_equal(merged.count, pooled.count)
    assert merged.mean == pytest.approx(pooled.mean)
    assert merged.m2 == pytest.approx(pooled.m2)
    assert merged.count[1] < merged.count[0]
    assert one_round(tasks, tasks[0].initial(), 1)


def test_a_merge_has_the_same_bytes_at_every_member_and_in_every_order() -> None:
    tasks = federation(make_charter(model=MLP))
    trained = [task.train(tasks[0].initial(), 1) for task in tasks]
    inputs = [(digest(t.payload), t.payload, w) for t, w in zip(trained, (5, 3, 2), strict=True)]
    merged = {task.merge(list(order)) for task in tasks for order in itertools.permutations(inputs)}
    assert len(merged) == 1


def test_what_a_member_says_about_its_training_is_true() -> None:
    task = federation(make_charter())[0]
    base = task.initial()
    trained = task.train(base, 1)
    before, after = (task.tensors(payload) for payload in (base, trained.payload))
    change = sum(
        float(((after[name] - before[name]).astype(np.float64) ** 2).sum())
        for name in before
        if name.startswith("model.")
    )
    assert trained.norm_micro == pytest.approx(1e6 * change**0.5, abs=1)
    assert trained.samples == 80
    assert trained.steps == 10
    assert 0 < trained.loss_micro < 700_000


def test_peers_payloads_that_cannot_be_averaged_are_refused() -> None:
    task = federation(make_charter())[0]
    other = federation(make_charter(model='name = "mlp"'))[0]
    good = task.initial()
    task.check(good, Codec.FLOAT32)
    task.check(task.local_moments(), Codec.MOMENTS)
    for bad, codec in [
        (other.initial(), Codec.FLOAT32),
        (good, Codec.MOMENTS),
        (good, 99),
        (task.local_moments(), Codec.FLOAT32),
        (good[:-4] + b"\x00\x00\xc0\x7f", Codec.FLOAT32),  # NaN
        (b"", Codec.FLOAT32),
    ]:
        with pytest.raises(PayloadError) as caught:
            task.check(bad, codec)
        assert isinstance(caught.value, PeerError)
        assert caught.value.reason


def test_a_model_comes_back_from_its_snapshot_with_its_scaling() -> None:
    charter = make_charter(model=MLP)
    tasks = federation(charter)
    model = one_round(tasks, tasks[0].initial(), 1)
    elsewhere = make_task(charter, make_site(0), seed=0)
    assert elsewhere.from_tensors(tasks[0].tensors(model)) == model
    assert elsewhere.evaluate(model) == tasks[0].evaluate(model)
    with pytest.raises(ConfigError, match="snapshot"):
        federation(make_charter())[0].from_tensors(tasks[0].tensors(model))


@pytest.mark.parametrize("standardise", ["federated", "local", "none"])
@pytest.mark.parametrize(
    ("head", "classes"),
    [("binary", '["0","1"]'), ("multiclass", '["a","b","c"]'), ("regression", "")],
)
def test_every_head_learns_with_every_scaling(head: str, classes: str, standardise: str) -> None:
    charter = make_charter(
        head=head,
        classes=classes,
        data=f'standardise = "{standardise}"',
        training="optimiser = 'adam'\nlearning_rate = 0.02\nlocal_epochs = 2",
    )
    tasks = federation(charter, head=head)
    base = tasks[0].initial()
    first = [task.train(base, 1) for task in tasks]
    for number in range(1, 8):
        base = one_round(tasks, base, number)
    last = [task.train(base, 8) for task in tasks]
    assert sum(t.loss_micro for t in last) < sum(t.loss_micro for t in first)
    assert all(task.evaluate(base) for task in tasks)


def test_training_before_the_moments_are_agreed_is_our_own_bug() -> None:
    task = make_task(make_charter(), make_site(0))
    with pytest.raises(ValueError, match="set_moments"):
        task.train(task.initial(), 1)


def test_a_federation_is_as_good_as_pooled_data_and_better_than_small_sites_alone() -> None:
    training = "learning_rate = 0.2\nlocal_steps = 20"
    charter = make_charter(rounds=15, training=training, data="missing_indicator = true")
    data = [make_site(at, rows=30) for at in range(4)]
    model = federate(charter, data, seed=0)
    swarm = np.mean([auc(model.evaluate(site)) for site in data])
    pooled_model = train_pooled(charter, data, seed=0)
    pooled = np.mean([auc(pooled_model.evaluate(site)) for site in data])
    alone = np.mean([auc(train_alone(charter, site, seed=0).evaluate(site)) for site in data])
    assert swarm >= pooled - 0.01
    assert swarm >= alone


def test_pooled_training_approaches_an_independent_solver() -> None:
    training = "learning_rate = 0.3\nbatch_size = 64\nlocal_steps = 40"
    charter = make_charter(rounds=20, training=training)
    data = [make_site(at, rows=200) for at in range(2)]
    pooled = train_pooled(charter, data, seed=0)
    train = [pooled.task.matrix(site.train) for site in data]
    solver = LogisticRegression(C=1e6).fit(
        np.concatenate([matrix for matrix, _ in train]),
        np.concatenate([labels for _, labels in train]),
    )
    matrix, labels = pooled.task.matrix(data[0].validation)
    expected = roc_auc_score(labels, solver.decision_function(matrix))
    assert auc(pooled.evaluate(data[0])) == pytest.approx(expected, abs=0.01)


def test_pooled_data_get_as_many_steps_as_a_member() -> None:
    charter = make_charter(training="batch_size = 16\nlocal_epochs = 1", rounds=1)
    data = [make_site(0, rows=160), make_site(1, rows=32)]
    pooled = train_pooled(charter, data, seed=0).task
    assert pooled.train(pooled.initial(), 1).steps == round((160 * 10 + 32 * 2) / 192)


OWN = """
import torch
from torch import nn

class Pictures:
    def __init__(self, rows, offset):
        generator = torch.Generator().manual_seed(offset)
        self.x = torch.randn(rows, 1, 6, 6, generator=generator)
        self.y = (self.x.mean(dim=(1, 2, 3)) > 0).long()
    def __len__(self):
        return len(self.x)
    def __getitem__(self, i):
        return self.x[i], self.y[i]

class Net(nn.Module):
    def __init__(self, outputs, bad=False):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.head = nn.Linear(2, outputs + bad)
    def forward(self, x):
        return self.head(self.norm(self.conv(x)).mean(dim=(2, 3)))
"""


@pytest.fixture
def own_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SiteData:
    (tmp_path / "own_pictures.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_pictures", raising=False)
    import own_pictures as package  # type: ignore[import-not-found]

    return SiteData(train=package.Pictures(40, 1), validation=package.Pictures(20, 2))


def test_pictures_and_an_own_network_take_the_same_way(own_pictures: SiteData) -> None:
    charter = make_charter(
        model='name = "python:own_pictures:Net"', features="", training="local_epochs = 1"
    )
    task = make_task(charter, own_pictures)
    assert not task.needs_moments
    one = task.train(task.initial(), 1)
    assert isinstance(one, Trained)
    assert one == make_task(charter, own_pictures).train(task.initial(), 1)
    model = task.merge([(digest(one.payload), one.payload, 1_000_000)])
    assert auc(task.evaluate(model)) >= 0
    pooled = train_pooled(charter, [own_pictures] * 2, allow=("own_pictures",), seed=0)
    assert pooled.task.samples == 80


def test_a_model_that_does_not_fit_is_found_before_the_first_round(own_pictures: SiteData) -> None:
    wrong = 'name = "python:own_pictures:Net"\narguments = { bad = true }'
    with pytest.raises(ConfigError, match=r"gave shape \(2, 2\).*needs \(2, 1\)"):
        make_task(make_charter(model=wrong, features=""), own_pictures)
    charter = make_charter(model='name = "python:own_pictures:Net"', data='standardise = "none"')
    with pytest.raises(ConfigError, match="cannot take this site's features"):
        make_task(charter, make_site(0))
    with pytest.raises(ConfigError, match=r"needs \[\[data\.features"):
        make_task(make_charter(features=""), own_pictures)


def test_more_threads_than_one_are_given_back(own_pictures: SiteData) -> None:
    before = torch.get_num_threads()
    charter = make_charter(model='name = "python:own_pictures:Net"', features="")
    task = LearningTask(charter, own_pictures, allow=("own_pictures",), seed=0, threads=before + 1)
    task.train(task.initial(), 1)
    assert torch.get_num_threads() == before


def test_a_site_without_validation_rows_reports_nothing() -> None:
    data = make_site(0)
    empty = data.validation.take(np.zeros(40, np.bool_))  # type: ignore[union-attr]
    task = make_task(make_charter(data='standardise = "local"'), replace(data, validation=empty))
    assert task.evaluate(task.initial()) == ()
