"""Averaging with neighbours, one machine on a table: no votes, short waits, jumps, and who is merged."""

import pytest

from ledger.record import Kind, Reason, Record, Verified
from swarm.protocol.book import Offer
from swarm.protocol.effects import Evaluate, Fetch, Merge, SignClose, Train
from swarm.protocol.phases import Phase
from tests.federation import INITIAL, Desk, Federation, digest_of, result_of

RING = 'averaging = "gossip"\ntopology = "ring"'
GRACE_S = 3.0
NEAR = (1, 4)
"""Neighbours of member 0 on a ring of five."""


def desk_of(**policy: object) -> Desk:
    settings = {"rounds": 30, "aggregation": RING} | policy
    desk = Desk(Federation(5, **settings))
    desk.start()
    return desk


def offer(desk: Desk, author: int, round_: int, *, base: bytes = INITIAL) -> Verified[Record]:
    """A member contributes, and its payload can be had."""
    record = desk.federation[author].contribute(round_, base=base)
    desk.learn(record)
    return record


def own_offer(desk: Desk, round_: int) -> None:
    desk.hold_payload(offer(desk, 0, round_))
    desk.advance()


def fetched(desk: Desk) -> set[int]:
    return {one.offer.author for one in desk.advance() if isinstance(one, Fetch) and one.offer}


def merged(desk: Desk) -> dict[int, int]:
    """Author → round of what the machine wants to merge now."""
    effects = desk.advance()
    assert desk.phase is Phase.AGREE, desk.phase
    assert isinstance(effects[0], Merge)
    return {one.author: one.round for one in effects[0].offers}


def finish(desk: Desk, round_: int) -> None:
    """Merge and evaluate what is wanted."""
    effect = desk.advance()[0]
    assert isinstance(effect, Merge)
    result = digest_of("own", round_)
    desk.learn(desk.own.vote(round_, _records(desk, effect.offers), result=result))
    desk.hold(result)
    assert [type(one) for one in desk.advance()] == [Evaluate]
    assert desk.machine.model == result
    desk.learn(desk.own.evaluate(round_, result))


def _records(desk: Desk, offers: tuple[Offer, ...]) -> list[Verified[Record]]:
    ids = {one.id for one in offers}
    return [one for author in desk.federation.authors for one in author.records if one.id in ids]


def test_only_neighbours_are_fetched_and_merged_and_nobody_is_asked() -> None:
    desk = desk_of()
    own_offer(desk, 1)
    records = {author: offer(desk, author, 1) for author in (1, 2, 3, 4)}
    assert fetched(desk) == set(NEAR)
    for author in NEAR:
        desk.hold_payload(records[author])
    assert merged(desk) == {0: 1, 1: 1, 4: 1}
    finish(desk, 1)
    (train,) = desk.advance()
    assert train == Train(2, digest_of("own", 1), None), "from its own newest merge"


def test_votes_of_others_never_overtake_it() -> None:
    desk = desk_of()
    own_offer(desk, 1)
    offers = [offer(desk, author, 1) for author in (1, 2, 3, 4)]
    for author in (1, 2, 3, 4):
        desk.learn(desk.federation[author].vote(1, offers))
    desk.wait(100.0)
    assert desk.machine.round == 1
    assert desk.book.agreed_rounds() == ()


def test_a_silent_neighbour_costs_one_grace_once() -> None:
    desk = desk_of()
    own_offer(desk, 1)
    desk.hold_payload(offer(desk, 1, 1))
    desk.wait(GRACE_S - 0.1)
    assert desk.phase is Phase.COLLECT
    desk.wait(0.2)
    assert merged(desk) == {0: 1, 1: 1}
    finish(desk, 1)
    for round_ in (2, 3):
        desk.advance()
        own_offer(desk, round_)
        desk.hold_payload(offer(desk, 1, round_))
        assert merged(desk) == {0: round_, 1: round_}, "without a wait"
        finish(desk, round_)
    desk.advance()
    offer(desk, 4, 3)  # heard again
    own_offer(desk, 4)
    desk.hold_payload(offer(desk, 1, 4))
    desk.advance()
    assert desk.phase is Phase.COLLECT


def test_a_stale_model_is_merged_again_until_it_is_too_old() -> None:
    desk = desk_of()
    stale = offer(desk, 4, 1)
    for round_ in range(1, 6):
        desk.advance()
        own_offer(desk, round_)
        desk.advance()
        if round_ == 1:
            desk.hold_payload(stale)
        desk.hold_payload(offer(desk, 1, round_))
        desk.wait(GRACE_S)
        expected = {0: round_, 1: round_} | ({4: 1} if round_ <= 3 else {})
        assert merged(desk) == expected
        finish(desk, round_)


def test_who_comes_at_its_own_slow_pace_is_not_waited_for() -> None:
    desk = desk_of()
    for round_ in range(1, 10):
        desk.advance()
        own_offer(desk, round_)
        desk.wait(20.0)
        desk.hold_payload(offer(desk, 1, round_))
        if round_ % 4 == 1:
            desk.hold_payload(offer(desk, 4, round_))
        desk.advance()
        if round_ == 6:
            assert desk.phase is Phase.AGREE, "member 4 comes every 80 seconds: not now"
        elif desk.phase is Phase.COLLECT:
            desk.wait(GRACE_S)
        finish(desk, round_)


def test_without_any_neighbour_it_stays_in_its_round_until_the_deadline() -> None:
    desk = desk_of()
    own_offer(desk, 1)
    desk.wait(59.0)
    assert desk.phase is Phase.COLLECT
    desk.wait(2.0)
    assert merged(desk) == {0: 1}


def test_who_is_left_far_behind_goes_where_more_than_f_are() -> None:
    desk = desk_of()
    own_offer(desk, 1)
    offer(desk, 2, 20)
    desk.wait(GRACE_S)
    assert (desk.phase, desk.machine.round) == (Phase.COLLECT, 1), "one may lie"
    offer(desk, 3, 9)
    desk.advance()
    assert (desk.phase, desk.machine.round) == (Phase.TRAIN, 9)


def test_what_a_slow_site_trained_is_offered_where_the_others_are() -> None:
    desk = desk_of()
    before = desk.advance()
    for author in (1, 2, 3, 4):
        offer(desk, author, 8)
    assert desk.advance() == before, "training goes on"
    assert desk.machine.offer_round(1) == 8
    assert desk.advance() == before
    own_offer(desk, 8)
    assert fetched(desk) == set(NEAR)
    assert desk.machine.round == 8


def test_a_little_behind_is_not_skipped() -> None:
    desk = desk_of()
    for author in (1, 2, 3, 4):
        offer(desk, author, 3)
    assert desk.machine.offer_round(1) == 1


def test_a_newcomer_starts_from_a_neighbours_newest_model_that_somebody_serves() -> None:
    federation = Federation(5, rounds=30, aggregation=RING)
    federation.open_all()
    models = {}
    for author in (1, 2, 4):
        one = federation[author]
        models[author] = digest_of("model of", author)
        one.vote(6, [one.contribute(6)], result=models[author])
        one.evaluate(6, models[author])
    desk = Desk(federation)
    (fetch,) = desk.start()
    assert desk.machine.round == 6
    assert fetch == Fetch(models[1], (1,))
    desk.machine.stalled(frozenset({models[1]}))
    assert desk.advance() == (Fetch(models[4], (4,)),)
    desk.machine.stalled(frozenset({models[1], models[4]}))
    assert desk.advance() == (Fetch(models[2], (2,)),), "who is no neighbour comes last"
    desk.machine.stalled(frozenset(models.values()))
    assert desk.advance() == (Train(6, None, None),)


def test_left_out_names_neighbours_only_and_says_why() -> None:
    desk = desk_of()
    own_offer(desk, 1)
    desk.hold_payload(offer(desk, 1, 1))
    desk.wait(GRACE_S)
    (effect,) = desk.advance()
    assert isinstance(effect, Merge)
    assert effect.left_out == ((4, Reason.NOT_RECEIVED),)


def test_a_copy_of_ones_own_model_is_no_second_input() -> None:
    desk = desk_of()
    own_offer(desk, 1)
    digest = digest_of("update", 0, 1)
    desk.learn(desk.federation[1].contribute(1, digest=digest, samples=1_000))
    desk.hold_payload(offer(desk, 4, 1))
    assert merged(desk) == {0: 1, 4: 1}


@pytest.mark.parametrize("phase", [Phase.TRAIN, Phase.COLLECT, Phase.AGREE, Phase.EVALUATE])
def test_a_crash_is_a_restart(phase: Phase) -> None:
    desk = desk_of()
    own_offer(desk, 1)
    desk.hold_payload(offer(desk, 1, 1))
    desk.wait(GRACE_S)
    finish(desk, 1)
    desk.advance()
    if phase is not Phase.TRAIN:
        own_offer(desk, 2)
        desk.advance()
    if phase in (Phase.AGREE, Phase.EVALUATE):
        desk.hold_payload(offer(desk, 1, 2))
        merge = desk.advance()[0]
        assert isinstance(merge, Merge)
        if phase is Phase.EVALUATE:
            desk.learn(desk.own.vote(2, _records(desk, merge.offers), result=digest_of("own", 2)))
            desk.advance()
    assert desk.phase is phase
    again = Desk(desk.federation)
    for digest, (codec, bytes_count) in desk.machine.position.held.items():
        again.hold(digest, codec=codec, bytes_count=bytes_count)
    again.start()
    waits_again = phase is Phase.AGREE  # for member 4: what it had seen of it is forgotten
    assert again.phase is (Phase.COLLECT if waits_again else phase)
    assert again.machine.round == 2
    kinds = [one.value.kind for one in desk.own.records]
    assert kinds.count(Kind.AGGREGATION) == (2 if phase is Phase.EVALUATE else 1)


def test_it_closes_although_the_others_end_with_other_models() -> None:
    desk = desk_of(rounds=1, members_min=2)
    own_offer(desk, 1)
    offers = {author: offer(desk, author, 1) for author in (1, 2, 3, 4)}
    for author in NEAR:
        desk.hold_payload(offers[author])
    finish(desk, 1)
    for author in (1, 2, 3, 4):
        one = desk.federation[author]
        desk.learn(one.vote(1, [offers[author]]), one.evaluate(1, result_of(1, [])))
    assert SignClose(2) in desk.advance()
    desk.learn(desk.own.close(2), *(desk.federation[a].close(2) for a in (1, 2, 3, 4)))
    desk.advance()
    assert desk.phase is Phase.DONE


def test_a_member_that_dies_at_the_end_costs_three_graces_however_many_rounds_there_were() -> None:
    rounds = 6
    desk = desk_of(rounds=rounds, members_min=2)
    for round_ in range(1, rounds + 1):
        desk.advance()
        own_offer(desk, round_)
        others = [author for author in (1, 2, 3, 4) if author != 4 or round_ < rounds]
        offers = {author: offer(desk, author, round_) for author in others}
        for author in set(NEAR) & set(others):
            desk.hold_payload(offers[author])
        desk.wait(GRACE_S)
        finish(desk, round_)
        for author in others:
            one = desk.federation[author]
            desk.learn(one.vote(round_, [offers[author]]), one.evaluate(round_, INITIAL))
    desk.advance()
    assert desk.phase is Phase.LINGER
    assert desk.machine.grace_s == GRACE_S, "no round is agreed here, and nothing is wrong"
    assert desk.wait(3 * GRACE_S - 0.1) == ()
    assert desk.wait(0.2) == (SignClose(rounds + 1),)
