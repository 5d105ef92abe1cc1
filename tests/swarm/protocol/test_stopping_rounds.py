"""Training ends before its last round: in every member alike, whatever happens to one of them."""

import pytest

from ledger.charter import StoppingPolicy
from swarm.protocol.phases import Phase
from tests.swarm.protocol.paper_swarm import PaperSwarm

PATIENT = StoppingPolicy(patience=2, delta_min=0.0)
BEST = 3
LAST = BEST + PATIENT.patience + 1


def overfits(author: int, round_: int) -> float:
    """Best after round 3, everywhere, from different levels."""
    return 0.5 + author / 10 + abs(round_ - BEST) / 20


def swarm_of(seed: int = 1, **settings: object) -> PaperSwarm:
    return PaperSwarm(4, seed=seed, rounds=30, stopping=PATIENT, loss=overfits, **settings)


def released(swarm: PaperSwarm) -> set[int]:
    found = [site.machine.released for site in swarm.sites if site.alive]
    return {one.round for one in found if one is not None}


def assert_stopped(swarm: PaperSwarm) -> None:
    assert swarm.done(), swarm.course()
    assert released(swarm) == {BEST}, swarm.course()
    for site in swarm.sites:
        if site.alive:
            assert site.machine.round == LAST, swarm.course()
            best = site.machine.released
            assert best is not None
            assert best.proposal.result in site.machine.position.held, swarm.course()


def test_everybody_stops_in_the_same_round_and_holds_the_best_model() -> None:
    swarm = swarm_of(has_moments=True)
    swarm.run(1_000)
    assert_stopped(swarm)


def test_who_trains_slowly_stops_with_the_others() -> None:
    swarm = swarm_of()
    swarm[2].train_s = 20.0
    swarm.run(3_000)
    assert swarm.done(), swarm.course()
    assert len(released(swarm)) == 1


@pytest.mark.parametrize("seed", range(6))
def test_a_crash_at_any_time_changes_nothing_of_it(seed: int) -> None:
    swarm = swarm_of(seed)
    swarm.run(3.0 + 3.0 * seed)
    swarm.kill(1)
    swarm.run(swarm.now_s + 4.0)
    swarm.restart(1)
    swarm.run(3_000)
    assert swarm.done(), swarm.course()
    assert len(released(swarm)) == 1, swarm.course()
    assert max(site.machine.round for site in swarm.sites) <= LAST + 3


def test_who_was_cut_off_finds_that_training_has_ended() -> None:
    swarm = swarm_of()
    swarm.run(5.0)
    swarm.partition({0, 1, 2}, {3})
    swarm.run(60.0)
    swarm.heal()
    swarm.run(3_000)
    assert_stopped(swarm)


def test_a_liar_among_four_neither_stops_it_nor_keeps_it_going() -> None:
    def with_liar(author: int, round_: int) -> float:
        return 9e6 / round_ if author == 3 else overfits(author, round_)

    swarm = PaperSwarm(4, rounds=30, stopping=PATIENT, loss=with_liar)
    swarm.run(1_000)
    assert_stopped(swarm)


def test_without_patience_all_rounds_are_run_and_the_newest_model_is_released() -> None:
    swarm = PaperSwarm(4, rounds=8, loss=overfits)
    swarm.run(1_000)
    assert swarm.done()
    assert released(swarm) == {8}
    assert {site.machine.phase for site in swarm.sites} == {Phase.DONE}
