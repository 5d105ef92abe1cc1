"""What may be removed: old rounds, and never what a round, a late member or a newcomer will ask for."""

import pytest

from ledger.record import Kind, Metrics, Record, Verified
from swarm.protocol.book import RoundBook
from swarm.protocol.retention import MODELS_KEPT, Keep, needless, unnamed
from tests.federation import Federation, digest_of, input_of, result_of

ROUNDS = 6


def update_of(author: int, round_: int) -> bytes:
    return digest_of("update", author, round_)


def lived(rounds: int, *, agreed: frozenset[int] | None = None) -> tuple[RoundBook, list[bytes]]:
    """A book after so many rounds of four members; and the results of its rounds."""
    federation = Federation(4)
    book = RoundBook(federation.roster)
    results = []

    def learn(record: Verified[Record]) -> None:
        book.learn(record)

    for record in federation.open_all() or ():
        learn(record)
    for round_ in range(1, rounds + 1):
        offers = [author.contribute(round_) for author in federation.authors]
        results.append(result_of(round_, [input_of(offer) for offer in offers]))
        for offer in offers:
            learn(offer)
        voters = 4 if agreed is None or round_ in agreed else 2
        for author in federation.authors[:voters]:
            learn(author.vote(round_, offers))
        for author in federation.authors:
            body = Metrics(round=round_, model_digest=results[-1], values=())
            learn(author.write(Kind.METRICS, round_, body))
    return book, results


def everything(results: list[bytes]) -> set[bytes]:
    return {update_of(a, r) for a in range(4) for r in range(1, len(results) + 1)} | set(results)


@pytest.mark.parametrize("rounds", [0, 1, 2, 3])
def test_the_open_round_and_as_many_before_it_stay_with_the_newest_models(rounds: int) -> None:
    book, results = lived(ROUNDS)
    stored = everything(results)
    going = needless(book, Keep(rounds=rounds), stored, own=0, standing=ROUNDS)
    left = stored - going
    kept_rounds = range(ROUNDS - rounds, ROUNDS + 1)
    assert left >= {update_of(a, r) for a in range(4) for r in kept_rounds}
    assert left >= set(results[-MODELS_KEPT:])
    assert results[0] in left, "the first agreed result may be the moments"
    assert going >= {update_of(a, r) for a in range(4) for r in range(1, ROUNDS - rounds)}
    assert results[1] in going


def test_late_updates_stay_as_long_as_they_may_be_merged() -> None:
    book, results = lived(ROUNDS)
    keep = Keep(rounds=0, staleness_max=4)
    going = needless(book, keep, everything(results), own=0, standing=ROUNDS)
    assert update_of(2, ROUNDS - 4) not in going
    assert update_of(2, ROUNDS - 5) in going


def test_what_somebody_trained_from_stays_as_long_as_what_came_of_it() -> None:
    book, results = lived(ROUNDS)
    old = results[1]
    assert old in needless(book, Keep(rounds=1), {old}, own=0, standing=ROUNDS)
    federation = Federation(4)
    federation.open_all()
    book.learn(federation.authors[2].contribute(ROUNDS + 1, base=old))
    assert not needless(book, Keep(rounds=1), {old}, own=0, standing=ROUNDS)
    assert book.newest_round_of(old) == 2, "but it is no newer for that"


@pytest.mark.parametrize(("first", "step", "kept"), [(1_000, 1, 0), (ROUNDS + 1, 0, 1)])
def test_a_liar_keeps_no_payloads_by_naming_them(first: int, step: int, kept: int) -> None:
    """Neither in rounds far ahead nor many in one round, of which the first offer counts."""
    book, results = lived(ROUNDS)
    payloads = everything(results)
    honest = needless(book, Keep(rounds=1), payloads, own=0, standing=ROUNDS)
    liar = Federation(4)[2]
    liar.open()
    for number, digest in enumerate(sorted(payloads)):
        book.learn(liar.contribute(first + step * number, base=digest, digest=digest))
    left = needless(book, Keep(rounds=1), payloads, own=0, standing=ROUNDS)
    assert len(honest - left) <= kept


def test_an_auditors_site_keeps_all() -> None:
    book, results = lived(ROUNDS)
    assert not needless(book, Keep(rounds=None), everything(results), own=0, standing=ROUNDS)


def test_a_member_that_is_behind_keeps_what_its_own_round_needs() -> None:
    book, results = lived(ROUNDS)
    going = needless(book, Keep(rounds=0), everything(results), own=0, standing=2)
    assert going == {update_of(a, 1) for a in range(4)}


def test_in_a_partition_the_last_agreed_models_stay_however_old() -> None:
    book, results = lived(ROUNDS, agreed=frozenset({1, 2}))
    going = needless(book, Keep(rounds=1), everything(results), own=0, standing=ROUNDS)
    assert {results[0], results[1]} & going == set()
    assert results[2] in going
    assert results[ROUNDS - 1] not in going, "the model of the own newest METRICS"


def test_what_no_record_names_is_never_needless_only_unnamed() -> None:
    book, results = lived(ROUNDS)
    own = digest_of("stored, and its record not yet written")
    assert own not in needless(book, Keep(rounds=0), [own], own=0, standing=ROUNDS)
    assert unnamed(book, [own, results[0]]) == {own}
