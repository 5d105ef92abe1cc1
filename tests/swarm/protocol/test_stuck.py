"""Nobody is stuck for ever, in whichever charter: each of these once was, by one member's fault or absence."""

import pytest

from ledger.charter import StoppingPolicy
from ledger.record import Rule
from swarm.protocol.effects import Fetch, Train
from swarm.protocol.phases import Phase
from swarm.protocol.retention import Keep, needless
from tests.federation import INITIAL, Desk, Federation, digest_of, input_of, result_of
from tests.swarm.protocol.paper_swarm import PaperSwarm, Site

KEEP = Keep(rounds=2, staleness_max=3)


class TidySwarm(PaperSwarm):
    """Everybody removes payloads of old rounds, as the janitor does."""

    def _advance(self, site: Site) -> None:
        super()._advance(site)
        machine = site.machine
        released = machine.released
        stay = {machine.model, INITIAL, released.proposal.result if released else INITIAL}
        held = list(machine.position.held)
        for digest in (
            needless(machine.book, KEEP, held, own=site.index, standing=machine.round) - stay
        ):
            machine.release(digest)


def test_a_member_that_misses_the_end_of_round_zero_contributes_again() -> None:
    """Models are for those only who have contributed to a round above zero, and it has not."""
    swarm = PaperSwarm(4, rounds=12, has_moments=True, newcomers='"contribution_first"')
    everybody = range(4)
    swarm.run(
        60,
        stop=lambda: all(
            one in swarm[at].machine.book.offers(0) for one in everybody for at in everybody
        ),
    )
    swarm.partition({0, 1, 2}, {3})
    swarm.run(swarm.now_s + 12)
    assert swarm[0].machine.round > 1
    swarm.heal()
    swarm.run(swarm.now_s + 300)
    assert swarm.done(), swarm.course()
    assert swarm[0].machine.book.last_offer_round(3) == 12


def is_ready(swarm: PaperSwarm) -> bool:
    """Whether members 0, 1 and 3 hold each other's offers of a round, and none has voted."""
    living = (0, 1, 3)
    round_ = swarm[0].machine.round
    for one in living:
        machine = swarm[one].machine
        held = {o.author for o in machine.position.candidates.held(round_) if o.round == round_}
        collects = machine.round == round_ and machine.phase is Phase.COLLECT
        if not collects or held < set(living) or machine.book.votes(round_):
            return False
    return True


@pytest.mark.parametrize("aggregation", ["", 'strategy = "fedadam"'])
def test_a_model_that_was_agreed_late_and_is_nowhere_any_more_is_done_without(
    aggregation: str,
) -> None:
    """The third vote for a round comes when all others have removed its result; then its holder is gone."""
    swarm = TidySwarm(4, rounds=30, aggregation=aggregation, deadline_max_s=20.0)
    swarm.run(8)
    swarm.kill(2)
    swarm.run(200, stop=lambda: is_ready(swarm))
    round_ = swarm[0].machine.round
    swarm.partition({0, 1}, {2}, {3})
    swarm.run(swarm.now_s + 150)
    swarm.heal()
    is_known = lambda: all(swarm[one].machine.book.agreed(round_) for one in (0, 1))  # noqa: E731
    swarm.run(swarm.now_s + 300, stop=is_known)
    swarm.kill(3)
    agreed = swarm[0].machine.book.agreed(round_)
    assert agreed is not None
    assert not any(agreed.proposal.result in swarm[one].machine.position.held for one in (0, 1, 2))
    swarm.restart(2)
    swarm.run(swarm.now_s + 1_500)
    assert [swarm[one].machine.phase for one in (0, 1, 2)] == [Phase.DONE] * 3, swarm.course()
    latest = swarm[0].machine.book.latest_agreed()
    assert latest is not None
    assert latest.round == 30


@pytest.mark.parametrize(
    ("topology", "members", "members_min"),
    [("one_peer_exponential", 4, 2), ("ring", 5, 3), ("static_exponential", 8, 2)],
)
def test_a_dead_neighbour_costs_no_longest_wait(
    topology: str, members: int, members_min: int
) -> None:
    swarm = TidySwarm(
        members,
        rounds=12,
        aggregation=f'averaging = "gossip"\ntopology = "{topology}"\n',
        deadline_max_s=3600.0,
        members_min=members_min,
    )
    swarm.run(6)
    swarm.kill(3)
    swarm.run(swarm.now_s + 400)
    assert swarm.done(), swarm.course()


def test_a_node_that_is_cut_off_from_all_waits_for_its_members_min() -> None:
    swarm = PaperSwarm(
        5, rounds=12, aggregation='averaging = "gossip"\ntopology = "ring"\n', deadline_max_s=100.0
    )
    swarm.run(6)
    swarm.partition({0}, {1, 2, 3, 4})
    begun = swarm[0].machine.round
    swarm.run(swarm.now_s + 90)
    assert swarm[0].machine.round <= begun + 2, "it may have late updates for one"
    assert swarm[0].machine.phase is Phase.COLLECT, swarm.course()


def test_who_went_on_alone_and_has_closed_does_not_end_the_training_of_the_others() -> None:
    swarm = TidySwarm(
        6, rounds=12, stopping=StoppingPolicy(patience=5, delta_min=0.0),
        loss=lambda _author, round_: 10.0 / (round_ + 1), deadline_max_s=10.0, grace_s=1.0,
    )  # fmt: skip
    swarm.run(6)
    for one in range(4):
        swarm[one].train_s = 60.0
    swarm.partition({0, 1, 2, 3}, {4, 5})
    have_closed = lambda: all({4, 5} <= swarm[one].machine.book.closed for one in (4, 5))  # noqa: E731
    swarm.run(1_500, stop=have_closed)
    before = swarm[0].machine.book.latest_agreed()
    assert before is not None
    assert before.round < 12
    swarm.heal()
    swarm.run(swarm.now_s + 1_500)
    latest = swarm[0].machine.book.latest_agreed()
    assert latest is not None
    assert latest.round == 12, swarm.course()


def test_an_offer_behind_the_last_round_makes_no_machine_spin() -> None:
    federation = Federation(3, rounds=3)
    desk = Desk(federation)
    federation.open_all()
    base = INITIAL
    for round_ in (1, 2):
        base = federation.agree(round_, base)
        desk.hold(base)
    desk.start()
    own = federation[0].contribute(3, base=base)
    desk.learn(own)
    desk.hold_payload(own)
    desk.advance()
    desk.learn(federation[1].contribute(4, base=base), federation[2].close(4))
    desk.wait(61.0)
    assert (desk.phase, desk.machine.round) == (Phase.COLLECT, 3)


def test_a_newcomer_whose_neighbours_are_dead_starts_from_what_can_be_had() -> None:
    swarm = PaperSwarm(
        6, rounds=400, aggregation='averaging = "gossip"\ntopology = "ring"\n', absent=[0],
        start_wait_s=2.0, deadline_max_s=30.0,
    )  # fmt: skip
    swarm.run(10)
    swarm.kill(1)
    swarm.kill(5)
    swarm.run(14)
    swarm.restart(0)
    swarm.run(80)
    assert swarm[2].machine.book.last_offer_round(0) > 10, swarm.course()


def test_one_leap_ahead_does_not_say_that_others_go_on() -> None:
    federation = Federation(5, aggregation='averaging = "gossip"\ntopology = "ring"\n')
    desk = Desk(federation)
    desk.start()
    near = desk.machine.position.near
    assert near is not None
    desk.learn(federation[3].contribute(30))
    assert not near.is_reached_by_others(1), "a liar may say so"
    desk.learn(federation[2].contribute(30))
    assert near.is_reached_by_others(1)


def test_a_node_that_has_lost_its_own_model_begins_from_what_there_is() -> None:
    federation = Federation(5, aggregation='averaging = "gossip"\ntopology = "ring"\n')
    federation.open_all()
    offer = federation[0].contribute(1)
    own = result_of(1, [input_of(offer)])
    federation[0].vote(1, [offer])
    federation[0].evaluate(1, own)
    desk = Desk(federation)
    assert desk.start() == (Fetch(own, ()),)
    desk.machine.stalled(frozenset({own}))
    assert desk.advance() == (Train(2, None, None),)


def test_a_liar_and_an_absent_member_do_not_make_a_round_barren() -> None:
    """Two offers are of use, the absent member's would be the third, and the liar's begins from nothing."""
    federation = Federation(4, rounds=9, aggregation='rule = "median"', members_min=3)
    desk = Desk(federation)
    desk.start()
    lost = digest_of("what nobody has agreed")
    desk.learn(federation[3].vote(1, [], rule=Rule.MEDIAN, result=lost))
    offers = [federation[one].contribute(1) for one in (0, 1)]
    desk.learn(*offers, federation[3].contribute(1, base=lost))
    for offer in offers:
        desk.hold_payload(offer)
    desk.wait(500.0)
    assert (desk.phase, desk.machine.round) == (Phase.COLLECT, 1)
