"""Stopping: who holds the same records stops in the same round and releases the same model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

import pytest

from ledger.charter import StoppingPolicy
from ledger.record import Record, Verified
from swarm.protocol.book import RoundBook
from swarm.protocol.stopping import Stopping
from tests.federation import Federation, input_of, result_of

MEMBERS = 4
ROUNDS = 10


def history(
    losses: Sequence[float | Mapping[int, float]], *, samples: Sequence[int] = (10,) * MEMBERS
) -> list[Verified[Record]]:
    """Everybody contributes to every round, votes, and measures its model. losses: round by round."""
    federation = Federation(MEMBERS)
    authors = [federation[index] for index in range(MEMBERS)]
    written = [author.open() for author in authors]
    for number, loss in enumerate(losses, start=1):
        offers = [
            author.contribute(number, samples=count)
            for author, count in zip(authors, samples, strict=True)
        ]
        total = sum(samples)
        inputs = [
            replace(input_of(offer), weight_micro=count * 1_000_000 // total)
            for offer, count in zip(offers, samples, strict=True)
        ]
        votes = [author.vote(number, inputs) for author in authors]
        model = result_of(number, inputs)
        own = loss if isinstance(loss, Mapping) else dict.fromkeys(range(MEMBERS), loss)
        measured = [
            author.evaluate(number, model, loss_micro=round(own[author.index] * 1_000_000))
            for author in authors
        ]
        written += [*offers, *votes, *measured]
    return written


def stopping(
    records: Sequence[Verified[Record]], *, patience: int = 2, delta: float = 0.0
) -> Stopping:
    federation = Federation(MEMBERS)
    book = RoundBook(federation.roster)
    for record in records:
        book.learn(record)
    policy = StoppingPolicy(patience=patience, delta_min=delta)
    return Stopping(book, policy, rounds=ROUNDS)


def released(one: Stopping) -> int:
    agreed = one.released()
    assert agreed is not None
    return agreed.round


def test_two_rounds_without_a_better_loss_end_training_one_round_later() -> None:
    records = history([0.6, 0.5, 0.55, 0.56, 0.1])
    one = stopping(records)
    assert one.last_round() == 5  # round 4 is judged when round 5 is agreed
    assert released(one) == 2
    assert stopping(history([0.6, 0.5, 0.55, 0.56])).last_round() == ROUNDS


def test_without_patience_nothing_stops_and_the_newest_model_is_released() -> None:
    one = stopping(history([0.1, 0.5, 0.6, 0.7]), patience=0)
    assert (one.last_round(), released(one)) == (ROUNDS, 4)


def test_a_gain_below_the_charters_least_does_not_count() -> None:
    losses = [0.5, 0.4999, 0.4998, 0.4997]
    assert stopping(history(losses), delta=0.001).last_round() == 4
    assert stopping(history(losses)).last_round() == ROUNDS


def test_the_last_round_may_be_the_best() -> None:
    falling = [1.0 - number / 20 for number in range(ROUNDS)]
    one = stopping(history(falling))
    assert (one.last_round(), released(one)) == (ROUNDS, ROUNDS)


@pytest.mark.parametrize("seed", range(20))
def test_the_order_in_which_records_come_changes_nothing(seed: int) -> None:
    records = history([0.6, 0.5, 0.55, 0.45, 0.46, 0.47, 0.3])
    Random(seed).shuffle(records)
    federation = Federation(MEMBERS)
    book = RoundBook(federation.roster)
    one = Stopping(book, StoppingPolicy(patience=2, delta_min=0.0), rounds=ROUNDS)
    for record in records:
        book.learn(record)
        one.last_round()
    assert (one.last_round(), released(one)) == (7, 4)


def test_whoever_has_the_next_agreed_round_needs_no_metrics_that_come_later() -> None:
    """A round is judged by what its next one implies: METRICS that come later change nothing."""
    records = history([0.6, 0.5, 0.55, 0.56, 0.57])
    last = [r for r in records if r.value.round == 5 and not hasattr(r.value.body, "model_digest")]
    before = [r for r in records if r.value.round < 5]
    assert stopping([*before, *last]).last_round() == stopping(records).last_round() == 5


@pytest.mark.parametrize("lie", [0.0, 1e-6, 5.0, 1e9])
def test_one_liar_neither_ends_training_nor_keeps_it_going(lie: float) -> None:
    """Four members bear one liar: whatever it claims, rounds are judged as the honest three found them."""
    sinking = {n: 0.9 - n / 10 for n in range(1, 7)}
    honest = [dict.fromkeys(range(MEMBERS), loss) for loss in sinking.values()]
    claims = [{**losses, 3: lie if number % 2 else 0.5} for number, losses in enumerate(honest)]
    assert stopping(history(claims)).last_round() == ROUNDS
    rising = [dict.fromkeys(range(MEMBERS), 0.3 + number / 10) for number in range(6)]
    claims = [{**losses, 3: lie * (6 - number)} for number, losses in enumerate(rising)]
    one = stopping(history(claims))
    assert (one.last_round(), released(one)) == (4, 1)


def test_a_large_hospital_counts_for_more_as_in_the_model() -> None:
    """What two members gain and two lose counts as much as they do in the merge."""
    falling = [
        {0: 0.9 - n / 10, 1: 0.5 - n / 10, 2: 0.5 + n / 20, 3: 0.5 + n / 20} for n in range(6)
    ]
    assert stopping(history(falling, samples=(10, 10, 10, 10))).last_round() == ROUNDS
    assert stopping(history(falling, samples=(5, 5, 45, 45))).last_round() == 4
