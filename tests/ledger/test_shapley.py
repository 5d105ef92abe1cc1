"""`swarm-audit shapley`: seeded estimates that come close to the exact values, and say that they are estimates."""

import json
from collections.abc import Sequence
from importlib.metadata import EntryPoint, EntryPoints
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_ledger_recompute import HERE, LAYOUT, Learned

from ledger import cli, recompute, shapley
from ledger.errors import ConfigError
from ledger.record import Aggregation, Codec, Contribution
from swarm.learning.aggregation import weighted_mean
from swarm.learning.payload import encode_vector
from swarm.protocol.payload import payload_digest
from swarm.scoring.shapley import BETWEEN, Estimate, gtg_shapley, progress

ESTIMATOR = EntryPoint("swarm", "swarm.audit_shapley:LearningShapley", shapley.GROUP)
SEED = bytes(32)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recompute, "entry_points", lambda **_: EntryPoints([HERE]))
    monkeypatch.setattr(shapley, "entry_points", lambda **_: EntryPoints([ESTIMATOR]))


def game(members: int, *, seed: int = 1) -> tuple[list[np.ndarray], list[int], np.ndarray]:
    """Updates of which the first is zero, the second noise, and the others partly towards the goal."""
    generator = np.random.default_rng(seed)
    goal = generator.normal(size=200).astype(np.float32)
    rows = [
        (0.5 * goal + 0.5 * generator.normal(size=200)).astype(np.float32) for _ in range(members)
    ]
    rows[0] = np.zeros(200, dtype=np.float32)
    rows[1] = generator.normal(size=200).astype(np.float32)
    return rows, [1_000_000 // members] * members, goal


def estimated(members: int, seed: bytes = SEED) -> tuple[Estimate, list[float]]:
    rows, weights, goal = game(members)
    walk, far = progress(rows, weights, np.zeros(200, dtype=np.float32), goal)
    exact = np.zeros(members)
    orders = list(permutations(range(members)))
    for order in orders:
        before = 0.0
        for player, worth in zip(order, walk(order), strict=True):
            exact[player] += (worth - before) / len(orders)
            before = worth
    return gtg_shapley(members, walk, seed=seed, scale=far), list(exact)


def test_estimates_lie_within_their_errors_of_the_exact_values() -> None:
    found, exact = estimated(6)
    assert found.converged
    for value, error, right in zip(found.values, found.errors, exact, strict=True):
        # Truncation adds a bias of at most 1 % of the whole, shared by all.
        assert abs(value - right) <= 4 * error + 0.01 * abs(found.whole), (found, exact)
    assert sum(exact) == pytest.approx(found.whole)
    assert max(found.values[:2]) < min(found.values[2:])  # who sent nothing of use is worth least


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    rows, weights, goal = game(6)
    walk, far = progress(rows, weights, np.zeros(200, dtype=np.float32), goal)
    one, same, other = (
        gtg_shapley(6, walk, seed=seed, scale=far) for seed in (SEED, SEED, bytes([1]) * 32)
    )
    assert one == same != other


def test_a_round_that_gained_nothing_is_skipped() -> None:
    rows, weights, goal = game(4)
    walk, far = progress(rows, weights, np.zeros(200, dtype=np.float32), goal)
    found = gtg_shapley(4, walk, seed=SEED, scale=far / BETWEEN * 10)
    assert (found.values, found.batches, found.converged) == ((0.0,) * 4, 0, True)


class Kept(Learned):
    """Three hospitals whose base and result are among the payload files."""

    def __init__(self, payloads: Path) -> None:
        super().__init__(payloads)
        self.base = encode_vector(np.zeros(50, dtype=np.float32), LAYOUT)
        self.weights: list[int] = []
        self.keep(self.base)

    def keep(self, payload: bytes) -> None:
        name = f"{payload_digest(Codec.FLOAT32, payload).hex()}.{int(Codec.FLOAT32)}"
        (self.payloads / name).write_bytes(payload)

    def contribution_body(self, author: int, round_: int, **changes: Any) -> Contribution:
        changes["base_digest"] = payload_digest(Codec.FLOAT32, self.base)
        return super().contribution_body(author, round_, **changes)

    def aggregation_body(self, *arguments: Any, **named: Any) -> Aggregation:
        body = super().aggregation_body(*arguments, **named)
        self.weights = [one.weight_micro for one in body.inputs]
        return body

    def play_both(self, liars: Sequence[int] = ()) -> None:
        super().play_both(liars)
        digests = [
            payload_digest(Codec.FLOAT32, encode_vector(one, LAYOUT)) for one in self.vectors
        ]
        self.keep(encode_vector(weighted_mean(self.vectors, self.weights, digests), LAYOUT))


def run(federation: Kept, bundle: Path, *more: str) -> int:
    return cli.main(
        ["shapley", str(bundle), "--charter-digest", federation.charter.digest_hex,
         "--recompute", str(federation.payloads), *more]
    )  # fmt: skip


def test_the_command_says_estimate_and_names_everybody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation = Kept(tmp_path / "payloads")
    federation.play_both()
    bundle = federation.bundle(tmp_path / "bundle")
    assert run(federation, bundle) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ESTIMATE")
    assert len(lines) == 4
    assert all("±" in line for line in lines[1:])
    assert run(federation, bundle, "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert run(federation, bundle, "--json") == 0
    assert json.loads(capsys.readouterr().out) == first  # seeded from the ledger
    assert (first["kind"], first["goal_round"], first["skipped"]) == ("estimate", 1, [])
    # The goal is the result itself, so together they went all the way.
    assert sum(one["share"] for one in first["members"]) == pytest.approx(1.0, abs=0.02)


def test_without_a_base_or_result_it_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation = Kept(tmp_path / "payloads")
    federation.play_both()
    bundle = federation.bundle(tmp_path / "bundle")
    base = payload_digest(Codec.FLOAT32, federation.base).hex()
    (federation.payloads / f"{base}.1").unlink()
    assert run(federation, bundle) == 2
    assert "no agreed round has all its payloads and its base" in capsys.readouterr().err


def test_without_the_learning_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shapley, "entry_points", lambda **_: EntryPoints([]))
    with pytest.raises(ConfigError, match="pip install"):
        shapley.load_estimator()
