"""Whole swarms with faults from a seed: some hundred of them, and all that ever failed."""

from collections import Counter
from pathlib import Path
from typing import get_args

import pytest

from scenarios.simulation.faults import Fault
from scenarios.simulation.plan import Plan, draw_plan
from scenarios.simulation.plan_file import plan_of_json
from scenarios.simulation.run import SeedResult, run_plan
from scenarios.simulation.soak import Settings, run_seeds
from scenarios.workers import Say, each

FIRST_SEED, SEEDS = 2_000, 150
FAILED_ONCE = [
    plan_of_json(line, source=f"line {number} of simulate_plans.txt")
    for number, line in enumerate(
        Path(__file__).with_name("simulate_plans.txt").read_text().splitlines(), start=1
    )
    if not line.startswith("#")
]
JOBS = 2  # in processes of their own, which coverage does not slow down


def run_one(plan: Plan, _say: Say) -> SeedResult:
    return run_plan(plan)


def assert_all_hold(results: list[SeedResult]) -> None:
    told = [
        f"seed {one.seed}: {violation}\n  {Settings().replay(one.seed)}"
        for one in results
        for violation in one.violations
    ]
    assert not told, "\n".join(told)


def test_a_few_hundred_seeds_hold() -> None:
    results = list(run_seeds(range(FIRST_SEED, FIRST_SEED + SEEDS), Settings(), jobs=JOBS))
    assert [one.seed for one in results] == list(range(FIRST_SEED, FIRST_SEED + SEEDS))
    assert_all_hold(results)
    assert sum(one.torn_commits for one in results) > 0, "no power cut hit a commit"
    assert sum(one.late_inputs for one in results) > 0, "no late update was merged"
    begun = Counter(kind for one in results for kind in one.begun)
    assert set(begun) == {kind.__name__ for kind in get_args(Fault)}, "some kind never happened"
    assert begun.total() > 0.85 * sum(one.planned for one in results)


def test_plans_that_once_failed_hold() -> None:
    assert_all_hold(list(each(run_one, FAILED_ONCE, workers=JOBS)))


@pytest.mark.parametrize("seed", [3, 91])
def test_one_seed_twice_is_one_history(seed: int) -> None:
    first, second = (run_plan(draw_plan(seed)) for _ in range(2))
    assert (first.heads, first.steps, first.virtual_s) == (
        second.heads,
        second.steps,
        second.virtual_s,
    )
