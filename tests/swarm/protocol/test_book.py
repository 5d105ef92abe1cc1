"""The book is a fold: any order, the same book; and what a peer's records cannot make it say."""

import random
from dataclasses import replace

from ledger.record import Record, Verified, sign_record
from swarm.protocol.book import RoundBook
from tests.federation import Federation, digest_of, input_of, result_of


def book_of(federation: Federation, *records: Verified[Record]) -> RoundBook:
    book = RoundBook(federation.roster)
    for record in records:
        book.learn(record)
    return book


def offered(count: int = 4) -> tuple[Federation, list[Verified[Record]]]:
    federation = Federation(count)
    federation.open_all()
    return federation, [author.contribute(1) for author in federation.authors]


def test_a_quorum_of_equal_votes_agrees_and_one_less_does_not() -> None:
    federation, offers = offered()
    votes = [author.vote(1, offers) for author in federation.authors]
    assert book_of(federation, *votes[:2]).agreed(1) is None
    agreed = book_of(federation, *votes[:3]).agreed(1)
    assert agreed is not None
    assert agreed.voters == (0, 1, 2)
    assert agreed.proposal.result == result_of(1, [input_of(offer) for offer in offers])


def test_equal_inputs_with_another_result_or_weight_do_not_agree() -> None:
    federation, offers = offered()
    votes = [
        federation[0].vote(1, offers),
        federation[1].vote(1, offers),
        federation[2].vote(1, offers, result=digest_of("another")),
    ]
    assert book_of(federation, *votes).agreed(1) is None


def test_a_second_vote_of_one_author_counts_for_nothing() -> None:
    federation, offers = offered()
    first = federation[0].vote(1, offers[:2])
    votes = [first, federation[1].vote(1, offers), federation[2].vote(1, offers)]
    votes.append(federation[0].vote(1, offers))
    book = book_of(federation, *votes)
    assert book.agreed(1) is None
    assert len(book.votes(1)[0].inputs) == 2


def test_a_second_offer_of_one_author_replaces_nothing() -> None:
    federation, offers = offered()
    second = federation[0].contribute(1, digest=digest_of("better"))
    book = book_of(federation, *offers, second)
    assert book.offers(1)[0].id == offers[0].id


def test_logs_in_any_order_give_the_same_book() -> None:
    federation, offers = offered()
    for author in federation.authors:
        author.vote(1, offers)
    logs = [author.records for author in federation.authors]
    books = []
    for seed in range(10):
        order = random.Random(seed).sample(logs, len(logs))
        books.append(book_of(federation, *[record for log in order for record in log]))
    for book in books:
        assert book.agreed(1) == books[0].agreed(1)
        assert dict(book.offers(1)) == dict(books[0].offers(1))
        assert book.opened == {0, 1, 2, 3}


def test_a_payload_is_withheld_from_who_has_not_committed_to_one() -> None:
    federation = Federation(4)
    federation.open_all()
    offer = federation[0].contribute(1)
    book = book_of(federation, offer)
    assert not book.may_fetch(1, digest_of("update", 0, 1))
    book.learn(federation[1].contribute(1))
    assert book.may_fetch(1, digest_of("update", 0, 1))


def test_who_calls_a_payload_a_result_does_not_open_it() -> None:
    """One AGGREGATION record that names a victim's digest must not unlock it before the commitment."""
    federation, offers = offered()
    wanted = digest_of("update", 0, 1)
    book = book_of(federation, offers[0])
    book.learn(federation[3].vote(2, offers, result=wanted))
    assert not book.may_fetch(3, wanted)
    book.learn(federation[2].vote(2, offers, result=wanted))
    assert book.may_fetch(3, wanted), "more than f say so: at least one of them is honest"


def test_who_offers_anothers_payload_in_another_round_does_not_open_it() -> None:
    federation = Federation(4)
    federation.open_all()
    wanted = digest_of("update", 0, 1)
    book = book_of(federation, federation[0].contribute(1))
    book.learn(federation[3].contribute(2, digest=wanted))
    assert not book.may_fetch(3, wanted)


def test_a_copy_under_an_earlier_round_opens_nothing() -> None:
    """Two collude: one offers the victim's payload in a round to which the other has contributed."""
    federation = Federation(7)
    federation.open_all()
    wanted = digest_of("update", 0, 2)
    book = book_of(federation, *(federation[index].contribute(1) for index in (0, 1, 6)))
    book.learn(federation[0].contribute(2))
    book.learn(federation[1].contribute(2))
    book.learn(federation[5].contribute(1, digest=wanted))
    assert not book.may_fetch(6, wanted, server=0), "its author"
    assert not book.may_fetch(6, wanted, server=1), "who holds it for the round that it is of"
    book.learn(federation[6].contribute(2))
    assert book.may_fetch(6, wanted, server=0)
    assert book.may_fetch(6, wanted, server=1)


def test_a_copy_under_a_later_round_keeps_nothing_back() -> None:
    federation = Federation(4)
    federation.open_all()
    wanted = digest_of("update", 0, 1)
    book = book_of(federation, *(federation[index].contribute(1) for index in (0, 1, 2)))
    book.learn(federation[3].contribute(2, digest=wanted))
    assert book.may_fetch(2, wanted, server=1)
    book.learn(federation[1].contribute(2))
    assert book.may_fetch(2, wanted, server=0), "its author serves it however many copy it"


def test_an_agreed_model_is_for_every_member() -> None:
    federation, offers = offered()
    book = book_of(federation, *offers, *[author.vote(1, offers) for author in federation.authors])
    agreed = book.agreed(1)
    assert agreed is not None
    assert all(book.may_fetch(author, agreed.proposal.result) for author in range(4))


def test_silent_members_become_inactive_and_come_back_without_asking() -> None:
    federation = Federation(4)
    book = book_of(federation, *federation.open_all())
    for round_ in (1, 2, 3):
        for index in (0, 1, 2):
            book.learn(federation[index].contribute(round_))
    everyone = frozenset(range(4))
    assert book.active(3, inactive_after=3, first_round=1) == everyone
    for index in (0, 1, 2):
        book.learn(federation[index].contribute(4))
    assert book.active(4, inactive_after=3, first_round=1) == {0, 1, 2}
    book.learn(federation[3].contribute(4))
    assert book.active(4, inactive_after=3, first_round=1) == everyone
    book.learn(federation[2].close(9))
    assert book.active(4, inactive_after=3, first_round=1) == {0, 1, 3}


def test_one_liar_is_not_ahead_of_anybody() -> None:
    federation, offers = offered()
    book = book_of(federation, *offers, federation[3].contribute(2**31))
    assert book.round_ahead(0) == 1
    assert book.last_offer_round(3) == 2**31
    book.learn(federation[2].contribute(7))
    assert book.round_ahead(0) == 7


def test_a_log_is_known_to_have_reached_the_round_of_any_of_its_records() -> None:
    federation, offers = offered()
    book = book_of(federation, *offers)
    assert [book.reached(author) for author in range(4)] == [1, 1, 1, 1]
    book.learn(federation[0].reject(3, offers[1].id))
    assert book.reached(0) == 3


def test_in_round_zero_confirmations_agree_and_votes_do_not() -> None:
    federation = Federation(4)
    federation.open_all()
    inputs = [federation[index].contribute(0) for index in range(3)]
    book = RoundBook(federation.roster)
    for ballot in (0, 1):
        assert book.agreed(0) is None
        for index in range(3):
            book.learn(federation[index].vote(0, inputs, ballot=ballot))
        assert book.winner(0, ballot) is not None
    assert book.agreed(0) is not None


def test_a_round_agreed_beside_a_proven_liar_stays_agreed_whatever_the_roster_does_with_it() -> (
    None
):
    federation = Federation(4)
    federation.open_all()
    inputs = [federation[index].contribute(2) for index in range(3)]
    votes = [federation[index].vote(2, inputs) for index in (0, 1)]
    before = federation.roster
    (first,) = before.terms[3]
    ended, anew = replace(first, until=1), replace(first, ledger_key=bytes(32), since=1)
    rotated = replace(before, version=1, terms=(*before.terms[:3], (ended, anew)))
    removed = replace(before, version=1, terms=(*before.terms[:3], (ended,)))
    for roster in (before, rotated, removed):
        book = RoundBook(roster)
        for record in [*inputs, *votes]:
            book.learn(record)
        assert (book.agreed(2) is not None) is (roster is removed), "two of three are a quorum"
        book.freeze(3, 0, 1)
        assert book.agreed(2) is not None
    later = RoundBook(rotated)
    for record in [*inputs, *votes]:
        later.learn(
            sign_record(replace(record.value, roster=1), federation[record.value.author].signer)
        )
    later.freeze(3, 0, 1)
    assert later.agreed(2) is None, "with its next key it is no liar yet"


def test_in_round_zero_a_liar_stands_by_the_others_whatever_the_roster_does_with_it() -> None:
    """Also where they voted under the roster after its rotation, and it under the one before."""
    federation = Federation(4)
    federation.open_all()
    inputs = [federation[index].contribute(0) for index in range(3)]
    votes = [federation[index].vote(0, inputs, ballot=1) for index in (0, 1)]
    before = federation.roster
    (first,) = before.terms[3]
    ended, anew = replace(first, until=1), replace(first, ledger_key=bytes(32), since=1)
    both = {"version": 1, "versions": (0, 1)}
    rotated = replace(before, **both, terms=(*before.terms[:3], (ended, anew)))
    removed = replace(before, **both, terms=(*before.terms[:3], (ended,)))
    for roster in (before, rotated, removed):
        for version in (0, 1) if roster is rotated else (0,):
            book = RoundBook(roster)
            for record in votes:
                renamed = replace(record.value, roster=version)
                book.learn(sign_record(renamed, federation[record.value.author].signer))
            assert (book.agreed(0) is not None) is (roster is removed), "two of three left"
            book.freeze(3, 0, 1)
            assert book.agreed(0) is not None


def test_a_rotated_author_offers_anew_where_its_old_offer_lies_behind_the_fork() -> None:
    federation = Federation(4)
    federation.open_all()
    old, vote = federation[3].contribute(3), federation[3].vote(3, [])
    anew, later = (
        sign_record(replace(old.value, epoch=1, seq=seq), federation[3].signer) for seq in (1, 5)
    )
    for order in ([old, vote, anew, later], [anew, old, later, vote]):
        book = RoundBook(federation.roster)
        for record in order:
            book.learn(record)
        assert book.offers(3)[3].id == old.id
        book.freeze(3, 0, old.value.seq)
        assert book.offers(3)[3].id == anew.id
        book.learn(federation[0].vote(3, [old]))
        assert book.offers(3)[3].id == old.id, "who has voted for it merges it"


def test_behind_a_fork_q_less_the_proven_liars_agree_a_round_whatever_was_counted_before() -> None:
    federation = Federation(4)
    federation.open_all()
    inputs = [author.contribute(1) for author in federation.authors]
    equal = [federation[index].vote(1, inputs) for index in (0, 1)]
    other = federation[2].vote(1, inputs[:3])
    liars = federation[3].vote(1, inputs)
    for freeze_first in (True, False):
        before, after = book_of(federation, *inputs, liars), book_of(federation, *inputs)
        for book in (before, after):
            if freeze_first:
                book.freeze(3, 0, 1)
            for record in (equal[0], other):
                book.learn(record)
            if not freeze_first:
                book.freeze(3, 0, 1)
            assert book.agreed(1) is None
            book.learn(equal[1])
            agreed = book.agreed(1)
            assert agreed is not None
            assert agreed.proposal.inputs == tuple(input_of(one) for one in inputs)


def test_more_proven_liars_than_are_tolerated_agree_nothing() -> None:
    federation = Federation(4)
    federation.open_all()
    inputs = [author.contribute(1) for author in federation.authors]
    book = book_of(federation, *inputs, federation[0].vote(1, inputs))
    for author in (2, 3):
        book.freeze(author, 0, 1)
    assert book.agreed(1) is None


def test_a_round_stays_agreed_when_one_is_removed_whose_vote_was_among_the_quorum() -> None:
    federation = Federation(4)
    federation.open_all()
    inputs = [author.contribute(1) for author in federation.authors]
    equal = [federation[index].vote(1, inputs) for index in (0, 1)]
    gone = federation.roster.terms[3][-1]
    terms = (*federation.roster.terms[:3], (replace(gone, until=1),))
    after = replace(federation.roster, version=1, versions=(0, 1), terms=terms)
    for roster, expected in ((federation.roster, False), (after, True)):
        book = RoundBook(roster)
        for record in (*inputs, *equal):
            book.learn(record)
        assert (book.agreed(1) is not None) is expected
        assert book.is_agreed_result(equal[0].value.body.result_digest) is expected  # type: ignore[union-attr]
