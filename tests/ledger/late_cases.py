"""Late contributions and attempts at round zero, as an auditor finds them: cases of step 12."""

from dataclasses import replace

from ledger_cases import Case, bad, case, good
from ledger_factory import Federation

from ledger.record import Codec, Kind, Record, Rule, Verified

Offers = dict[int, Verified[Record]]


def late() -> tuple[Federation, Offers]:
    """Three members; 0 and 1 offer in round 3, member 2 once, in round 1."""
    federation = Federation(3)
    federation.open_all()
    rounds = {0: 3, 1: 3, 2: 1}
    offers = {
        author: federation.write(
            author, Kind.CONTRIBUTION, round_, federation.contribution_body(author, round_)
        )
        for author, round_ in rounds.items()
    }
    return federation, offers


@case
def a_late_contribution_weighs_less() -> Case:
    federation, offers = late()
    body = federation.aggregation_body(offers.values(), 3)
    assert [one.weight_micro for one in body.inputs] == [273_620, 410_430, 315_949]
    federation.write(0, Kind.AGGREGATION, 3, body)
    federation.write(1, Kind.AGGREGATION, 3, body)
    return good(federation)


@case
def late_contribution_at_full_weight() -> Case:
    federation, offers = late()
    body = federation.aggregation_body(offers.values(), 3, staleness=False)
    federation.write(0, Kind.AGGREGATION, 3, body)
    return bad(federation, codes="12 E_AGG_WEIGHT")


@case
def contribution_that_is_too_late() -> Case:
    federation, offers = late()
    federation.write(0, Kind.AGGREGATION, 4, federation.aggregation_body([offers[2]], 4))
    return bad(federation, codes="12 E_AGG_INPUT")


@case
def contribution_that_one_log_merges_twice() -> Case:
    federation, offers = late()
    federation.write(0, Kind.AGGREGATION, 3, federation.aggregation_body(offers.values(), 3))
    federation.write(0, Kind.AGGREGATION, 4, federation.aggregation_body([offers[1]], 4))
    return bad(federation, codes="12 E_AGG_INPUT")


@case
def older_contribution_after_a_newer_one() -> Case:
    federation, offers = late()
    newer = federation.write(2, Kind.CONTRIBUTION, 2, federation.contribution_body(2, 2))
    federation.write(0, Kind.AGGREGATION, 3, federation.aggregation_body([newer], 3))
    federation.write(0, Kind.AGGREGATION, 3, federation.aggregation_body([offers[2]], 3))
    return bad(federation, codes="12 E_AGG_INPUT")


def moments() -> tuple[Federation, list[Verified[Record]]]:
    federation = Federation(3)
    federation.open_all()
    offers = [
        federation.write(
            author,
            Kind.CONTRIBUTION,
            0,
            federation.contribution_body(author, 0, codec=Codec.MOMENTS),
        )
        for author in range(3)
    ]
    return federation, offers


def attempt(
    federation: Federation, offers: list[Verified[Record]], parameters: tuple[int, ...]
) -> None:
    body = federation.aggregation_body(offers, 0, rule=Rule.MOMENTS, parameters=parameters)
    body = replace(body, inputs=tuple(replace(one, weight_micro=0) for one in body.inputs))
    federation.write(0, Kind.AGGREGATION, 0, body)


@case
def round_zero_voted_on_again() -> Case:
    federation, offers = moments()
    attempt(federation, offers[:2], ())
    attempt(federation, offers, (1,))
    attempt(federation, offers, (4,))
    return good(federation)


@case
def two_votes_in_one_attempt() -> Case:
    federation, offers = moments()
    attempt(federation, offers[:2], (1,))
    attempt(federation, offers, (1,))
    return bad(federation, codes="12 E_AGG_INPUT")


@case
def attempt_that_is_no_number() -> Case:
    federation, offers = moments()
    attempt(federation, offers, (1, 2))
    return bad(federation, codes="12 E_AGG_INPUT")


import gossip_cases  # noqa: E402, F401 - registers those of averaging with neighbours
import rule_cases  # noqa: E402, F401 - registers those of rules and codecs
