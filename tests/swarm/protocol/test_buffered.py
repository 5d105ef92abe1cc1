"""Buffered gossip: who is slow holds up nobody, is merged as old as it is, and nothing counts twice."""

from ledger.record import Aggregation
from swarm.protocol.phases import Phase
from tests.swarm.protocol.paper_swarm import PaperSwarm

SLOW = 5
FACTOR = 8


def swarm_of(*, buffer: int = 3, rounds: int = 24, topology: str = "full") -> PaperSwarm:
    swarm = PaperSwarm(
        6,
        rounds=rounds,
        staleness_max=16,
        has_moments=True,
        aggregation=f'averaging = "gossip"\ntopology = "{topology}"\nbuffer = {buffer}',
    )
    swarm[SLOW].train_s *= FACTOR
    return swarm


def merges(swarm: PaperSwarm, index: int) -> list[tuple[int, Aggregation]]:
    return [(number, body) for number, body in swarm.merges(index) if number > 0]


def test_a_slow_member_holds_up_nobody() -> None:
    swarm = swarm_of()
    swarm.run(2_000)
    assert swarm.done(), swarm.course()
    finished_s = [
        next(at for at, what in swarm[index].log if what.endswith("LINGER"))
        for index in range(SLOW)
    ]
    alone = swarm_of()
    alone[SLOW].train_s /= FACTOR
    alone.run(2_000)
    usual_s = next(at for at, what in alone[0].log if what.endswith("LINGER"))
    assert max(finished_s) < 1.5 * usual_s, (finished_s, usual_s)


def test_it_takes_part_all_the_same_and_its_age_is_said() -> None:
    swarm = swarm_of()
    swarm.run(2_000)
    late = [one for number, body in merges(swarm, 0) for one in body.inputs if one.author == SLOW]
    assert len(late) >= 2
    own = merges(swarm, SLOW)
    assert any(len(body.inputs) > 3 for _, body in own)
    weights = [one.weight_micro for _, body in merges(swarm, 0) for one in body.inputs]
    assert max(one.weight_micro for one in late) < max(weights)


def test_nothing_is_merged_twice_and_the_own_contribution_always() -> None:
    swarm = swarm_of(topology="static_exponential", buffer=2)
    swarm.run(2_000)
    assert swarm.done(), swarm.course()
    for index in range(6):
        seen: set[bytes] = set()
        for _, body in merges(swarm, index):
            ids = {one.id for one in body.inputs}
            assert not ids & seen
            assert index in {one.author for one in body.inputs}
            seen |= ids


def test_one_that_dies_is_not_waited_for_longer_than_it_takes_to_count_as_gone() -> None:
    swarm = swarm_of(buffer=5, rounds=12)
    swarm.run(10.0)
    swarm.kill(SLOW)
    swarm.run(4_000)
    living = [site for site in swarm.sites if site.alive]
    assert all(site.machine.phase is Phase.DONE for site in living), swarm.course()


def test_a_crash_between_offering_and_merging_is_a_restart() -> None:
    for seconds in (6.0, 9.0, 12.5):
        swarm = swarm_of(rounds=12)
        swarm.run(seconds)
        swarm.kill(1)
        swarm.run(swarm.now_s + 5.0)
        swarm.restart(1)
        swarm.run(4_000)
        assert swarm.done(), swarm.course()
