"""Every number comes with the records behind it, in words and as JSON."""

import json

from ledger_factory import digest_of
from reputation_records import Evaluated, opened
from test_reputation_replay import eventful

from ledger.ranking import MICRO
from ledger.reputation import replay
from ledger.reputation_report import as_json, as_lines

NAMES = {index: f"Hospital {index}" for index in range(5)}


def lines_of(federation: Evaluated, member: int | None = None) -> list[str]:
    return list(as_lines(replay(federation.records(), federation.roster), NAMES, member=member))


def test_json_holds_every_integer_and_every_record() -> None:
    federation = eventful()
    reputation = replay(federation.records(), federation.roster)
    shown = json.loads(json.dumps(as_json(reputation)))
    assert shown["digest"] == reputation.state.digest().hex()
    assert {one["member"]: one["reputation_micro"] for one in shown["members"]} == (
        reputation.state.values_micro()
    )
    ids = {one.id.hex() for one in federation.records()}
    for outcome, row in zip(reputation.rounds, shown["rounds"], strict=True):
        assert row["round"] == outcome.round
        assert {one["commit"] for one in row["evaluators"]} <= ids
        for line, member in zip(outcome.members, row["members"], strict=True):
            assert member["after_micro"] == line.after_micro
            assert {vote["reveal"] for vote in member["votes"]} <= ids
            assert {id_ for one in member["penalties"] for id_ in one["records"]} <= ids
    absent = opened(4)
    absent.commit(0, 1, ())
    absent.contribute(0, 2)
    assert as_json(replay(absent.records(), absent.roster))["rounds"][0]["members"][1][
        "contribution"
    ] is None  # fmt: skip


def test_the_standings_name_every_member() -> None:
    lines = lines_of(eventful())
    assert lines[0] == "reputation after round 4, in millionths"
    assert [line.split(maxsplit=2)[2] for line in lines[1:]] == list(NAMES.values())


def test_a_members_page_says_why_each_round_went_as_it_did() -> None:
    federation = opened(5)
    base = digest_of("base")
    offered = federation.play_evaluated(1, a0={"update_digest": base, "base_digest": base})
    federation.contribute(0, 2)
    lines = lines_of(federation, 0)
    assert lines[1] == "round 1: 500,000 → 368,750 (score 0, step -31,250)"
    assert sum("evaluator" in line for line in lines) == 4
    shown = offered[0].id.hex()[:16]
    assert f"    −100,000: sent back the model that it was given: {shown}" in lines
    assert lines[-1] == "round 2: 368,750 → 368,750 (0 votes of the 3 needed, so no score)"
    assert lines_of(federation, 1)[-1].endswith("(no contribution, so no score)")
    assert MICRO == 1_000_000
