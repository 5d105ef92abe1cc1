"""The round machine: every move it can make, and what a peer cannot make it do."""

import inspect
import re
import sys
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.charter import StoppingPolicy
from ledger.record import Codec, Input, Metrics, Reason, Record, Verified
from swarm.protocol.effects import Evaluate, Fetch, GiveUp, Merge, SignClose, SignOpen, Train
from swarm.protocol.ranking import ranked
from swarm.protocol.round import TRANSITIONS, Event, Phase
from swarm.protocol.steps import AGREEING, MIXING, StepFunction, mixing
from tests.federation import INITIAL, Desk, Federation, digest_of, input_of, result_of

FAR = 2**31


def contributed(
    federation: Federation, own: int = 0, *, held: tuple[int, ...] = (), round_: int = 1
) -> tuple[Desk, list[Verified[Record]]]:
    """A desk in COLLECT of round one: everybody has contributed, ``held`` payloads are here."""
    desk = Desk(federation, own)
    desk.start()
    offers = [author.contribute(round_) for author in federation.authors]
    desk.learn(*offers)
    for index in {own, *held}:
        desk.hold_payload(offers[index])
    desk.advance()
    return desk, offers


# The table


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("phase", Phase)
def test_the_machine_moves_as_the_table_says_and_in_no_other_way(
    phase: Phase, event: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, _ = contributed(Federation(4))
    position = desk.machine.position
    position.phase = phase
    happens = iter([(event, ()), (None, ())])
    monkeypatch.setattr("swarm.protocol.round.step", lambda _at, _now_s: next(happens))
    if (phase, event) in TRANSITIONS:
        desk.machine.advance(now_s=desk.now_s)
        assert position.phase is TRANSITIONS[phase, event]
    else:
        with pytest.raises(KeyError):
            desk.machine.advance(now_s=desk.now_s)
        assert position.phase is phase


def test_nobody_leaves_the_end_and_every_event_moves_somebody() -> None:
    assert not [pair for pair in TRANSITIONS if pair[0] is Phase.DONE]
    assert {event for _, event in TRANSITIONS} == set(Event)


@pytest.mark.parametrize("steps", [AGREEING, MIXING])
def test_every_phase_has_its_step_and_the_steps_name_exactly_the_moves_of_the_table(
    steps: Mapping[Phase, StepFunction],
) -> None:
    assert set(steps) == set(Phase)
    for module in {step.__module__ for step in steps.values()}:
        named = re.findall(r"\bEvent\.([A-Z_]+)", inspect.getsource(sys.modules[module]))
        phases = {phase for phase, step in steps.items() if step.__module__ == module}
        moves = {event.name for phase, event in TRANSITIONS if phase in phases}
        # Where nobody is asked, nobody is overtaken, and no vote is split.
        unused = {"OVERTAKEN", "SPLIT"} if module == mixing.__name__ else set()
        assert set(named) == moves - unused, module


def test_every_phase_is_reached_and_every_phase_leads_to_the_end() -> None:
    moves = [(source, target) for (source, _), target in TRANSITIONS.items()]
    forward, backward = {Phase.JOIN}, {Phase.DONE}
    for _ in Phase:
        forward |= {target for source, target in moves if source in forward}
        backward |= {source for source, target in moves if target in backward}
    assert forward == set(Phase)
    assert backward == set(Phase)


# Joining


def test_nobody_signs_before_somebody_has_said_where_his_log_ends() -> None:
    desk = Desk(Federation(4))
    assert desk.advance() == ()
    assert desk.wait(1_000) == (), "not even when patience is over"
    desk.machine.synced(2)
    assert desk.advance() == (SignOpen(),)


def test_a_swarm_starts_when_everybody_has_signed_or_patience_is_over() -> None:
    federation = Federation(4)
    desk = Desk(federation)
    desk.learn(federation[0].open(), federation[1].open())
    for peer in (1, 2, 3):
        desk.machine.synced(peer)
    assert desk.advance() == ()
    assert desk.phase is Phase.JOIN
    (effect,) = desk.wait(31)
    assert effect == Train(1, None, None)


# One round


def test_a_complete_set_votes_at_once() -> None:
    federation = Federation(4)
    desk, offers = contributed(federation)
    assert desk.phase is Phase.COLLECT
    for offer in offers:
        desk.hold_payload(offer)
    (merge,) = desk.advance()
    assert isinstance(merge, Merge)
    assert desk.now_s == 0
    assert {offer.author for offer in merge.offers} == {0, 1, 2, 3}
    assert merge.left_out == ()


def test_the_first_in_rank_proposes_at_the_deadline_and_the_next_after_a_grace() -> None:
    """Whose offer did not come in time is not waited for when it is its turn either."""
    for own in range(4):
        federation = Federation(4)
        others = [index for index in range(4) if index != own]
        desk, _ = contributed(federation, own, held=tuple(others[:2]))
        assert desk.wait(59) != ()
        assert desk.phase is Phase.COLLECT
        turn = ranked(federation.roster.net, 1, [own, *others[:2]]).index(own)
        for seconds in range(20):
            if any(isinstance(effect, Merge) for effect in desk.wait(1)):
                assert seconds == 3 * turn
                break
        else:
            raise AssertionError("it never proposed")


def test_a_round_without_a_quorum_is_provisional_and_nobody_waits_for_ever() -> None:
    federation = Federation(4)
    desk, offers = contributed(federation, held=(1,))
    desk.wait(60)
    (merge,) = [e for e in desk.wait(9) if isinstance(e, Merge)]
    assert dict(merge.left_out) == {2: Reason.NOT_RECEIVED, 3: Reason.NOT_RECEIVED}
    desk.learn(federation[0].vote(1, offers[:2]))
    assert desk.advance() == ()
    assert desk.phase is Phase.SETTLE
    (effect,) = desk.wait(9)
    assert isinstance(effect, Evaluate)
    assert desk.book.agreed(1) is None


def test_the_agreed_result_is_taken_over_by_one_who_voted_otherwise() -> None:
    federation = Federation(4)
    desk, offers = contributed(federation, held=(1,))
    desk.wait(70)
    desk.learn(federation[0].vote(1, offers[:2]))
    desk.advance()
    assert desk.phase is Phase.SETTLE
    desk.learn(*[federation[index].vote(1, offers[1:]) for index in (1, 2, 3)])
    agreed = result_of(1, [input_of(offer) for offer in offers[1:]])
    assert desk.advance() == (Fetch(agreed, (1, 2, 3)),)
    assert desk.phase is Phase.CATCH_UP
    desk.hold(agreed)
    assert desk.advance() == (Evaluate(1, agreed, None),)
    assert desk.machine.model == agreed


def test_a_late_joiner_catches_up_with_the_agreed_model_and_contributes_next() -> None:
    federation = Federation(4)
    federation.open_all()
    model = INITIAL
    for round_ in (1, 2):
        offers = [federation[index].contribute(round_, base=model) for index in (0, 1, 2)]
        for index in (0, 1, 2):
            federation[index].vote(round_, offers)
        model = result_of(round_, [input_of(offer) for offer in offers])
        for index in (0, 1, 2):
            federation[index].evaluate(round_, model)
    desk = Desk(federation, 3)
    assert desk.start() == (Fetch(model, (0, 1, 2)),)
    assert desk.phase is Phase.CATCH_UP
    desk.hold(model)
    assert desk.advance() == (Evaluate(2, model, None),)
    desk.learn(federation[3].evaluate(2, model))
    assert desk.advance() == (Train(3, model, None),)


def test_a_slow_node_that_was_outrun_skips_to_the_round_of_the_others() -> None:
    federation = Federation(4)
    desk, offers = contributed(federation)
    model = INITIAL
    for round_ in range(2, 4):
        desk.learn(*[federation[index].contribute(round_, base=model) for index in (1, 2, 3)])
    assert desk.machine.round == 1
    desk.wait(61)
    assert (desk.phase, desk.machine.round) == (Phase.TRAIN, 3)
    assert len(offers) == 4


def test_required_members_keep_a_round_open() -> None:
    federation = Federation(4, required='["hospital-d"]')
    desk, offers = contributed(federation, held=(1, 2))
    desk.wait(1_000)
    assert desk.phase is Phase.COLLECT
    desk.hold_payload(offers[3])
    (merge,) = desk.advance()
    assert isinstance(merge, Merge)


def test_a_required_member_that_has_offered_is_fetched_before_a_slow_site_gives_up() -> None:
    """The own training took longer than the longest wait: nobody has been asked for anything yet."""
    federation = Federation(4, required='["hospital-d"]')
    desk = Desk(federation)
    desk.start()
    offers = [author.contribute(1) for author in federation.authors]
    desk.learn(*offers[1:])
    desk.wait(100)
    desk.learn(offers[0])
    desk.hold_payload(offers[0])
    assert {effect.digest for effect in desk.advance() if isinstance(effect, Fetch)} == {
        digest_of("update", index, 1) for index in (1, 2, 3)
    }
    assert desk.phase is Phase.COLLECT
    (effect,) = desk.wait(61)
    assert effect == GiveUp(1, ("hospital-d",)), "it does not come either"


def test_a_base_that_nobody_keeps_any_more_is_not_waited_for() -> None:
    """A late vote agreed round 1 otherwise; by now the others are at round 3 and have removed its model."""
    federation = Federation(4)
    desk, offers = contributed(federation, held=(1,))
    desk.wait(70)
    own = result_of(1, [input_of(offer) for offer in offers[:2]])
    desk.learn(federation[0].vote(1, offers[:2]))
    desk.hold(own)
    desk.advance()
    desk.wait(9)
    desk.learn(*[federation[index].vote(1, offers[1:]) for index in (1, 2, 3)])
    desk.learn(federation[0].evaluate(1, own))
    agreed = result_of(1, [input_of(offer) for offer in offers[1:]])
    assert desk.advance() == (Fetch(agreed, (1, 2, 3)),)
    assert (desk.phase, desk.machine.round) == (Phase.TRAIN, 2)
    desk.machine.stalled(frozenset({agreed}))
    assert desk.advance() == (Fetch(agreed, (1, 2, 3)),), "nothing newer is agreed"
    model = agreed
    for round_ in (2, 3):
        later = [federation[index].contribute(round_, base=model) for index in (1, 2, 3)]
        cast = [federation[index].vote(round_, later) for index in (1, 2, 3)]
        model = result_of(round_, [input_of(offer) for offer in later])
        desk.learn(*later, *cast)
    assert desk.advance() == (Fetch(model, (1, 2, 3)),)
    assert (desk.phase, desk.machine.round) == (Phase.CATCH_UP, 3)


def test_what_is_withheld_from_a_node_that_catches_up_it_does_without() -> None:
    """Its repute falls below the floor while it is on its way to one of the newest rounds."""
    federation = Federation(4)
    federation.open_all()
    model = federation.agree(1, INITIAL)
    offers = [federation[index].contribute(2, base=model) for index in (1, 2, 3)]
    for index in (1, 2, 3):
        federation[index].vote(2, offers)
    desk = Desk(federation)
    desk.hold(model)
    (effect,) = desk.start()
    assert isinstance(effect, Fetch)
    assert (desk.phase, desk.machine.round) == (Phase.CATCH_UP, 2)
    desk.book.lag(3)
    (effect,) = desk.advance()
    assert effect == Evaluate(2, model, None)


def test_a_node_whose_log_is_past_the_last_round_evaluates_it_no_more() -> None:
    """It was outrun; then a late vote agrees the round before, and the others say that it was the last."""
    federation = Federation(4)
    desk = Desk(federation, stopping=StoppingPolicy(patience=2, delta_min=0.0))
    desk.start()
    offers = [author.contribute(1) for author in federation.authors]
    desk.learn(*offers)
    desk.hold_payload(offers[0])
    desk.advance()
    agreed = result_of(1, [input_of(offer) for offer in offers[1:]])
    desk.learn(*[federation[index].vote(1, offers[1:]) for index in (1, 2)])
    desk.learn(*[federation[index].evaluate(1, agreed) for index in (1, 2)])
    desk.learn(*[federation[index].contribute(2) for index in (1, 2)])
    desk.wait(61)
    assert (desk.phase, desk.machine.round) == (Phase.TRAIN, 2)
    desk.learn(federation[0].contribute(2))
    desk.advance()
    desk.learn(federation[3].vote(1, offers[1:]))
    desk.learn(*[federation[index].close(3) for index in (1, 2)])
    assert desk.advance() == (Fetch(agreed, (1, 2, 3)),)
    assert (desk.phase, desk.machine.round) == (Phase.CATCH_UP, 1)
    desk.hold(agreed)
    desk.advance()
    assert desk.phase is Phase.LINGER
    assert desk.machine.model == agreed


def test_who_was_past_the_last_round_before_it_closed_is_not_waited_for() -> None:
    federation = Federation(4)
    federation.open_all()
    model = federation.agree(1, INITIAL)
    federation[3].contribute(2)
    for author in federation.authors:
        author.close(3)
    records = [one for author in federation.authors for one in author.records]
    desk = Desk(federation)
    skipped = [
        one for one in records if one.value.author != 3 or not isinstance(one.value.body, Metrics)
    ]
    desk.hold(model)
    desk.learn(*skipped)
    desk.machine.position.phase, desk.machine.position.round = Phase.LINGER, 1
    desk.machine.position.model = model
    desk.advance()
    assert desk.phase is Phase.DONE


def test_a_base_that_is_withheld_from_now_on_is_chosen_anew() -> None:
    """The node has its own model of round 1, begins from the agreed one, and falls below the floor."""
    federation = Federation(4)
    federation.open_all()
    offers = [author.contribute(1) for author in federation.authors]
    for index in (1, 2, 3):
        federation[index].vote(1, offers[1:])
    own = digest_of("its own")
    federation[0].evaluate(1, own)
    agreed = result_of(1, [input_of(offer) for offer in offers[1:]])
    desk = Desk(federation)
    desk.hold(own)
    assert desk.start() == (Fetch(agreed, (1, 2, 3)),)
    assert desk.phase is Phase.TRAIN
    desk.book.lag(3)
    desk.machine.stalled(frozenset({agreed}))
    assert desk.advance() == (Train(2, own, None),)


def test_the_last_round_ends_with_a_farewell_and_stays_for_who_has_another_model() -> None:
    federation = Federation(2, rounds=1)
    federation.open_all()
    model = federation.agree(1, INITIAL)
    desk = Desk(federation)
    desk.hold(model)
    assert desk.start() == (SignClose(2),)
    assert desk.phase is Phase.LINGER
    desk.learn(federation[0].close(2))
    assert desk.advance() == ()
    desk.learn(federation[1].close(2))
    desk.advance()
    assert desk.phase is Phase.DONE


def test_who_went_on_without_a_quorum_is_served_until_the_linger_is_over() -> None:
    federation = Federation(3, rounds=1)
    federation.open_all()
    offers = [author.contribute(1) for author in federation.authors]
    model = result_of(1, [input_of(offer) for offer in offers])
    for index in (0, 1):
        federation[index].vote(1, offers)
        federation[index].evaluate(1, model)
    federation[2].vote(1, offers[1:])
    federation[2].evaluate(1, digest_of("its own"))
    for author in federation.authors:
        author.close(2)
    desk = Desk(federation, linger_s=60)
    desk.hold(model)
    desk.start()
    assert desk.phase is Phase.LINGER, "hospital-c may still come for the agreed model"
    desk.wait(60)
    assert desk.phase is Phase.DONE


def test_a_model_that_nobody_serves_any_more_does_not_keep_a_node_for_ever() -> None:
    federation = Federation(3, rounds=1)
    federation.open_all()
    offers = [author.contribute(1) for author in federation.authors]
    for index in (1, 2):
        federation[index].vote(1, offers)
    own_model = digest_of("its own")
    federation[0].vote(1, offers[1:])
    federation[0].evaluate(1, own_model)
    desk = Desk(federation, linger_s=60)
    desk.hold(own_model)
    effects = desk.start()
    agreed = result_of(1, [input_of(offer) for offer in offers])
    assert Fetch(agreed, (1, 2)) in effects
    desk.learn(federation[0].close(2))
    desk.wait(60)
    assert desk.phase is Phase.DONE


# Restarts


def history(phase: Phase) -> tuple[Federation, Desk]:
    """Member 0 in round one, stopped in one phase."""
    federation = Federation(4)
    if phase is Phase.TRAIN:
        desk = Desk(federation)
        desk.start()
        return federation, desk
    desk, offers = contributed(federation, held=(1,))
    if phase is Phase.COLLECT:
        return federation, desk
    desk.wait(70)
    desk.learn(federation[0].vote(1, offers[:2]))
    desk.hold(result_of(1, [input_of(offer) for offer in offers[:2]]))
    desk.advance()
    if phase is Phase.SETTLE:
        return federation, desk
    desk.learn(*[federation[index].vote(1, offers[1:]) for index in (1, 2, 3)])
    desk.advance()
    if phase is Phase.CATCH_UP:
        return federation, desk
    desk.hold(result_of(1, [input_of(offer) for offer in offers[1:]]))
    desk.advance()
    return federation, desk


@pytest.mark.parametrize(
    "phase", [Phase.TRAIN, Phase.COLLECT, Phase.SETTLE, Phase.CATCH_UP, Phase.EVALUATE]
)
def test_a_restart_is_a_replay_and_stands_in_the_same_round_and_phase(phase: Phase) -> None:
    federation, before = history(phase)
    assert before.phase is phase
    assert standing(restarted(federation, before)) == standing(before)
    if phase is Phase.EVALUATE:
        before.learn(federation[0].evaluate(1, before.machine.model))
        before.advance()
        assert standing(restarted(federation, before)) == standing(before)
        assert (before.phase, before.machine.round) == (Phase.TRAIN, 2)


def restarted(federation: Federation, before: Desk) -> Desk:
    after = Desk(federation)
    for digest, (codec, bytes_count) in before.machine.position.held.items():
        after.hold(digest, codec=codec, bytes_count=bytes_count)
    after.start()
    return after


def standing(desk: Desk) -> tuple[int, Phase, bytes]:
    return desk.machine.round, desk.phase, desk.machine.model


def test_after_a_skip_a_restart_never_goes_back_behind_its_own_log() -> None:
    """The log of a member refuses records of an earlier round: going back would crash it for ever."""
    federation = Federation(4)
    federation.open_all()
    federation[0].contribute(1)
    federation[0].contribute(3)
    desk = Desk(federation)
    desk.start()
    assert (desk.phase, desk.machine.round) == (Phase.COLLECT, 3)


def test_after_a_skip_an_older_agreed_round_does_not_pull_a_restart_back() -> None:
    federation = Federation(4, rounds=9)
    federation.open_all()
    federation[0].contribute(1)
    others = federation.authors[1:]
    offers = [author.contribute(1) for author in others]
    for author in others:
        author.vote(1, offers)
    federation[0].contribute(5)
    desk = Desk(federation)
    desk.start()
    assert (desk.phase, desk.machine.round) == (Phase.COLLECT, 5)


def test_a_vote_is_cast_once_whatever_is_replayed() -> None:
    federation = Federation(4)
    desk, offers = contributed(federation, held=(1, 2, 3))
    desk.learn(federation[0].vote(1, offers[:2]))
    again = Desk(federation)
    for offer in offers:
        again.hold_payload(offer)
    for seconds in range(60):
        again.now_s = seconds
        effects = again.start()
        assert not any(isinstance(effect, Merge) for effect in effects)
        if again.machine.round > 1:
            break


# What a liar cannot do


def collected(own: int = 0) -> tuple[Federation, Desk, list[Verified[Record]]]:
    federation = Federation(4)
    desk, offers = contributed(federation, own)
    return federation, desk, offers


def merges(desk: Desk, offers: list[Verified[Record]]) -> set[int]:
    """Whom the desk merges once it holds everything."""
    for offer in offers:
        desk.hold_payload(offer)
    (merge,) = desk.advance()
    assert isinstance(merge, Merge)
    return {offer.author for offer in merge.offers}


def test_a_vote_for_nothing_is_not_followed() -> None:
    federation, desk, offers = collected()
    desk.learn(federation[3].vote(1, []))
    assert merges(desk, offers) == {0, 1, 2, 3}


def test_a_liar_who_publishes_first_does_not_become_the_model() -> None:
    federation, desk, offers = collected()
    desk.learn(federation[3].vote(1, [offers[3]]))
    assert merges(desk, offers) == {0, 1, 2, 3}


def test_a_proposal_leaves_out_no_more_than_a_quorum_can_do_without() -> None:
    federation, desk, offers = collected()
    desk.learn(federation[3].vote(1, [offers[2], offers[3]]))
    assert merges(desk, offers) == {0, 1, 2, 3}
    federation, desk, offers = collected()
    desk.learn(federation[3].vote(1, offers[1:]))
    assert merges(desk, offers) == {1, 2, 3}, "one less of four is followed: a quorum is three"
    federation, desk, offers = collected()
    desk.learn(*[federation[index].vote(1, offers[2:]) for index in (2, 3)])
    assert merges(desk, offers) == {2, 3}, "more than f say so: for an honest one it was all"


def test_one_contribution_named_under_several_authors_is_not_merged_twice() -> None:
    federation, desk, offers = collected()
    twin = input_of(offers[3])
    forged = [
        Input(author=author, epoch=0, seq=twin.seq, id=twin.id, weight_micro=0)
        for author in range(4)
    ]
    desk.learn(federation[3].vote(1, forged))
    assert merges(desk, offers) == {0, 1, 2, 3}


def test_a_vote_without_a_required_member_is_not_followed() -> None:
    federation = Federation(4, required='["hospital-a"]')
    desk, offers = contributed(federation)
    desk.learn(federation[3].vote(1, offers[1:]))
    assert merges(desk, offers) == {0, 1, 2, 3}


def test_a_wrong_result_for_the_right_inputs_still_counts_as_a_proposal_of_these_inputs() -> None:
    federation, desk, offers = collected()
    desk.learn(federation[3].vote(1, offers[1:], result=digest_of("a lie")))
    desk.learn(federation[2].vote(1, offers[1:]))
    assert merges(desk, offers) == {1, 2, 3}


def test_a_payload_that_is_held_as_something_else_is_not_merged() -> None:
    """Everybody holds the moments of round zero; offering their digest as an update must not crash."""
    federation = Federation(4)
    moments = digest_of("moments")
    desk = Desk(federation)
    desk.start()
    desk.hold(moments, codec=Codec.MOMENTS, bytes_count=77)
    claims = [(Codec.MOMENTS, 77), (Codec.FLOAT32, 77), (Codec.FLOAT32, 1_000)]
    offers = [federation[0].contribute(1)] + [
        federation[index + 1].contribute(1, digest=moments, codec=codec, bytes_count=count)
        for index, (codec, count) in enumerate(claims)
    ]
    desk.learn(*offers)
    desk.hold_payload(offers[0])
    fetches = desk.advance()
    assert {effect.offer.author for effect in fetches if effect.offer} == {1, 2, 3}
    assert desk.phase is Phase.COLLECT


def test_far_future_rounds_of_one_liar_move_nobody() -> None:
    federation, desk, offers = collected()
    liar = federation[3]
    far = liar.contribute(FAR)
    desk.learn(far, liar.vote(FAR, [far]), liar.evaluate(FAR, digest_of("x")))
    desk.wait(1_000)
    assert desk.machine.round == 1
    assert desk.book.latest_agreed() is None
    assert desk.book.round_ahead(0) == 1
    assert len(offers) == 4


def test_an_offer_from_a_base_that_nobody_knows_is_left_out_with_the_reason() -> None:
    federation = Federation(4)
    desk = Desk(federation)
    desk.start()
    offers = [federation[index].contribute(1) for index in (0, 1, 2)]
    offers.append(federation[3].contribute(1, base=digest_of("elsewhere")))
    desk.learn(*offers)
    for offer in offers:
        desk.hold_payload(offer)
    desk.wait(61)
    (merge,) = [e for e in desk.wait(10) if isinstance(e, Merge)]
    assert merge.left_out == ((3, Reason.WRONG_BASE),)


def test_a_refused_contribution_is_left_out_with_the_reason_of_the_refusal() -> None:
    federation = Federation(4)
    desk, offers = contributed(federation, held=(1, 2))
    desk.learn(federation[0].reject(1, offers[3].id, Reason.NOT_FINITE))
    desk.wait(61)
    (merge,) = [e for e in desk.wait(10) if isinstance(e, Merge)]
    assert merge.left_out == ((3, Reason.NOT_FINITE),)


def test_nobody_refuses_for_others() -> None:
    federation = Federation(4)
    desk, offers = contributed(federation, held=(1, 2, 3))
    desk.learn(federation[3].reject(1, offers[1].id))
    (merge,) = desk.advance()
    assert isinstance(merge, Merge)
    assert len(merge.offers) == 4


# Round zero


def test_round_zero_spends_no_vote_without_a_quorum_of_contributions() -> None:
    """Two and two, cut off from each other, would have voted for sets that never agree."""
    federation = Federation(4)
    desk = Desk(federation, has_moments=True)
    desk.start()
    offers = [federation[index].contribute(0) for index in (0, 1)]
    desk.learn(*offers)
    for offer in offers:
        desk.hold_payload(offer)
    desk.wait(10_000)
    assert desk.phase is Phase.COLLECT
    late = federation[2].contribute(0)
    desk.learn(late)
    desk.hold_payload(late)
    desk.advance()
    effects = desk.wait(10)
    assert any(isinstance(effect, Merge) for effect in effects)


def test_round_zero_waits_for_its_quorum_of_votes() -> None:
    federation = Federation(4)
    desk = Desk(federation, has_moments=True)
    desk.start()
    offers = [author.contribute(0) for author in federation.authors]
    desk.learn(*offers, federation[0].vote(0, offers))
    desk.wait(10_000)
    assert desk.phase is Phase.SETTLE
    moments = result_of(0, [input_of(offer) for offer in offers])
    desk.hold(moments, codec=Codec.MOMENTS)
    for ballot in (0, 1):
        desk.learn(*[federation[index].vote(0, offers, ballot=ballot) for index in (1, 2)])
    assert desk.do(desk.advance()) == (Train(1, None, moments),)


# Any order


@given(st.randoms(use_true_random=False), st.integers(0, 40))
def test_the_same_records_in_any_order_and_time_lead_to_the_same_vote(
    random: object, step: int
) -> None:
    federation = Federation(4)
    desk, offers = contributed(federation, held=(1, 2, 3))
    others = [federation[index].vote(1, offers) for index in (1, 2, 3)]
    random.shuffle(others)  # type: ignore[attr-defined]
    merged: set[frozenset[int]] = set()
    for vote in [None, *others]:
        if vote is not None:
            desk.learn(vote)
        for effect in desk.wait(step):
            if isinstance(effect, Merge):
                merged.add(frozenset(offer.author for offer in effect.offers))
    assert merged <= {frozenset(range(4))}


@pytest.mark.parametrize("how", ["voted otherwise", "went on", "left"])
def test_votes_that_cannot_make_a_quorum_any_more_are_not_waited_for(how: str) -> None:
    federation = Federation(4)
    desk, offers = contributed(federation, held=(1, 2, 3))
    desk.learn(federation[0].vote(1, offers), federation[1].vote(1, offers[1:]))
    desk.advance()
    assert desk.phase is Phase.SETTLE
    assert desk.advance() == (), "two may still come"
    match how:
        case "voted otherwise":
            desk.learn(federation[2].vote(1, offers[:3]))
        case "went on":
            desk.learn(federation[2].contribute(2))
        case "left":
            desk.learn(federation[2].close(1))
    (effect,) = desk.advance()
    assert isinstance(effect, Evaluate)
    assert desk.machine.model == result_of(1, [input_of(offer) for offer in offers])


@pytest.mark.parametrize(("ended", "goes_to"), [((), 2), ((1,), 2), ((1, 2), 3)])
def test_who_comes_a_whole_round_late_goes_where_others_are(
    ended: tuple[int, ...], goes_to: int
) -> None:
    """Simulated (seed 7764): or it stays so late, and every vote splits. One liar moves nobody."""
    federation = Federation(4)
    desk, _ = contributed(federation)
    desk.machine.position.phase = Phase.EVALUATE
    desk.learn(federation[0].evaluate(1, INITIAL))
    desk.learn(*[federation[index].contribute(2) for index in (1, 2, 3)])
    desk.learn(*[federation[index].evaluate(2, INITIAL) for index in ended])
    desk.advance()
    assert (desk.phase, desk.machine.round) == (Phase.TRAIN, goes_to)


def test_a_member_that_is_rounds_ahead_is_not_waited_for_in_this_one() -> None:
    federation = Federation(4, members_min=2)
    desk = Desk(federation)
    desk.start()
    offers = [federation[index].contribute(1) for index in (0, 1, 2)]
    desk.learn(*offers)
    for offer in offers:
        desk.hold_payload(offer)
    assert desk.advance() == ()
    assert desk.phase is Phase.COLLECT
    desk.learn(federation[3].contribute(2))
    desk.advance()
    assert desk.phase is Phase.AGREE
