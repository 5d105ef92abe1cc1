"""Whole nodes whose models are partly their own: what stays at home stays there, and survives a crash."""

from pathlib import Path
from typing import Any

import pytest
import trio

from node.service import Service
from scenarios.simulation.swarm import Swarm
from swarm.learning.trained import Trained
from swarm.learning.training_state import Arrays
from tests.node.test_rounds_live import run
from tests.node.test_rules_live import audit, keeping_all, results
from tests.simulated import fresh, swarm_of

MEMBERS = 4
NORMED = 'name = "mlp"\narguments = { hidden = [4], batch_norm = true }'
MU = "proximal_mu = 0.1"


@pytest.mark.parametrize(
    ("mode", "training"),
    [("fedbn", ""), ("ditto", MU)],
)
def test_what_stays_at_home_is_measured_and_survives_a_crash(
    tmp_path: Path, mode: str, training: str
) -> None:
    """All agree, an auditor recomputes it, and a site that died publishes what it would have."""
    charter, sites = swarm_of(
        MEMBERS,
        rounds=3,
        aggregation=f'[personalisation]\nmode = "{mode}"\nsteps = 4\nlearning_rate = 0.1',
        training=training,
        model=NORMED,
    )
    measured: dict[tuple[str, int], dict[int, Any]] = {}
    dying = trio.Event()

    def watching(name: str, *, dies: bool) -> Any:
        def tamper(index: int, service: Service) -> None:
            keeping_all(index, service)
            learner: Any = service._hospital.learner
            train, evaluate = learner.train, learner.evaluate

            def training_(base: bytes, round_: int, *rest: Any) -> Trained:
                result: Trained = train(base, round_, *rest)
                if dies and (index, round_) == (1, 3):
                    dying.set()
                return result

            def evaluating(model: bytes, memory: Arrays) -> Any:
                values = evaluate(model, memory)
                measured.setdefault((name, index), {})[len(model), hash(model)] = values
                assert memory, "the last own training left some"
                return values

            learner.train, learner.evaluate = training_, evaluating

        return tamper

    async def faults(swarm: Swarm) -> None:
        await dying.wait()
        await swarm.kill(1)
        swarm.start(1)

    calm, _ = run(charter, sites, fresh(tmp_path / "calm"), tamper=watching("calm", dies=False))
    hit, _ = run(
        charter, sites, fresh(tmp_path / "hit"), tamper=watching("hit", dies=True), faults=faults
    )
    assert dying.is_set()
    assert calm.failures == hit.failures == []
    assert set(results(calm)) == {0, 1, 2, 3}
    assert results(hit) == results(calm)
    assert measured["hit", 1] == measured["calm", 1]
    assert len(measured["calm", 1]) == 3
    assert audit(tmp_path / "calm", charter, 1) == []


def test_all_weigh_by_the_classes_that_round_zero_counted(tmp_path: Path) -> None:
    charter, sites = swarm_of(
        MEMBERS, rounds=2, training='class_weights = "federated"\ntrained = ["linear.weight"]'
    )
    swarm, _ = run(charter, sites, tmp_path, tamper=keeping_all)
    assert swarm.failures == []
    assert set(results(swarm)) == {0, 1, 2}
    weights = [
        service._hospital.learner._inputs.class_weights for service in swarm.services.values()
    ]  # type: ignore[attr-defined]
    assert len({tuple(one.tolist()) for one in weights}) == 1
    assert weights[0][0] < 1 < weights[0][1], "fewer tumours are malignant than not"
    assert audit(tmp_path, charter, 1) == []
