"""Where a merge starts from: the base that most were trained from, and only one that a quorum agreed on."""

from ledger.record import Reason, Record, Rule, Verified
from swarm.protocol.effects import Fetch, Merge, SignClose, Train
from swarm.protocol.round import Phase
from swarm.protocol.waiting import why_waiting
from tests.federation import INITIAL, Desk, Federation, digest_of

ROBUST = 'rule = "median"'


def robust(count: int = 4) -> Federation:
    return Federation(count, rounds=9, aggregation=ROBUST)


def contributed(
    desk: Desk, federation: Federation, round_: int, base: bytes = INITIAL
) -> list[Verified[Record]]:
    """Everybody offers, and the desk holds it."""
    offers = [author.contribute(round_, base=base) for author in federation.authors]
    desk.learn(*offers)
    for one in offers:
        desk.hold_payload(one)
    return offers


def agreed(desk: Desk, federation: Federation, round_: int, base: bytes = INITIAL) -> bytes:
    """A round with everybody in it, evaluated by all."""
    offers = contributed(desk, federation, round_, base)
    desk.advance()
    result = digest_of("model", round_)
    votes = [
        one.vote(round_, offers, rule=Rule.MEDIAN, result=result) for one in federation.authors
    ]
    desk.hold(result)
    desk.learn(*votes)
    desk.learn(*(one.evaluate(round_, result) for one in federation.authors))
    return result


def merge_of(desk: Desk) -> Merge:
    (effect,) = desk.wait(20.0)
    assert isinstance(effect, Merge), effect
    return effect


def test_a_merge_starts_from_what_its_inputs_were_trained_from() -> None:
    federation = robust()
    desk = Desk(federation)
    desk.start()
    contributed(desk, federation, 1)
    assert merge_of(desk).origin == INITIAL


def test_the_plain_mean_starts_from_nothing() -> None:
    federation = Federation(4, rounds=9)
    desk = Desk(federation)
    desk.start()
    contributed(desk, federation, 1)
    assert merge_of(desk).origin is None


def test_an_older_agreed_base_counts_and_the_majority_decides() -> None:
    federation = robust()
    desk = Desk(federation)
    desk.start()
    model = agreed(desk, federation, 1)
    desk.advance()
    behind = federation[3].contribute(2, base=INITIAL)
    offers = [*(federation[i].contribute(2, base=model) for i in range(3)), behind]
    desk.learn(*offers)
    for one in offers:
        desk.hold_payload(one)
    merge = merge_of(desk)
    assert {offer.author for offer in merge.offers} == {0, 1, 2, 3}
    assert merge.origin == model


def test_an_offer_from_a_model_that_nobody_agreed_on_is_left_out_and_counts_once_it_is_late() -> (
    None
):
    federation = robust()
    desk = Desk(federation)
    desk.start()
    model = agreed(desk, federation, 1)
    desk.advance()
    stray = digest_of("model of one")
    desk.learn(federation[3].vote(1, [], rule=Rule.MEDIAN, result=stray))
    offers = [*(federation[i].contribute(2, base=model) for i in range(3))]
    strange = federation[3].contribute(2, base=stray)
    desk.learn(*offers, strange)
    for one in (*offers, strange):
        desk.hold_payload(one)
    merge = merge_of(desk)
    assert {offer.author for offer in merge.offers} == {0, 1, 2}
    assert merge.left_out == ((3, Reason.WRONG_BASE),)
    candidates = desk.machine.position.candidates
    assert 3 in {offer.author for offer in candidates.usable(3)}, "late, only what is new counts"


def test_the_base_is_fetched_before_anything_is_merged() -> None:
    federation = robust()
    desk = Desk(federation)
    desk.start()
    model = agreed(desk, federation, 1)
    desk.advance()
    desk.machine.release(model)
    own = federation[0].contribute(2, base=INITIAL)
    offers = [own, *(federation[i].contribute(2, base=model) for i in range(1, 4))]
    desk.learn(*offers)
    for one in offers:
        desk.hold_payload(one)
    (fetch,) = desk.wait(20.0)
    assert isinstance(fetch, Fetch)
    assert fetch.digest == model
    assert set(fetch.sources) == {1, 2, 3}
    desk.hold(model)
    assert merge_of(desk).origin == model


def test_after_a_round_that_nobody_agreed_on_training_starts_from_the_last_agreed_model() -> None:
    """From one's own result others could merge nothing."""
    for aggregation, rule in ((ROBUST, Rule.MEDIAN), ("", Rule.MEAN)):
        federation = Federation(4, rounds=9, aggregation=aggregation)
        desk = Desk(federation)
        desk.start()
        offers = contributed(desk, federation, 1)
        desk.advance()
        own = digest_of("own model")
        desk.learn(federation[0].vote(1, offers, rule=rule, result=own))
        desk.hold(own)
        desk.advance()
        desk.wait(500.0)
        assert desk.phase is Phase.EVALUATE
        desk.learn(federation[0].evaluate(1, own))
        trains = [one for one in desk.wait(0.0) if isinstance(one, Train)]
        assert [(one.round, one.base) for one in trains] == [(2, None if aggregation else own)]


def test_a_round_in_which_nobody_offers_from_a_base_of_use_is_left_after_the_longest_deadline() -> (
    None
):
    """A cut took the votes away that had agreed the base, and nobody offers twice in a round."""
    federation = robust()
    desk = Desk(federation)
    desk.start()
    lost = digest_of("model whose votes were cut away")
    desk.learn(federation[3].vote(1, [], rule=Rule.MEDIAN, result=lost))
    offers = [one.contribute(1, base=lost) for one in federation.authors]
    desk.learn(*offers)
    for one in offers:
        desk.hold_payload(one)
    desk.wait(50.0)
    assert (desk.phase, desk.machine.round) == (Phase.COLLECT, 1)
    assert why_waiting(desk.machine, connected=(1, 2, 3)) == (
        "others than hospital-a, hospital-b, hospital-c, hospital-d, who began with an unagreed model"
    )
    (train,) = desk.wait(20.0)
    assert isinstance(train, Train)
    assert (train.round, train.base) == (2, None)


def test_a_last_round_in_which_nobody_offers_what_is_of_use_ends_all_the_same() -> None:
    federation = Federation(4, rounds=1, aggregation=ROBUST)
    desk = Desk(federation)
    desk.start()
    lost = digest_of("model whose votes were cut away")
    desk.learn(federation[3].vote(1, [], rule=Rule.MEDIAN, result=lost))
    desk.learn(*(one.contribute(1, base=lost) for one in federation.authors))
    desk.wait(70.0)
    assert desk.phase is Phase.LINGER
    (close,) = desk.wait(60.0)
    assert isinstance(close, SignClose)


def test_a_round_that_comes_to_nothing_is_left_after_the_longest_wait_whoever_is_missing() -> None:
    federation = Federation(4, rounds=9, aggregation=ROBUST, members_min=2)
    desk = Desk(federation)
    desk.start()
    lost = digest_of("model whose votes were cut away")
    desk.learn(federation[3].vote(1, [], rule=Rule.MEDIAN, result=lost))
    desk.learn(*(federation[one].contribute(1, base=lost) for one in (0, 1, 2)))
    desk.wait(50.0)
    assert (desk.phase, desk.machine.round) == (Phase.COLLECT, 1), "it may still offer"
    desk.wait(20.0)
    assert desk.machine.round == 2
