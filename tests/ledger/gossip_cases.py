"""Averaging with neighbours, as an auditor finds it: cases of step 12. Five members on a ring."""

from collections.abc import Sequence
from dataclasses import replace

from ledger_cases import Case, bad, case, good
from ledger_factory import Federation

from ledger.record import Aggregation, Contribution, Kind, Verified
from ledger.record import Record as _Record
from ledger.weights import weights_micro

Record = Verified[_Record]
RING = '[aggregation]\naveraging = "gossip"\ntopology = "ring"\n'


BUFFERED = RING + "buffer = 1\n"


def ring(aggregation: str = RING) -> tuple[Federation, list[Record]]:
    """Everybody has offered in round 1."""
    federation = Federation(5, aggregation)
    federation.open_all()
    return federation, [offer(federation, author, 1) for author in range(5)]


def offer(federation: Federation, author: int, round_: int) -> Record:
    body = federation.contribution_body(author, round_)
    return federation.write(author, Kind.CONTRIBUTION, round_, body)


def merge(federation: Federation, author: int, round_: int, offers: Sequence[Record]) -> None:
    """Write the merge of these, weighed as the graph says (strangers as neighbours)."""
    body = federation.aggregation_body(offers, round_)
    topology = federation.charter.topology
    assert topology is not None
    mixing = dict(topology.mixing_micro(range(5), author, round_))
    bodies = [one.value.body for one in offers]
    weights = weights_micro(
        [one.samples for one in bodies if isinstance(one, Contribution)],
        federation.charter.aggregation,
        staleness_rounds=[round_ - one.value.round for one in offers],
        mixing_micro=[mixing.get(one.value.author, 333_333) for one in offers],
    )
    write(federation, author, round_, body, weights)


def write(
    federation: Federation, author: int, round_: int, body: Aggregation, weights: Sequence[int]
) -> None:
    inputs = [
        replace(one, weight_micro=weight) for one, weight in zip(body.inputs, weights, strict=True)
    ]
    federation.write(author, Kind.AGGREGATION, round_, replace(body, inputs=tuple(inputs)))


@case
def neighbours_average() -> Case:
    federation, offers = ring()
    merge(federation, 0, 1, [offers[0], offers[1], offers[4]])
    merge(federation, 1, 1, offers[:2])
    merge(federation, 3, 1, [offers[3]])
    return good(federation)


@case
def stale_model_of_a_neighbour_is_averaged_again() -> Case:
    federation, offers = ring()
    merge(federation, 0, 1, [offers[0], offers[1], offers[4]])
    for round_ in (2, 3):
        merge(federation, 0, round_, [offer(federation, 0, round_), offers[1]])
    return good(federation)


@case
def model_of_a_neighbour_that_is_too_stale() -> Case:
    federation, offers = ring()
    merge(federation, 0, 4, [offer(federation, 0, 4), offers[1]])
    return bad(federation, codes="12 E_AGG_INPUT")


@case
def stranger_to_the_graph_is_averaged() -> Case:
    federation, offers = ring()
    merge(federation, 0, 1, offers[:3])
    return bad(federation, codes="12 E_AGG_INPUT")


@case
def merge_without_the_own_contribution() -> Case:
    federation, offers = ring()
    merge(federation, 0, 1, [offers[1], offers[4]])
    return bad(federation, codes="12 E_AGG_INPUT")


@case
def merge_with_an_older_own_contribution() -> Case:
    federation, offers = ring()
    merge(federation, 0, 2, offers[:2])
    return bad(federation, codes="12 E_AGG_INPUT")


@case
def merge_that_is_right_for_another_member_only() -> Case:
    federation, offers = ring()
    merge(federation, 0, 1, [offers[0], offers[1], offers[4]])
    merge(federation, 1, 1, [offers[0], offers[1], offers[4]])
    return bad(federation, codes="12 E_AGG_INPUT")


@case
def neighbour_that_weighs_too_much() -> Case:
    federation, offers = ring()
    body = federation.aggregation_body(offers[:2], 1)
    write(federation, 0, 1, body, [100_000, 900_000])
    return bad(federation, codes="12 E_AGG_WEIGHT")


@case
def stale_neighbour_at_full_weight() -> Case:
    federation, offers = ring()
    own = offer(federation, 0, 2)
    body = federation.aggregation_body([own, offers[1]], 2, staleness=False)
    federation.write(0, Kind.AGGREGATION, 2, body)
    return bad(federation, codes="12 E_AGG_WEIGHT")


@case
def buffered_merge_of_an_own_contribution_as_old_as_it_is() -> Case:
    federation, offers = ring(BUFFERED)
    merge(federation, 0, 3, [offers[0], offer(federation, 1, 3)])
    merge(federation, 0, 4, [offer(federation, 0, 4), offer(federation, 4, 4)])
    return good(federation)


@case
def buffered_merge_of_a_model_that_was_merged_before() -> Case:
    federation, offers = ring(BUFFERED)
    merge(federation, 0, 1, [offers[0], offers[1]])
    merge(federation, 0, 2, [offer(federation, 0, 2), offers[1]])
    return bad(federation, codes="12 E_AGG_INPUT")


@case
def buffered_merge_that_makes_the_own_old_contribution_weigh_as_a_new_one() -> Case:
    federation, offers = ring(BUFFERED)
    inputs = [offers[0], offer(federation, 1, 3)]
    write(
        federation,
        0,
        3,
        federation.aggregation_body(inputs, 3, staleness=False),
        [500_000, 500_000],
    )
    return bad(federation, codes="12 E_AGG_WEIGHT")
