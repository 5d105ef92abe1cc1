"""The checkers can fail: every bug on purpose is found, and named, within a few seeds."""

from collections.abc import Iterator
from itertools import count, islice

import pytest

from scenarios.simulation.plan import Plan, draw_plan
from scenarios.simulation.plants import PLANTS, planted
from scenarios.simulation.run import run_plan
from swarm.protocol.book import RoundBook

SEEDS_TRIED = 30
FIRST_SEED = {"commits-unflushed": 20}
"""Where the search begins, for a bug that only a power cut at the wrong moment shows (seed 23)."""
SMALL = 5
"""Members of the swarms that are tried: small ones are quick."""
EXPECTED = {
    "ack-before-persist": {"durable-before-acked", "no-record-lost", "bundles-verify"},
    "publish-before-persist": {"durable-before-sent", "no-record-lost", "stays-up", "no-bug"},
    "slot-signed-twice": {"one-signature-a-slot", "stays-up", "durable-before-sent"},
    "commits-unflushed": {"stays-up", "durable-before-sent", "durable-before-acked"},
    "payloads-unflushed": {"agreed-recomputable", "stays-up"},
    "result-not-kept": {"stays-up", "progress"},
    "signature-unchecked": {"bundles-verify", "stays-up", "no-bug", "no-record-lost"},
    "served-before-commit": {"commit-before-fetch"},
    "chunk-unchecked": {"bundles-verify", "stays-up", "progress", "agreed-recomputable"},
    "payload-unchecked": {"stays-up", "bundles-verify", "progress"},
    "proposal-trusted": {"bundles-verify", "stays-up", "agreed-recomputable", "progress"},
    "quorum-short": {"agreed-is-equal", "completed-stays"},
    "causes-unchecked": {"bundles-verify", "no-record-lost"},
    "cut-ignored": {"nothing-behind-a-cut"},
    "weights-equal": {"bundles-verify"},
    "staleness-ignored": {"bundles-verify"},
    "left-out-untold": {"late-accounted"},
    "lamport-ignored": {"bundles-verify", "no-bug", "stays-up", "progress", "no-record-lost"},
    "votes-twice": {"one-vote-a-round"},
    "scores-twice": {"honest-not-blamed", "bundles-verify"},
    "gossip-cut-short": {"well-formed"},
    "garbage-kept": {"bounded"},
    "flood-stored": {"bounded"},
    "reasons-false": {"late-accounted"},
    "deadline-ignored": {"progress"},
}
"""What each bug breaks: whichever of these is seen first."""


def promising(name: str) -> Iterator[Plan]:
    """Plans in which the bug has a chance to matter."""
    plans = map(draw_plan, count(FIRST_SEED.get(name, 0)))
    return (
        plan
        for plan in plans
        if plan.members <= SMALL and plan.averaging == "full" and PLANTS[name].shows_in(plan)
    )


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    for plan in islice(promising(name), SEEDS_TRIED):
        violations = run_plan(plan, plant=name).violations
        if violations:
            broken = {violation.invariant for violation in violations}
            assert broken & EXPECTED[name], [str(one) for one in violations]
            return
    pytest.fail(f"{name}: not found in {SEEDS_TRIED} seeds")


def test_a_bug_is_gone_when_its_run_has_ended() -> None:
    before = RoundBook.may_fetch
    with planted("served-before-commit"):
        assert RoundBook.may_fetch is not before
    assert RoundBook.may_fetch is before
