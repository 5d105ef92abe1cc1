"""A stall is explained in the hospitals' own names."""

from swarm.protocol.round import Phase
from swarm.protocol.waiting import why_waiting
from tests.federation import Desk, Federation


def test_every_wait_of_a_round_names_whom_it_waits_for() -> None:
    federation = Federation(4)
    desk = Desk(federation)
    assert why_waiting(desk.machine, connected=()) == "no other hospital is connected yet"
    desk.learn(federation[0].open(), federation[1].open())
    why = why_waiting(desk.machine, connected=(1, 2, 3))
    assert why == "to sign the charter: hospital-c, hospital-d"
    desk.learn(federation[2].open(), federation[3].open())
    assert why_waiting(desk.machine, connected=(1, 2, 3)) == "ledgers to be compared"
    desk.start()
    assert desk.phase is Phase.TRAIN
    assert why_waiting(desk.machine, connected=(1, 2, 3)) == "", "it works by itself"
    offers = [federation[index].contribute(1) for index in (0, 1)]
    desk.learn(*offers)
    desk.hold_payload(offers[0])
    desk.advance()
    why = why_waiting(desk.machine, connected=(1, 2, 3))
    assert why == "training: hospital-c, hospital-d; payload of hospital-b"
    desk.hold_payload(offers[1])
    desk.wait(60)
    assert desk.phase is Phase.AGREE
    assert (
        why_waiting(desk.machine, connected=(1, 2, 3))
        == "a proposal of which contributions to merge"
    )
    desk.learn(federation[0].vote(1, offers))
    desk.advance()
    assert why_waiting(desk.machine, connected=(1, 2, 3)) == "equal results: 1 of 3 needed"


def test_too_few_members_are_named_as_a_number() -> None:
    federation = Federation(3, members_min=3)
    desk = Desk(federation)
    desk.start()
    offers = [author.contribute(1) for author in federation.authors]
    desk.learn(*offers, federation[0].reject(1, offers[2].id))
    for offer in offers:
        desk.hold_payload(offer)
    desk.wait(1_000)
    assert why_waiting(desk.machine, connected=(1, 2)) == "more members (at least 3 contribute)"


def test_a_required_member_that_is_missing_is_named_as_such() -> None:
    federation = Federation(3, required='["hospital-c"]')
    desk = Desk(federation)
    desk.start()
    offers = [federation[index].contribute(1) for index in (0, 1)]
    desk.learn(*offers)
    for offer in offers:
        desk.hold_payload(offer)
    desk.advance()
    why = why_waiting(desk.machine, connected=(1, 2))
    assert why == "required by the charter: hospital-c; training: hospital-c"


def test_who_comes_back_after_all_have_left_is_told_who_holds_the_model() -> None:
    federation = Federation(4)
    federation.open_all()
    offers = [federation[index].contribute(1) for index in range(3)]
    for index in range(3):
        federation[index].vote(1, offers)
    desk = Desk(federation, 3)
    desk.start()
    assert desk.phase is Phase.CATCH_UP
    assert why_waiting(desk.machine, connected=()) == (
        "the agreed model of round 1: one of those who hold it has to run and be reached: "
        "hospital-a, hospital-b, hospital-c; no other hospital is connected"
    )
    why = why_waiting(desk.machine, connected=(1,))
    assert why == "the agreed model of round 1, from hospital-b"


def test_who_comes_back_alone_is_told_that_it_needs_another_and_for_which_round() -> None:
    federation = Federation(3)
    desk = Desk(federation)
    desk.learn(federation[0].open(), federation[0].contribute(2))
    assert why_waiting(desk.machine, connected=()) == (
        "another hospital to run: alone this site does not go on with round 2"
    )
