"""Patience grows while rounds find no quorum: a charter with too little of it still leads to agreement."""

import pytest

from swarm.protocol.book import RoundBook
from swarm.protocol.patience import ROUNDS_REMEMBERED, Patience
from swarm.protocol.phases import Phase
from tests.federation import Federation
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


@pytest.mark.parametrize(("deadline_max_s", "fetch_s"), [(4.0, 10.0), (8.0, 10.0), (8.0, 20.0)])
def test_members_agree_although_fetching_takes_longer_than_the_longest_deadline(
    deadline_max_s: float, fetch_s: float
) -> None:
    for seed in range(2):
        swarm = PaperSwarm(
            5, seed=seed, rounds=16, grace_s=0.2, deadline_min_s=2.0,
            deadline_max_s=deadline_max_s, delay_s=0.2, jitter_s=1.0,
        )  # fmt: skip
        for site in swarm.sites:
            site.train_s = 0.5 + swarm.random.random() * 2
            site.fetch_s = 2.0 + (fetch_s - 2.0) * swarm.random.random()
        swarm.run(3_000.0)
        assert swarm.done(), swarm.course()
        settled = [round_ for round_ in swarm.agreed(0) if round_ > 8]
        assert len(settled) >= 4, f"seed {seed}: {sorted(swarm.agreed(0))}\n{swarm.course()}"


@pytest.mark.parametrize("seed", range(3))
def test_two_halves_that_meet_again_do_not_sit_out_the_patience_that_they_have_come_to(
    seed: int,
) -> None:
    swarm = PaperSwarm(4, seed=seed, rounds=60, deadline_max_s=120.0, members_min=2)
    swarm.run(20.0)
    swarm.partition({0, 1}, {2, 3})
    swarm.run(400.0)
    apart = max(site.machine.round for site in swarm.sites)
    assert swarm[0].machine.grace_s > 30.0
    swarm.heal()
    swarm.run(410.0, stop=lambda: max(swarm.agreed(0)) > apart)
    assert max(swarm.agreed(0)) > apart, swarm.course()


def test_a_payload_that_trickles_in_costs_one_longest_wait() -> None:
    """It moves, so it is not "not served"; its author is waited for as ever, and not longer."""
    swarm = PaperSwarm(4, rounds=12, deadline_max_s=20.0, inactive_after_rounds=20)
    swarm[3].trickles = True
    swarm.run(3_000.0, stop=lambda: swarm[0].machine.phase is Phase.LINGER)
    assert set(swarm.agreed(0)) == set(range(1, 13)), swarm.course()
    assert swarm.now_s < 60.0, swarm.course()


def test_patience_doubles_for_each_of_the_last_rounds_that_split_is_bounded_and_returns() -> None:
    federation = Federation(4, grace_s=0.2, deadline_max_s=30.0)
    federation.open_all()
    book = RoundBook(federation.roster)
    patience = Patience(book, federation.charter.rounds)
    graces = [patience.grace_s(round_) for round_ in range(1, 40)]
    assert graces[:4] == [0.2, 0.4, 0.8, 1.6]
    assert max(graces) == 10.0  # three graces are no longer than the longest deadline
    assert [patience.download_stretch(round_) for round_ in (1, 2, 3, 4, 40)] == [1, 2, 4, 4, 4]
    for round_ in range(10, 10 + ROUNDS_REMEMBERED):
        for author in federation.authors:
            book.learn(author.vote(round_, []))
    assert patience.grace_s(11) == 10.0, "one round that is agreed is not the end of it"
    last = 10 + ROUNDS_REMEMBERED
    assert [patience.grace_s(round_) for round_ in (last - 1, last)] == [0.4, 0.2]


def test_goodbyes_take_three_graces_however_many_rounds_were_provisional() -> None:
    swarm = PaperSwarm(4, rounds=8, grace_s=2.0, deadline_max_s=300.0, members_min=2)
    swarm.partition({0, 1}, {2, 3})
    swarm.run(20_000.0, stop=lambda: swarm[0].machine.phase is Phase.LINGER)
    swarm.kill(1)
    swarm.run(swarm.now_s + 3 * 2.0 + 0.5)
    assert swarm[0].machine.grace_s > 2.0, "no round found a quorum"
    assert 0 in swarm[0].machine.book.closed, swarm.course()
