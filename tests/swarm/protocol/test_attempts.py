"""Round zero votes until it agrees, and never on two things: the rules, random histories, and whole swarms."""

from dataclasses import replace
from random import Random

import pytest

from ledger.fork import Cut
from ledger.record import Aggregation, Codec, Record, Verified, sign_record
from ledger.roster import Roster, quorum, tolerated
from swarm.protocol.attempts import Attempts, Bound
from swarm.protocol.ballots import is_confirmation
from swarm.protocol.book import Agreed, Proposal, RoundBook
from swarm.protocol.effects import Adopt, Fetch, Merge
from swarm.protocol.round import Phase
from tests.federation import Desk, Federation, after_removal
from tests.swarm.protocol.attempt_histories import History
from tests.swarm.protocol.paper_swarm import PaperSwarm
from tests.swarm.protocol.roster_histories import ChangingHistory, Operation

Records = list[Verified[Record]]
HISTORIES = [
    (2, 0, 20),
    (3, 0, 40),
    (4, 0, 30),
    (4, 1, 400),
    (5, 1, 40),
    (6, 1, 30),
    (7, 1, 12),
    (7, 2, 40),
]
"""(members, liars that sign two histories, how many histories)"""


def history_of(members: int, forking: int, seed: int) -> History:
    """Return a history in which some members may have agreed, and others not."""
    history = History(members, seed, forking=forking)
    history.run(members * members * history.random.choice((6, 10, 16)))
    return history


@pytest.mark.parametrize(("members", "forking", "count"), HISTORIES)
def test_whatever_liars_within_f_do_members_agree_on_one_thing_and_in_the_end_all_do(
    members: int, forking: int, count: int
) -> None:
    partly = 0
    for seed in range(count):
        history = history_of(members, forking, seed)
        agreed = [member.agreed is not None for member in history.members]
        partly += any(agreed) and not all(agreed)
        assert history.heal(rounds=14), f"seed {seed}\n{history.told()}"
        history.check_restarts()
    assert partly or count < 30, "some should have agreed alone, and gone on"


def votes_alone_agree(book: RoundBook, round_: int) -> object:
    """Take the first thing that a quorum voted for."""
    numbers = [one for one in book.turnouts() if not is_confirmation(one)]
    winners = [book.winner(round_, one) for one in numbers]
    return next((Agreed(0, one, ()) for one in winners if one), None)


def unbound(_attempts: Attempts) -> Bound | None:
    """Vote for anything, whatever was confirmed."""
    return None


@pytest.mark.parametrize(
    ("where", "name", "bug"),
    [(Attempts, "bound", unbound), (RoundBook, "agreed", votes_alone_agree)],
    ids=["bound to nothing", "one phase"],
)
def test_the_histories_find_what_each_phase_is_for(
    monkeypatch: pytest.MonkeyPatch, where: type, name: str, bug: object
) -> None:
    monkeypatch.setattr(where, name, bug)
    with pytest.raises(AssertionError):
        for seed in range(400, 500):
            history_of(4, 1, seed).heal(rounds=14)


CHANGES = [
    (4, 1, Operation.REMOVAL, 120),
    (4, 1, Operation.ROTATION, 120),
    (4, 1, Operation.ADDITION, 80),
    (3, 0, Operation.ADDITION, 30),
    (7, 2, Operation.ROTATION, 12),
    (7, 2, Operation.REMOVAL, 12),
    (6, 1, Operation.ADDITION, 15),
]
"""(members, liars that sign two histories, what changes, how many histories)"""


def assert_all_agree(seed: int, members: int, forking: int, operation: Operation) -> None:
    """Whatever happens while the roster changes, all agree; only what a rotation cuts may be missed."""
    history = ChangingHistory(members, seed, forking=forking, operation=operation)
    history.run(members * members * history.random.choice((6, 10, 16)))
    agree = history.heal(rounds=14)
    misses = any(member.waits_for_what_was_cut() for member in history.members)
    assert agree or (misses and operation is Operation.ROTATION), f"seed {seed}\n{history.told()}"
    history.check_restarts()


@pytest.mark.parametrize(("members", "forking", "operation", "count"), CHANGES)
def test_they_agree_on_one_thing_while_the_roster_changes(
    members: int, forking: int, operation: Operation, count: int
) -> None:
    for seed in range(count):
        assert_all_agree(seed, members, forking, operation)


def may_always_be_agreed(_attempts: Attempts, _number: int, _proposal: Proposal) -> bool:
    """Stay bound to what was confirmed, whoever could not have."""
    return True


def test_the_histories_find_who_waits_for_what_a_removal_took_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Attempts, "_may_be_agreed", may_always_be_agreed)
    with pytest.raises(AssertionError):
        for seed in range(100):
            assert_all_agree(seed, 4, 1, Operation.REMOVAL)


@pytest.mark.parametrize("members", range(2, 60))
def test_who_has_not_confirmed_what_is_agreed_is_too_few_also_after_one_addition_or_removal(
    members: int,
) -> None:
    for now in (members - 1, members, members + 1):
        for liars in range(min(tolerated(members), tolerated(max(now, 1))) + 1):
            bound = quorum(members) - liars - (now < members)  # one of them may be removed
            assert now - bound < quorum(now), (members, now, liars)


def unlucky(seed: int) -> tuple[PaperSwarm, list[int]]:
    """Slow lines, short deadlines, and up to f members lost at any moment of round zero."""
    random = Random(seed)
    count = random.choice([3, 4, 4, 5, 6, 7])
    swarm = PaperSwarm(
        count,
        seed=seed,
        rounds=1,
        has_moments=True,
        members_min=1,
        delay_s=random.choice([0.05, 1.0]),
        jitter_s=random.choice([1.0, 6.0, 20.0]),
        sync_s=random.choice([5.0, 20.0, 40.0]),
        deadline_min_s=1.0,
        deadline_max_s=random.choice([2.0, 6.0]),
        grace_s=random.choice([0.5, 1.0]),
    )
    for site in swarm.sites:
        site.fetch_s = random.choice([0.1, 1.0, 2.0, 4.0, 8.0])
    return swarm, random.sample(range(count), tolerated(count))


def test_no_member_that_is_lost_in_round_zero_halts_it() -> None:
    again = 0
    for seed in range(80):
        swarm, lost = unlucky(seed)
        swarm.run(Random(seed).random() * 30)
        for index in lost:
            swarm.kill(index)
        swarm.run(4_000)
        books = [site.machine.book for site in swarm.sites if site.alive]
        agreed = [book.agreed(0) for book in books]
        assert swarm.done(), f"seed {seed}, lost {lost}:\n{swarm.course()}"
        assert len({one.proposal.result for one in agreed if one}) == 1, f"seed {seed}"
        again += any(max(book.turnouts()) > 1 for book in books)
    assert again >= 5, "these seeds should split some votes"


def voting() -> tuple[Federation, Desk, Records]:
    """Four members at round zero; all payloads are here, and this desk has yet to vote."""
    federation = Federation(4)
    desk = Desk(federation, has_moments=True)
    desk.start()
    offers = [author.contribute(0) for author in federation.authors]
    desk.learn(*offers)
    for offer in offers:
        desk.hold_payload(offer)
    desk.advance()
    return federation, desk, offers


def split() -> tuple[Federation, Desk, Records]:
    """The first two votes differ, and this desk's is one of them."""
    federation, desk, offers = voting()
    desk.learn(federation[0].vote(0, offers), federation[1].vote(0, offers[1:]))
    desk.advance()
    assert desk.phase is Phase.SETTLE
    return federation, desk, offers


def body_of(record: Verified[Record]) -> Aggregation:
    assert isinstance(record.value.body, Aggregation)
    return record.value.body


def proposal_of(record: Verified[Record]) -> Proposal:
    body = body_of(record)
    return Proposal(body.rule, body.inputs, body.result_digest)


def confirmed() -> tuple[Federation, Desk, Records]:
    """Three vote for the same, this desk confirms it, and nobody else has yet."""
    federation, desk, offers = voting()
    for index in (1, 2):
        desk.learn(federation[index].vote(0, offers))
    effects = desk.advance()
    effects = desk.do(effects)
    (effect,) = effects
    assert isinstance(effect, Adopt)
    assert effect.ballot == 1
    assert desk.do(effects) == ()
    assert desk.book.agreed(0) is None
    return federation, desk, offers


def test_what_a_quorum_voted_for_is_confirmed_and_a_quorum_of_confirmations_agrees() -> None:
    federation, desk, offers = confirmed()
    desk.learn(federation[1].vote(0, offers, ballot=1))
    assert desk.book.agreed(0) is None
    desk.learn(federation[2].vote(0, offers, ballot=1))
    agreed = desk.book.agreed(0)
    assert agreed is not None
    assert agreed.voters == (0, 1, 2)


def test_what_others_confirm_is_fetched_before_it_is_confirmed_here() -> None:
    federation, desk, offers = split()
    votes = [federation[index].vote(0, offers[1:]) for index in (2, 3)]
    desk.learn(*votes)
    result = body_of(votes[0]).result_digest
    assert desk.advance() == (Fetch(result, (1, 2, 3)),)
    desk.hold(result, codec=Codec.MOMENTS)
    (effect,) = desk.advance()
    assert isinstance(effect, Adopt)
    assert (effect.ballot, effect.proposal.result) == (1, result)


def test_a_split_vote_is_taken_again_once_enough_take_part_and_it_has_lasted() -> None:
    federation, desk, offers = split()
    assert desk.wait(100) == (), "two are too few to agree on anything"
    desk.learn(federation[2].vote(0, offers[1:]))
    (merge,) = desk.advance()
    assert isinstance(merge, Merge)
    assert merge.ballot == 2
    assert {offer.author for offer in merge.offers} == {1, 2, 3}, "most voted for it"


def test_each_attempt_lasts_twice_as_long_as_the_one_before() -> None:
    _, desk, _ = voting()
    patience = desk.machine.position.patience
    assert [patience.attempt_s(attempt) for attempt in (0, 1, 2, 2**40)] == [9, 18, 36, 9_216]


def test_who_has_confirmed_votes_for_it_again_whatever_the_others_vote_for() -> None:
    federation, desk, offers = confirmed()
    desk.learn(*(federation[index].vote(0, offers[1:], ballot=2) for index in (2, 3)))
    (effect,) = desk.advance()
    assert isinstance(effect, Adopt), (
        "two have gone on, so an honest one has: this desk goes on too"
    )
    assert effect.ballot == 2
    assert len(effect.proposal.inputs) == 4


def test_who_has_confirmed_follows_a_quorum_of_a_later_attempt() -> None:
    federation, desk, offers = confirmed()
    later = [federation[index].vote(0, offers[1:], ballot=2) for index in (1, 2, 3)]
    desk.learn(*later)
    desk.hold(body_of(later[0]).result_digest, codec=Codec.MOMENTS)
    (effect,) = desk.advance()
    assert isinstance(effect, Adopt)
    assert (effect.ballot, len(effect.proposal.inputs)) == (3, 3)


def test_a_liar_who_runs_ahead_through_the_attempts_moves_nobody_faster() -> None:
    federation, desk, offers = split()
    desk.learn(federation[2].vote(0, offers[1:]), federation[3].vote(0, offers[2:], ballot=2**40))
    assert desk.advance() == ()
    (merge,) = desk.wait(100)
    assert isinstance(merge, Merge)
    assert merge.ballot == 2


def test_equal_votes_under_rosters_of_the_same_members_count_together() -> None:
    """A rotation in the middle of round zero: who has gone on could not vote again."""
    federation = Federation(4)
    federation.roster = replace(federation.roster, version=1, versions=(0, 1))
    book = RoundBook(federation.roster)
    federation.open_all()
    offers = [author.contribute(0) for author in federation.authors]
    for ballot in (0, 1):
        votes = [federation[index].vote(0, offers, ballot=ballot) for index in (0, 1, 2)]
        votes[2] = sign_record(replace(votes[2].value, roster=1), federation[2].signer)
        for record in votes:
            book.learn(record)
    assert book.agreed(0) is not None


def test_equal_votes_of_two_electorates_carry_nothing_and_are_cast_again() -> None:
    """A member is removed in the middle of round zero: two voted before it, one after."""
    federation = Federation(4)
    federation.roster = after_removal(federation.roster)
    desk = Desk(federation, has_moments=True)
    desk.start()
    offers = [author.contribute(0) for author in federation.authors]
    desk.learn(*offers)
    for offer in offers:
        desk.hold_payload(offer)
    desk.advance()
    desk.learn(federation[0].vote(0, offers), federation[1].vote(0, offers))
    later = federation[2].vote(0, offers[1:])
    desk.learn(sign_record(replace(later.value, roster=1), federation[2].signer))
    desk.advance()
    assert desk.phase is Phase.SETTLE
    (merge,) = desk.wait(100)
    assert isinstance(merge, Merge)
    assert merge.ballot == 2


def test_what_a_forked_log_voted_for_is_known_to_nobody_and_stands_by_the_others() -> None:
    federation, desk, offers = split()
    desk.learn(federation[3].vote(0, offers[2:]), federation[2].vote(0, offers[1:]))
    book = desk.book
    assert book.winner(0, 0) is None
    book.freeze(3, 0, 2)
    winner = book.winner(0, 0)
    assert winner is not None, "two of the three others are a quorum less the liar"
    assert len(winner.inputs) == 3
    assert 3 not in book.ballot(0, 0)
    for index in (1, 2):
        desk.learn(federation[index].vote(0, offers[1:], ballot=1))
    assert book.agreed(0) is not None


def test_who_holds_another_branch_confirms_what_it_cannot_compute() -> None:
    """Twins of one contribution: two members hold one, this desk holds the other."""
    federation = Federation(4)
    desk = Desk(federation, has_moments=True)
    desk.start()
    offers = [author.contribute(0) for author in federation.authors]
    twin = sign_record(replace(offers[3].value, time_ms=7), federation[3].signer)
    mine = [*offers[:3], twin]
    desk.learn(*mine)
    for offer in mine:
        desk.hold_payload(offer)
    desk.advance()
    desk.learn(federation[0].vote(0, mine))
    others = [federation[index].vote(0, offers) for index in (1, 2)]
    desk.learn(*others)
    desk.advance()
    desk.book.freeze(3, 0, 1)
    result = body_of(others[0]).result_digest
    assert Fetch(result, (1, 2)) in desk.advance()
    desk.hold(result, codec=Codec.MOMENTS)
    assert desk.advance() == (Adopt(0, proposal_of(others[0]), (), 1),)


def test_after_a_split_nobody_votes_for_what_lies_behind_a_fork() -> None:
    """Three branches shown to three members: only what all can name is worth a vote."""
    federation, desk, offers = voting()
    desk.learn(federation[0].vote(0, offers))
    for index in (1, 2):
        twin = sign_record(replace(offers[3].value, time_ms=index), federation[3].signer)
        desk.learn(federation[index].vote(0, [*offers[:3], twin]))
    desk.book.freeze(3, 0, 1)
    desk.advance()
    (merge,) = desk.wait(100)
    assert isinstance(merge, Merge)
    assert {offer.author for offer in merge.offers} == {0, 1, 2}


@pytest.mark.parametrize(
    ("heard", "expected"), [((1, 2), None), ((1,), Bound(None)), ((), Bound(None))]
)
def test_what_a_cut_took_away_binds_only_while_it_may_have_been_agreed(
    heard: tuple[int, ...], expected: Bound | None
) -> None:
    """This desk has confirmed what names a contribution of a liar, who is removed with it."""
    federation = Federation(4)
    federation.open_all()
    offers = [author.contribute(0) for author in federation.authors]
    votes = [federation[index].vote(0, offers) for index in (0, 1, 2)]
    votes += [federation[0].vote(0, offers, ballot=1)]
    votes += [federation[index].vote(0, offers[: index + 1], ballot=2) for index in heard]
    roster = without_contribution(federation, 3)
    book = RoundBook(roster)
    for record in (*offers[:3], *votes):
        book.learn(record)
    assert book.agreed(0) is None
    assert Attempts(book, own=0).bound() == expected


def test_what_is_carried_and_then_cut_is_left_for_the_next_attempt() -> None:
    """Two vote for what names a contribution of a liar, one without it; then it is removed with it."""
    federation = Federation(4)
    federation.open_all()
    offers = [author.contribute(0) for author in federation.authors]
    votes = [federation[0].vote(0, offers[:3])]
    votes += [federation[index].vote(0, offers) for index in (1, 2)]
    roster = without_contribution(federation, 3)
    book = RoundBook(roster)
    for record in (*offers[:3], *votes):
        book.learn(record)
    winner = book.winner(0, 0)
    assert winner is not None, "two of the three who are left"
    assert len(winner.inputs) == 4
    attempts = Attempts(book, own=0)
    assert attempts.to_confirm() is None
    assert attempts.next(0) == 1
    assert attempts.bound() is None


def without_contribution(federation: Federation, index: int) -> Roster:
    """Return the roster that removes a member and cuts its log after OPEN."""
    before = federation.roster
    ended = replace(
        before.terms[index][-1],
        until=1,
        cut=Cut(author=index, epoch=0, kept=1, head_id=federation[index].records[0].id),
    )
    terms = (*before.terms[:index], (ended,), *before.terms[index + 1 :])
    return replace(before, version=1, versions=(0, 1), terms=terms)


def test_confirmations_of_two_electorates_are_cast_again() -> None:
    """A hospital is added between the votes and the last confirmations."""
    federation = Federation(5)
    federation.open_all()
    offers = [author.contribute(0) for author in federation.authors[:4]]
    before = federation.roster
    joins = replace(before.terms[4][0], since=1)
    book = RoundBook(
        replace(before, version=1, versions=(0, 1), terms=(*before.terms[:4], (joins,)))
    )
    attempts = Attempts(book, own=0)
    for index, ballot, version in (
        (0, 0, 0),
        (1, 0, 0),
        (2, 0, 0),
        (2, 1, 0),
        (0, 1, 1),
        (1, 1, 1),
    ):
        vote = federation[index].vote(0, offers, ballot=ballot)
        book.learn(sign_record(replace(vote.value, roster=version), federation[index].signer))
    vote = federation[4].vote(0, offers, ballot=1)
    assert attempts.next(0) is None, "three of five are too few"
    book.learn(sign_record(replace(vote.value, roster=1), federation[4].signer))
    assert book.agreed(0) is None
    assert attempts.next(0) == 1


def test_what_those_who_are_left_may_have_agreed_binds_who_confirmed_it() -> None:
    """Two of three who are left are enough; this desk has heard of its own confirmation alone."""
    federation = Federation(4)
    federation.open_all()
    offers = [author.contribute(0) for author in federation.authors]
    votes = [federation[index].vote(0, offers) for index in (0, 1, 3)]
    votes += [federation[0].vote(0, offers, ballot=1), federation[2].vote(0, offers[:3], ballot=2)]
    book = RoundBook(without_contribution(federation, 3))
    for record in (*offers[:3], *votes):
        book.learn(record)
    assert Attempts(book, own=0).bound() == Bound(None), "member 1 may have confirmed it"
    book.learn(federation[1].vote(0, offers, ballot=1))
    assert book.agreed(0) is not None


def test_a_ballot_that_goes_backwards_in_a_log_counts_for_nothing() -> None:
    federation = Federation(4)
    federation.open_all()
    offers = [author.contribute(0) for author in federation.authors]
    book = RoundBook(federation.roster)
    for index, ballots in ((0, (0, 1)), (1, (0, 1)), (2, (2, 1))):
        for ballot in ballots:
            book.learn(federation[index].vote(0, offers, ballot=ballot))
    assert book.agreed(0) is None, "an auditor refuses the third confirmation"
    assert book.cast(2) == (2,)


def test_ballots_that_liars_alone_have_signed_are_not_looked_at() -> None:
    federation = Federation(4)
    federation.open_all()
    offers = [author.contribute(0) for author in federation.authors]
    book = RoundBook(federation.roster)
    for ballot in range(0, 60, 2):
        book.learn(federation[3].vote(0, offers, ballot=ballot))
    assert book.turnouts() == ()
    book.learn(federation[0].vote(0, offers))
    assert book.turnouts() == (0,)


def test_nobody_catches_up_without_the_moments() -> None:
    """A later round is agreed, and the votes of round zero are still to come."""
    federation, desk, offers = voting()
    zero = [
        federation[index].vote(0, offers, ballot=ballot) for index in (1, 2, 3) for ballot in (0, 1)
    ]
    later = [author.contribute(1) for author in federation.authors]
    desk.learn(*later, *(federation[index].vote(1, later) for index in (1, 2, 3)))
    desk.advance()
    assert desk.phase is Phase.CATCH_UP
    result = desk.book.agreed(1)
    assert result is not None
    desk.hold(result.proposal.result)
    assert desk.advance() == ()
    assert desk.phase is Phase.CATCH_UP
    desk.learn(*zero)
    (fetch,) = desk.advance()
    assert fetch == Fetch(body_of(zero[0]).result_digest, (1, 2, 3))
