"""A late update is never lost and never harmful: it joins the next aggregation, once, for less."""

import numpy as np
import pytest

from ledger.record import Reason, Rule
from ledger.weights import weights_micro
from swarm.protocol.effects import Fetch, Merge
from swarm.protocol.round import Phase
from tests.federation import Desk, Federation, digest_of
from tests.swarm.protocol.paper_swarm import PaperSwarm

SLOW = 3


def late_swarm(seed: int = 1, **policy: object) -> PaperSwarm:
    """Member 3 needs three rounds for one, until it is waited for."""
    swarm = PaperSwarm(4, seed=seed, rounds=20, **policy)
    swarm.run(8)
    swarm[SLOW].train_s = 12
    swarm.run(3_000)
    assert swarm.done(), swarm.course()
    return swarm


def test_a_late_update_joins_the_next_aggregation_with_its_discount() -> None:
    swarm = late_swarm()
    late = {r: inputs[SLOW] for r, inputs in swarm.agreed().items() if inputs.get(SLOW, r) < r}
    assert late, swarm.agreed()
    for round_, offered in late.items():
        agreed = swarm[0].machine.book.agreed(round_)
        assert agreed is not None
        by_author = {one.author: one.weight_micro for one in agreed.proposal.inputs}
        staleness = [round_ - offered if author == SLOW else 0 for author in by_author]
        policy = swarm.federation.charter.aggregation
        assert list(by_author.values()) == weights_micro(
            [10] * len(by_author), policy, staleness_rounds=staleness
        )
        assert by_author[SLOW] < by_author[0]


@pytest.mark.parametrize("seed", range(5))
def test_no_contribution_is_merged_twice_by_anybody_nor_by_two_agreed_results(seed: int) -> None:
    swarm = late_swarm(seed, staleness_max=5)
    for index in range(4):
        used = [
            (one.author, one.seq)
            for _, body in swarm.merges(index)
            if body.rule == Rule.MEAN
            for one in body.inputs
        ]
        assert len(used) == len(set(used)), swarm.course()
        book = swarm[index].machine.book
        agreed = [book.agreed(round_) for round_ in book.agreed_rounds()]
        ids = [one.id for result in agreed if result for one in result.proposal.inputs]
        assert len(ids) == len(set(ids)), swarm.course()


def test_what_is_not_merged_is_recorded_with_the_reason() -> None:
    swarm = late_swarm(staleness_max=0)
    offered = {r.value.round for r in swarm.federation[SLOW].records if r.value.kind == 2}
    merged = {inputs[SLOW] for inputs in swarm.agreed().values() if SLOW in inputs}
    assert offered - merged, "without staleness some must be lost"
    reasons = [one.reason for _, body in swarm.merges(0) for one in body.left_out]
    assert Reason.LATE in reasons


def test_the_older_of_two_contributions_is_superseded_on_the_record() -> None:
    federation = Federation(4, rounds=9)
    desk = collecting(federation)
    older = federation[3].contribute(1)
    newer = federation[3].contribute(2)
    desk.learn(older, newer)
    for record in (older, newer):
        desk.hold_payload(record)
    merge = merged(desk)
    assert {offer.author: offer.round for offer in merge.offers} == {0: 2, 1: 2, 2: 2, 3: 2}
    assert merge.left_out == ((3, Reason.SUPERSEDED),)


def collecting(federation: Federation) -> Desk:
    """Member 0 in round two; round one was agreed without member 3."""
    desk = Desk(federation)
    desk.start()
    first = [federation[index].contribute(1) for index in (0, 1, 2)]
    desk.learn(*first)
    for record in first:
        desk.hold_payload(record)
    for index in (0, 1, 2):
        desk.learn(federation[index].vote(1, first))
    agreed = desk.book.agreed(1)
    assert agreed is not None
    desk.hold(agreed.proposal.result)
    desk.wait(60)
    desk.learn(federation[0].evaluate(1, agreed.proposal.result))
    desk.advance()
    second = [federation[index].contribute(2, base=agreed.proposal.result) for index in (0, 1, 2)]
    desk.learn(*second)
    for record in second:
        desk.hold_payload(record)
    desk.advance()
    assert desk.phase is Phase.COLLECT
    return desk


def merged(desk: Desk) -> Merge:
    for _ in range(40):
        for effect in desk.wait(3):
            if isinstance(effect, Merge):
                return effect
    raise AssertionError(desk.phase)


def test_a_late_payload_is_fetched_and_merged_in_the_next_round() -> None:
    federation = Federation(4, rounds=9)
    desk = collecting(federation)
    late = federation[3].contribute(1)
    desk.learn(late)
    (fetch,) = desk.advance()
    assert isinstance(fetch, Fetch)
    assert fetch.offer is not None
    assert (fetch.offer.author, fetch.offer.round) == (3, 1)
    desk.hold_payload(late)
    merge = merged(desk)
    assert {offer.author: offer.round for offer in merge.offers} == {0: 2, 1: 2, 2: 2, 3: 1}


def test_a_proposal_that_merges_again_what_was_merged_is_not_followed() -> None:
    federation = Federation(4, rounds=9)
    desk = collecting(federation)
    offers = [desk.book.offers(2)[1], desk.book.offers(1)[0]]
    records = {record.id: record for author in federation.authors for record in author.records}
    desk.learn(federation[3].vote(2, [records[offer.id] for offer in offers]))
    assert {offer.round for offer in merged(desk).offers} == {2}


def test_late_ones_do_not_make_a_thin_round_thick() -> None:
    federation = Federation(4, rounds=9, members_min=4)
    desk = collecting(federation)
    late = federation[3].contribute(1)
    desk.learn(late)
    desk.hold_payload(late)
    desk.wait(1_000)
    assert desk.phase is Phase.COLLECT, "three of this round, and four are asked for"


# One payload, one weight


def test_one_payload_under_two_names_counts_once_and_never_for_less_than_the_original() -> None:
    for samples, winner in ((1, 2), (10**6, 3)):
        federation = Federation(4, rounds=9)
        desk = collecting(federation)
        copy = federation[3].contribute(2, digest=digest_of("update", 2, 2), samples=samples)
        desk.learn(copy)
        merge = merged(desk)
        digests = [offer.digest for offer in merge.offers]
        assert len(digests) == len(set(digests)) == 3
        assert {offer.author for offer in merge.offers} == {0, 1, winner}
        assert dict(merge.left_out)[5 - winner] == Reason.COPIED


def test_a_copy_of_what_was_merged_in_an_earlier_round_counts_for_nothing() -> None:
    federation = Federation(4, rounds=9)
    desk = collecting(federation)
    copy = federation[3].contribute(2, digest=digest_of("update", 1, 1))
    desk.learn(copy)
    merge = merged(desk)
    assert {offer.author for offer in merge.offers} == {0, 1, 2}
    assert merge.left_out == ((3, Reason.COPIED),)


def test_who_offers_what_he_has_not_got_is_given_nothing_for_it() -> None:
    federation = Federation(4)
    federation.open_all()
    desk = Desk(federation, 1)
    wanted = digest_of("update", 0, 1)
    desk.learn(federation[0].contribute(1), federation[3].contribute(1, digest=wanted))
    assert not desk.book.may_fetch(3, wanted)
    desk.learn(federation[2].contribute(2))
    assert desk.book.may_fetch(2, wanted), "a late payload is for those who are further already"


@pytest.mark.parametrize("has_moments", [False, True])
def test_hospitals_with_the_same_data_hold_up_no_round(has_moments: bool) -> None:  # noqa: FBT001
    """Somebody tries it out with one file for all: every payload of a round is the same."""
    swarm = PaperSwarm(4, rounds=4, has_moments=has_moments)
    for site in swarm.sites:
        site.same_data = True
    swarm.run(500)
    assert swarm.done(), swarm.course()
    assert swarm.now_s < 20, swarm.course()
    assert all(len(inputs) == 1 for inputs in swarm.agreed().values())


def test_training_that_changes_nothing_is_everybodys_and_nobodys_copy() -> None:
    swarm = PaperSwarm(4, rounds=4)
    for site in swarm.sites:
        site.learns = False
    swarm.run(500)
    assert swarm.done(), swarm.course()
    assert all(len(inputs) == 4 for inputs in swarm.agreed().values())


# Harmless, and worth it


def test_merging_late_updates_does_better_than_dropping_them() -> None:
    """Least squares with hospitals that differ: the slow one holds what the others lack.

    It always comes one round late. Dropped, its patients never count; at full weight or with a
    discount the model comes closer to what all data together say, and it does not shake.
    """
    random = np.random.default_rng(7)
    truths = [np.array([1.0, 0.0]), np.array([1.0, 0.0]), np.array([0.0, 3.0])]
    data = [(x := random.normal(size=(60, 2)), x @ truth) for truth in truths]
    rows = np.concatenate([x for x, _ in data]), np.concatenate([y for _, y in data])
    pooled, *_ = np.linalg.lstsq(*rows, rcond=None)

    def trained(model: np.ndarray, site: int) -> np.ndarray:
        x, y = data[site]
        for _ in range(5):
            model = model - 0.1 * 2 * x.T @ (x @ model - y) / len(y)
        return model

    class Policy:
        weighting, share_cap_micro, staleness_halves = "samples", 10**6, 1

    def error(*, late: bool) -> float:
        model, waiting = np.zeros(2), None
        errors = []
        for _ in range(40):
            updates = [trained(model, 0), trained(model, 1)]
            staleness = [0, 0]
            if late and waiting is not None:
                updates.append(waiting)
                staleness.append(1)
            waiting = trained(model, 2)
            weights = weights_micro([60] * len(updates), Policy(), staleness_rounds=staleness)
            model = np.average(updates, axis=0, weights=weights)
            errors.append(float(np.linalg.norm(model - pooled)))
        assert np.ptp(errors[-10:]) < 1e-3, "a late update must not make the model swing"
        return errors[-1]

    dropped, merged_late = error(late=False), error(late=True)
    assert merged_late < 0.6 * dropped, (merged_late, dropped)
