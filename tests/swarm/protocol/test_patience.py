"""Patience grows while rounds find no quorum: a charter with too little of it still leads to agreement."""

import pytest

from swarm.protocol import patience
from swarm.protocol.phases import Phase
from tests.swarm.protocol.paper_swarm import PaperSwarm

ROUNDS = 12


def swarm_of(seed: int, *, grace_s: float) -> PaperSwarm:
    swarm = PaperSwarm(
        5, seed=seed, rounds=ROUNDS, grace_s=grace_s, deadline_min_s=2.0, deadline_max_s=30.0,
        delay_s=0.2, jitter_s=1.0,
    )  # fmt: skip
    for site in swarm.sites:
        site.train_s = 0.5 + swarm.random.random()
        site.fetch_s = 1.0 + 2.0 * swarm.random.random()
    return swarm


@pytest.mark.parametrize("seed", range(12))
def test_slow_lines_and_little_grace_agree_in_the_end(seed: int) -> None:
    swarm = swarm_of(seed, grace_s=0.2)
    swarm.run(2_000.0)
    for site in swarm.sites:
        agreed = swarm.agreed(site.index)
        assert {ROUNDS - 1, ROUNDS} <= set(agreed), f"seed {seed}: only {sorted(agreed)} agreed"
    assert len({site.machine.model for site in swarm.sites}) == 1


def test_where_even_the_longest_deadline_is_short_more_rounds_agree_than_without_doubling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def rounds_agreed() -> int:
        total = 0
        for seed in range(4):
            swarm = PaperSwarm(
                5, seed=seed, rounds=ROUNDS, grace_s=0.2, deadline_min_s=3.0, deadline_max_s=8.0,
                delay_s=0.2, jitter_s=1.0,
            )  # fmt: skip
            for site in swarm.sites:
                site.train_s = 0.5 + swarm.random.random() * 2
                site.fetch_s = 2.0 + 8.0 * swarm.random.random()
            swarm.run(3_000.0)
            total += len(swarm.agreed(0))
        return total

    with_doubling = rounds_agreed()
    monkeypatch.setattr(patience, "DOUBLINGS_MAX", 0)
    assert with_doubling > rounds_agreed()


def test_patience_doubles_while_rounds_split_is_bounded_and_returns() -> None:
    swarm = swarm_of(1, grace_s=0.2)
    rounds = swarm[0].machine
    assert rounds.grace_s == 0.2
    graces = []
    for round_ in range(1, 40):
        rounds.round = round_
        graces.append(rounds.grace_s)
    assert graces[:4] == [0.2, 0.4, 0.8, 1.6]
    assert max(graces) == 10.0  # three graces are no longer than the longest deadline


def test_goodbyes_take_three_graces_however_many_rounds_were_provisional() -> None:
    swarm = PaperSwarm(4, rounds=8, grace_s=2.0, deadline_max_s=300.0, members_min=2)
    swarm.partition({0, 1}, {2, 3})
    swarm.run(20_000.0, stop=lambda: swarm[0].machine.phase is Phase.LINGER)
    swarm.kill(1)
    swarm.run(swarm.now_s + 3 * 2.0 + 0.5)
    assert swarm[0].machine.grace_s > 2.0, "no round found a quorum"
    assert 0 in swarm[0].machine.book.closed, swarm.course()
