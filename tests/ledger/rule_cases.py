"""Rules and codecs of the charter, as an auditor finds them: cases of step 12. Five members."""

from typing import Any

from ledger_cases import Case, bad, case, good, small
from ledger_factory import Federation

from ledger.record import Codec, Kind, Record, Rule, Verified

ROBUST = (
    '[aggregation]\nrule = "trimmed_mean"\nneighbour_mixing = true\nliars_share = 0.4\n'
    'codec = "top_k_int8"\n'
)


def robust() -> tuple[Federation, list[Verified[Record]]]:
    """Everybody has offered in round 1, as the charter's codec writes it."""
    federation = Federation(5, ROBUST)
    federation.open_all()
    return federation, [offer(federation, author, 1) for author in range(5)]


def offer(
    federation: Federation, author: int, round_: int, codec: Codec = Codec.TOP_K_INT8
) -> Verified[Record]:
    body = federation.contribution_body(author, round_, codec=codec, bytes_count=154)
    return federation.write(author, Kind.CONTRIBUTION, round_, body)


def merge(
    federation: Federation, offers: list[Verified[Record]], round_: int = 1, **changes: Any
) -> None:
    changes = {"rule": Rule.TRIMMED_MEAN, "parameters": (2, 1)} | changes
    body = federation.aggregation_body(offers, round_, **changes)
    federation.write(0, Kind.AGGREGATION, round_, body)


@case
def the_charters_rule_and_codec() -> Case:
    federation, offers = robust()
    merge(federation, offers)
    merge(federation, [offer(federation, author, 2) for author in (1, 3)], 2, parameters=(0, 1))
    return good(federation)


@case
def the_mean_where_the_charter_says_trimmed_mean() -> Case:
    federation, offers = robust()
    merge(federation, offers, rule=Rule.MEAN, parameters=())
    return bad(federation, codes="12 E_AGG_RULE")


@case
def another_robust_rule_than_the_charters() -> Case:
    federation, offers = robust()
    merge(federation, offers, rule=Rule.KRUM)
    return bad(federation, codes="12 E_AGG_RULE")


@case
def a_robust_rule_where_the_charter_says_mean() -> Case:
    federation = small()
    offered = [federation.logs[0][1], federation.logs[1][1]]
    merge(federation, offered, rule=Rule.MEDIAN, parameters=(0, 0))
    return bad(federation, codes="12 E_AGG_RULE")


@case
def a_rule_that_withstands_fewer_liars() -> Case:
    federation, offers = robust()
    merge(federation, offers, parameters=(1, 1))
    return bad(federation, codes="12 E_AGG_RULE")


@case
def a_rule_without_the_charters_mixing() -> Case:
    federation, offers = robust()
    merge(federation, offers, parameters=(2, 0))
    return bad(federation, codes="12 E_AGG_RULE")


@case
def a_mean_with_parameters() -> Case:
    federation = small()
    offered = [federation.logs[0][1], federation.logs[1][1]]
    merge(federation, offered, rule=Rule.MEAN, parameters=(1,))
    return bad(federation, codes="12 E_AGG_RULE")


@case
def an_input_in_another_codec_than_the_charters() -> Case:
    federation, offers = robust()
    again = offer(federation, 4, 1, Codec.FLOAT32)
    merge(federation, [*offers[:4], again])
    return bad(federation, codes="12 E_AGG_INPUT")


@case
def only_late_inputs_where_the_merge_starts_from_the_rounds_base() -> Case:
    federation, offers = robust()
    merge(federation, offers, 2)
    return bad(federation, codes="12 E_AGG_INPUT")
