"""A swarm falls into two, both sides go on, and the model after healing is as good as the better side's."""

from pathlib import Path
from typing import Final

import trio

from ledger.record import MetricId
from ledger.weights import MICRO
from scenarios.simulator import Swarm, simulate
from swarm.learning.task import LearningTask
from tests.simulated import patients, swarm_of

SIDES: Final = ((0, 1), (2, 3, 4))
CUT_AFTER, HEALED_AFTER, ROUNDS = 2, 5, 9
NOISE: Final = 0.01
"""Of log loss: what one round more or less changes here at most."""


def log_loss(swarm: Swarm, member: int) -> float:
    """Of a member's model on everybody's patients, each weighted alike."""
    service = swarm.services[member]
    model, task = service._blobs.get(service.machine.model), service._hospital.learner
    assert model is not None
    assert isinstance(task, LearningTask)
    values = [task.evaluate_on(model, one.validation) for one in patients(5)]
    losses = [
        (value.micro / MICRO, value.count)
        for site in values
        for value in site
        if value.metric == MetricId.LOG_LOSS
    ]
    return sum(loss * count for loss, count in losses) / sum(count for _, count in losses)


async def begun(swarm: Swarm, member: int, round_: int) -> None:
    while not (one := swarm.services.get(member)) or one.machine.round < round_:  # noqa: ASYNC110
        await trio.sleep(0.25)


def test_both_sides_go_on_and_the_model_after_healing_is_as_good_as_the_better_one(
    tmp_path: Path,
) -> None:
    charter, sites = swarm_of(
        5,
        rounds=ROUNDS,
        deadline_min_s=1.0,
        deadline_max_s=4.0,
        grace_s=1.0,
        inactive_after_rounds=2,
    )
    apart: dict[int, float] = {}
    swarms: list[Swarm] = []

    async def faults(swarm: Swarm) -> None:
        swarms.append(swarm)
        await begun(swarm, 0, CUT_AFTER + 1)
        swarm.hub.partition(SIDES)
        for side in SIDES:
            await begun(swarm, side[0], HEALED_AFTER)
            apart[side[0]] = log_loss(swarm, side[0])
            assert swarm.services[side[0]].book.latest_agreed().round <= CUT_AFTER + 1  # type: ignore[union-attr]
        assert len({swarm.services[side[0]].machine.model for side in SIDES}) == 2
        swarm.hub.heal()

    outcome = simulate(charter=charter, sites=sites, directory=tmp_path, seed=4, faults=faults)

    assert not outcome.failures, outcome.failures
    assert len(set(outcome.heads)) == len(set(outcome.results)) == 1
    assert min(outcome.rounds_agreed) >= CUT_AFTER + ROUNDS - HEALED_AFTER - 1, (
        outcome.rounds_agreed
    )
    together = log_loss(swarms[0], 0)
    assert together <= min(apart.values()) + NOISE, (apart, together)
