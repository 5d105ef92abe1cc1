"""Rules, codecs and strategies at work: several sites that learn for real, and the auditor beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ledger.charter import Charter
from ledger.charter_types import CODECS, RULES
from ledger.recompute import MergeInput
from ledger.record import Codec, MetricId, Reason
from ledger.rules import CODEC_OF_NAME, RULE_OF_NAME, origin_of, rule_parameters
from swarm.audit_recompute import LearningRecomputation
from swarm.learning.codecs import ZSTD
from swarm.learning.dataset import SiteData, Table
from swarm.learning.merging import VALUE_MAX
from swarm.learning.payload import HEADER, MAGIC, PayloadError, encode_packed, encode_vector
from swarm.learning.rows import Vector
from swarm.learning.task import LearningTask
from swarm.learning.trained import Trained
from swarm.protocol.payload import payload_digest
from tests.learning import make_charter, make_site

SITES = 5
LIARS = 2
MIXED = [rule for rule in RULES if rule != "mean"]
LOSSY = [codec for codec in CODECS if codec != "float32"]


def charter_of(aggregation: str, rounds: int = 3) -> Charter:
    training = "learning_rate = 0.3\nbatch_size = 16\nlocal_steps = 8"
    return make_charter(training=training, rounds=rounds, aggregation=aggregation)


class Sites:
    """A federation without network: what every member computes, and what each remembers."""

    def __init__(self, charter: Charter, sites: int = SITES) -> None:
        self.charter = charter
        self.tasks = [
            LearningTask(charter, make_site(at), allow=(), seed=at, threads=1)
            for at in range(sites)
        ]
        moments = [(payload_digest(2, one), one) for one in (t.local_moments() for t in self.tasks)]
        for task in self.tasks:
            task.set_moments(task.merge_moments(moments))
        self.model = self.tasks[0].initial()
        self.memory: list[Mapping[str, Any]] = [{} for _ in self.tasks]
        self.round = 0

    @property
    def codec(self) -> Codec:
        return CODEC_OF_NAME[self.charter.aggregation.codec]

    def train(self) -> list[Trained]:
        self.round += 1
        trained = [
            task.train(self.model, self.round, memory)
            for task, memory in zip(self.tasks, self.memory, strict=True)
        ]
        for task in self.tasks:
            for one in trained:
                task.check(one.payload, self.codec)
        self.memory = [one.memory for one in trained]
        return trained

    def inputs(self, payloads: Sequence[bytes]) -> list[tuple[bytes, bytes, int]]:
        share = 1_000_000 // len(payloads)
        return [(payload_digest(self.codec, one), one, share) for one in payloads]

    def play(self) -> bytes:
        inputs = self.inputs([one.payload for one in self.train()])
        self.model = self.tasks[0].merge(inputs, self.model)
        return self.model

    def loss(self) -> float:
        found = [
            value.micro / 1e6
            for task in self.tasks
            for value in task.evaluate(self.model)
            if value.metric == MetricId.LOG_LOSS
        ]
        return float(np.mean(found))


def audited(charter: Charter, inputs: Sequence[tuple[bytes, bytes, int]], origin: bytes) -> bytes:
    merged = [MergeInput(digest=d, payload=p, weight_micro=w) for d, p, w in inputs]
    rule = RULE_OF_NAME[charter.aggregation.rule]
    base = origin if charter.aggregation.needs_base else None
    return LearningRecomputation().merge(charter, rule, merged, base)


@pytest.mark.parametrize(
    ("rule", "mixing", "codec"),
    [
        *((rule, "false", codec) for rule in RULES for codec in CODECS),
        *((rule, "true", codec) for rule in MIXED for codec in ("float32", "top_k_int8")),
    ],
)
def test_every_member_and_the_auditor_get_the_same_bits(rule: str, mixing: str, codec: str) -> None:
    charter = charter_of(
        f'rule = "{rule}"\nneighbour_mixing = {mixing}\nliars_share = 0.4\n'
        f'codec = "{codec}"\nkeep_share = 0.3'
    )
    sites = Sites(charter)
    start = sites.model
    for _ in range(2):
        origin, inputs = sites.model, sites.inputs([one.payload for one in sites.train()])
        results = {task.merge(inputs[::step], origin) for task in sites.tasks for step in (1, -1)}
        results.add(audited(charter, inputs, origin))
        assert len(results) == 1
        sites.model = results.pop()
        sites.tasks[0].check_result(sites.model, Codec.FLOAT32)
    assert sites.model != start


@pytest.mark.parametrize("codec", ["float32", "int8"])
@pytest.mark.parametrize(
    "strategy", ["scaffold", "fedadam", "fedyogi", "fedadagrad", "diloco", "per_fedavg", "fedprox"]
)
def test_strategies_go_on_from_the_state_in_the_result(strategy: str, codec: str) -> None:
    training = "learning_rate = 0.3\nbatch_size = 16\nlocal_steps = 8"
    mu = "\nproximal_mu = 0.1" if strategy == "fedprox" else ""
    charter = make_charter(
        training=training + mu, aggregation=f'strategy = "{strategy}"\ncodec = "{codec}"'
    )
    sites, again = Sites(charter, 3), Sites(charter, 3)
    before = sites.loss()
    for _ in range(3):
        origin, inputs = sites.model, sites.inputs([one.payload for one in sites.train()])
        results = {task.merge(inputs, origin) for task in sites.tasks}
        assert results == {audited(charter, inputs, origin)}
        sites.model = results.pop()
        assert again.play() == sites.model
    assert sites.loss() < before


@pytest.mark.parametrize("codec", LOSSY)
def test_with_error_feedback_a_lossy_codec_learns_what_float32_learns(codec: str) -> None:
    exact = Sites(charter_of("", 25), 3)
    lossy = Sites(charter_of(f'codec = "{codec}"\nkeep_share = 0.3', 25), 3)
    for _ in range(25):
        exact.play()
        lossy.play()
    assert lossy.loss() < exact.loss() + 0.02


def test_what_a_codec_lost_is_in_the_memory_and_comes_with_the_next_update() -> None:
    sites = Sites(charter_of('codec = "top_k"\nkeep_share = 0.3'), 3)
    task, base = sites.tasks[0], sites.model
    first = task.train(base, 1)
    lost = first.memory["codec.lost"]
    assert np.abs(lost).max() > 0
    fresh = task.difference(task.train(base, 2).payload, base)
    fed = task.difference(task.train(base, 2, first.memory).payload, base)
    assert not np.array_equal(fresh, fed)
    wanted = task.train(base, 2).memory["codec.lost"] + fresh + lost
    kept = task.train(base, 2, first.memory).memory["codec.lost"]
    np.testing.assert_allclose(fed + kept, wanted, atol=1e-6)


def test_an_update_that_was_left_out_for_good_comes_back() -> None:
    charter = charter_of('codec = "sign"')
    sites = Sites(replace(charter, rounds=replace(charter.rounds, staleness_max=0)), 3)
    task, base = sites.tasks[0], sites.model
    first = task.train(base, 1)
    sent = task.difference(first.payload, base)
    np.testing.assert_array_equal(first.memory["codec.sent"], sent)
    merged = task.train(base, 2, first.memory)
    left_out = task.train(base, 2, first.memory, left_out=True)
    gained = total(task, left_out, base) - total(task, merged, base)
    np.testing.assert_allclose(gained, sent, atol=1e-6)


def total(task: LearningTask, trained: Trained, base: bytes) -> Vector:
    """What an update and the residual behind it hold together."""
    lost: Vector = trained.memory["codec.lost"]
    return task.difference(trained.payload, base) + lost


@pytest.mark.parametrize("codec", ["float32", "top_k_int8"])
def test_liars_move_the_mean_and_not_a_robust_rule(codec: str) -> None:
    losses = {}
    for rule in ('rule = "mean"', 'rule = "trimmed_mean"\nneighbour_mixing = true'):
        sites = Sites(charter_of(f'{rule}\nliars_share = 0.4\ncodec = "{codec}"\nkeep_share = 1'))
        for _ in range(6):
            trained = sites.train()
            payloads = [one.payload for one in trained]
            lie = scaled(sites, payloads[0], -6.0)
            sites.model = sites.tasks[0].merge(
                sites.inputs([lie, *payloads[1:4], scaled(sites, payloads[4], -7.0)]), sites.model
            )
        losses[rule] = sites.loss()
    mean, robust = losses.values()
    assert robust < 0.6 < mean


def scaled(sites: Sites, payload: bytes, factor: float) -> bytes:
    """The same update, so many times as far from the base."""
    task, merger = sites.tasks[0], sites.tasks[0]._merger
    moved = task.difference(payload, sites.model) * np.float32(factor)
    state = merger.decode_state(sites.model)
    return merger.write(moved + merger.strategy.reference(state), state, {}, left_out=False)[0]


def test_an_update_from_an_older_base_counts_by_what_is_new_in_it() -> None:
    sites = Sites(charter_of('codec = "int8"'), 3)
    old = sites.model
    late = sites.tasks[0].train(old, 1).payload
    sites.play()
    now = sites.model
    merged = sites.tasks[1].merge(sites.inputs([late]), now)
    moved = sites.tasks[1].difference(late, old)
    state = sites.tasks[1]._merger.decode_state
    np.testing.assert_allclose(state(merged), state(now) + moved, atol=1e-6)


def test_a_merge_starts_from_what_most_were_trained_from() -> None:
    assert origin_of([b"b", b"a", b"b"]) == b"b"
    assert origin_of([b"b", b"a"]) == b"a"


def test_what_a_record_says_of_a_rule_follows_from_the_charter() -> None:
    policy = charter_of('rule = "krum"\nliars_share = 0.3').aggregation
    assert [rule_parameters(policy, n) for n in (1, 3, 7, 10)] == [(0, 0), (0, 0), (2, 0), (3, 0)]
    assert rule_parameters(charter_of("").aggregation, 10) == ()


@pytest.mark.parametrize("codec", LOSSY)
def test_hostile_updates_are_refused_with_their_reason(codec: str) -> None:
    sites = Sites(charter_of(f'codec = "{codec}"'), 3)
    task, number = sites.tasks[0], CODEC_OF_NAME[codec]
    good = task.train(sites.model, 1).payload
    task.check(good, number)
    least, most = task.update_bytes
    assert least <= len(good) <= most
    layout, count = good[24:56], task._merger.update_length
    bad = {
        Reason.TOO_LARGE: [good + bytes(most), good + bytes(most - len(good) + 1)],
        Reason.BAD_SHAPE: [
            b"",
            good[: HEADER.size],
            good[:-1],
            good[: HEADER.size] + b"\x07" + good[HEADER.size + 1 :],
            HEADER.pack(MAGIC, number, count + 1, layout) + good[HEADER.size :],
            HEADER.pack(MAGIC, number % 9 + 1, count, layout) + good[HEADER.size :],
            HEADER.pack(MAGIC, number, count, bytes(32)) + good[HEADER.size :],
            encode_packed(number, ZSTD + b"x", count, layout),
        ],
    }
    for reason, payloads in bad.items():
        for payload in payloads:
            with pytest.raises(PayloadError) as caught:
                task.check(payload, number)
            assert caught.value.reason is reason, payload
    for other in (Codec.FLOAT32, Codec.MOMENTS, 99):
        with pytest.raises(PayloadError):
            task.check(good, other)


def test_values_without_bound_are_refused() -> None:
    for codec, number in (("float32", Codec.FLOAT32), ("int8", Codec.INT8)):
        task = Sites(charter_of(f'codec = "{codec}"'), 3).tasks[0]
        merger = task._merger
        for value, reason in ((2 * VALUE_MAX, Reason.NORM_BOUND), (np.inf, Reason.NOT_FINITE)):
            update = np.full(merger.update_length, value, dtype=np.float32)
            if number == Codec.FLOAT32:
                payload = encode_vector(update, merger.layout_digest)
            else:
                with np.errstate(invalid="ignore"):
                    scale = np.array([value / 127], "<f4").tobytes()
                body = b"\x00" + scale + bytes([255] * update.size)
                payload = encode_packed(number, body, update.size, merger.layout_digest)
            with pytest.raises(PayloadError) as caught:
                task.check(payload, number)
            assert caught.value.reason is reason


def test_a_network_of_4417_parameters_sends_a_hundredth_of_a_float32_payload() -> None:
    features = "".join(f'[[data.features]]\nname = "x{i}"\ntype = "number"\n' for i in range(35))
    charter = make_charter(
        model='name = "mlp"\narguments = { hidden = [64, 32] }', features=features,
        data='standardise = "none"', aggregation='codec = "top_k_int8"',
    )  # fmt: skip
    draw = np.random.default_rng(0)
    columns = {f"x{i}": draw.normal(size=120) for i in range(35)}
    table = Table(columns=columns, labels=(columns["x0"] > 0).astype(np.int64))
    task = LearningTask(
        charter, SiteData(train=table, validation=table), allow=(), seed=0, threads=1
    )
    model = task.initial()
    assert len(model) == HEADER.size + 4 * 4_417
    sent = len(task.train(model, 1).payload)
    assert len(model) / sent > 100
