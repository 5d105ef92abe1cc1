"""The verdict on a fault case, asked of real ledgers, real audits and the lines that a node writes."""

import json
import os
import shutil
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Final

import pytest
from typer.testing import CliRunner

from ledger.charter import Charter
from ledger.record import Aggregation, Record, Verified
from ledger.store import Store
from node.telemetry import get_log, logging_to
from scenarios.audit import audit
from scenarios.cli import app
from scenarios.faults.attacks import Order, attack_failures, attack_from
from scenarios.faults.evidence import Evidence, Ledger, read_ledger
from scenarios.faults.limits import Limits
from scenarios.faults.logs import Line, LogTail, closed_between, closed_rounds, now_s, parse
from scenarios.faults.verdict import CaseResult, Story, judge, lost_rounds, timed_rounds
from swarm.protocol.book import RoundBook
from swarm.protocol.patience import ROUNDS_REMEMBERED, Patience
from tests.scenarios.finished import MEMBERS, ROUNDS, Hospitals, finish, played

DEADLINE_S: Final = 25.0
GRACE_S: Final = 2.0
ROUND_S: Final = 2.0
NAMES: Final = ("hospital-a", "hospital-b", "hospital-c", "hospital-d")
Longer = dict[int, tuple[float, float]]
"""round → seconds more in COLLECT, seconds more in SETTLE"""


class Log:
    """What one node writes: every round takes two seconds, of which COLLECT ends after one."""

    def __init__(self, at_s: float = 0.0) -> None:
        self.at_s = at_s
        self.lines: list[Line] = []

    def say(self, event: str, after_s: float = 0.0, **fields: object) -> None:
        self.at_s += after_s
        time = datetime.fromtimestamp(self.at_s, UTC).isoformat(timespec="milliseconds")
        text = json.dumps({**fields, "event": event, "level": "info", "time": time})
        line = parse(text.encode())
        assert line is not None
        self.lines.append(line)

    def play(
        self, rounds: Iterable[int], *, longer: Longer | None = None, agreed: bool = True
    ) -> "Log":
        for round_ in rounds:
            collect_s, settle_s = (longer or {}).get(round_, (0.0, 0.0))
            self.say("phase", round=round_, phase="train")
            self.say("trained", 0.5, round=round_, steps=250, loss=0.1, seconds=0.5)
            self.say("phase", round=round_, phase="collect")
            self.say("phase", 0.5 + collect_s, round=round_, phase="agree")
            self.say("phase", 0.2, round=round_, phase="settle")
            self.say("phase", 0.3 + settle_s, round=round_, phase="evaluate")
            self.say("round_closed", 0.5, round=round_, agreed=agreed, merged=MEMBERS, auc=0.9)
        return self

    def end(self) -> list[Line]:
        self.say("phase", round=ROUNDS, phase="linger")
        self.say("phase", 1.0, round=ROUNDS, phase="done")
        return self.lines


def whole_log(**how: object) -> list[Line]:
    return Log().play(range(1, ROUNDS + 1), **how).end()  # type: ignore[arg-type]


def short(charter: Charter, *, averaging: str = "full") -> Charter:
    """The charter with the deadlines of the fault cases."""
    return replace(
        charter,
        rounds=replace(charter.rounds, deadline_max_s=DEADLINE_S, grace_s=GRACE_S),
        aggregation=replace(charter.aggregation, averaging=averaging),
    )


def ledger_of(
    directory: Path, records: Sequence[Verified[Record]], charter: Charter, member: int
) -> Ledger:
    path = directory / f"{member}-{len(records)}-{charter.aggregation.averaging}.db"
    with Store.open(path) as store:
        store.append(records)
    return read_ledger(path, charter, member)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """Four hospitals, ten rounds, nothing happened."""
    hospitals, directory = played(), tmp_path_factory.mktemp("calm")
    charter = short(hospitals.charter)
    return Evidence(
        charter=charter,
        names=NAMES,
        ledgers=[ledger_of(directory, hospitals.records, charter, at) for at in range(MEMBERS)],
        logs=[whole_log() for _ in range(MEMBERS)],
        audit="VERIFIED",
    )


@pytest.fixture(scope="module")
def gossip(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """The same among neighbours: each ends with a model of its own."""
    hospitals, directory = Hospitals(), tmp_path_factory.mktemp("gossip")
    for round_ in range(1, ROUNDS + 1):
        hospitals.play(round_, results=MEMBERS)
    charter = short(hospitals.charter, averaging="gossip")
    read = [ledger_of(directory, hospitals.records, charter, at) for at in range(MEMBERS)]
    return Evidence(
        charter=charter,
        names=NAMES,
        ledgers=[replace(one, model=one.published[at, ROUNDS]) for at, one in enumerate(read)],
        logs=[whole_log(agreed=False) for _ in range(MEMBERS)],
        audit="VERIFIED",
    )


def verdict(evidence: Evidence, story: Story | None = None) -> CaseResult:
    return judge("case", evidence, story or Story())


def with_log(evidence: Evidence, member: int, lines: list[Line]) -> Evidence:
    logs = [lines if at == member else log for at, log in enumerate(evidence.logs)]
    return replace(evidence, logs=logs)


def with_ledger(evidence: Evidence, member: int, **changes: object) -> Evidence:
    ledgers = [
        replace(ledger, **changes) if at == member else ledger  # type: ignore[arg-type]
        for at, ledger in enumerate(evidence.ledgers)
    ]
    return replace(evidence, ledgers=ledgers)


# Every round is agreed


def test_a_case_in_which_nothing_happened_has_no_failures(calm: Evidence) -> None:
    result = verdict(calm)
    assert result.failures == ()
    assert (result.rounds_agreed, result.rounds_lost, result.rounds_over_deadline) == (ROUNDS, 0, 0)
    assert result.rounds_judged == MEMBERS * ROUNDS
    assert (result.round_s_median, result.round_s_max, result.collect_s_max) == (2.0, 2.0, 1.0)
    assert len(result.digests) == 1
    assert result.recovered_s is None
    said = result.to_json()
    assert {"name", "rounds_lost", "rounds_over_deadline", "recovered_s", "digests"} <= said.keys()
    json.dumps(said)


def test_a_completed_round_that_one_ledger_lacks_is_lost(calm: Evidence, tmp_path: Path) -> None:
    """Its disk gave back less than it took: the votes of the last round are gone."""
    records = played().records
    first_vote = next(
        at
        for at, one in enumerate(records)
        if isinstance(one.value.body, Aggregation) and one.value.round == ROUNDS
    )
    torn = ledger_of(tmp_path, records[:first_vote], calm.charter, 2)
    ledgers = [torn if at == 2 else one for at, one in enumerate(calm.ledgers)]
    result = verdict(replace(calm, ledgers=ledgers))
    assert result.rounds_lost == MEMBERS  # each of the four had closed it
    assert f"{MEMBERS} completed rounds lost" in result.failures
    assert "the last round is not agreed" in result.failures
    assert result.rounds_agreed == ROUNDS - 1


def test_a_completed_round_with_another_result_is_lost(calm: Evidence) -> None:
    agreed = {**calm.ledgers[1].agreed, 4: "00" * 32}
    result = verdict(with_ledger(calm, 1, agreed=agreed))
    assert result.rounds_lost == MEMBERS
    assert result.failures == (f"{MEMBERS} completed rounds lost",)


def test_a_provisional_round_was_never_completed_so_it_is_not_lost(tmp_path: Path) -> None:
    hospitals = played(rounds=4)
    hospitals.play(5, results=2)  # two and two: no quorum
    for round_ in range(6, ROUNDS + 1):
        hospitals.play(round_)
    charter = short(hospitals.charter)
    log = Log().play(range(1, 5)).play([5], agreed=False).play(range(6, ROUNDS + 1)).end()
    evidence = Evidence(
        charter=charter,
        names=NAMES,
        ledgers=[ledger_of(tmp_path, hospitals.records, charter, at) for at in range(MEMBERS)],
        logs=[log] * MEMBERS,
        audit="VERIFIED",
    )
    assert lost_rounds(evidence) == 0
    result = verdict(evidence)
    assert result.failures == ()
    assert result.rounds_agreed == ROUNDS - 1


def test_members_that_end_with_different_models_fail(calm: Evidence) -> None:
    result = verdict(with_ledger(calm, 3, model="ff" * 32))
    assert len(result.digests) == 2
    assert result.failures == ("2 different results",)


def test_a_bundle_that_does_not_verify_fails(calm: Evidence, tmp_path: Path) -> None:
    run = finish(tmp_path, played())
    spoilt = shutil.copytree(run.bundles[1], tmp_path / "bundle")
    log = spoilt / "logs" / "0000-0000.log"
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(data)
    report = audit(
        [run.bundles[0], spoilt],
        charter=tmp_path / "charter.toml",
        charter_digest=run.charter.digest_hex,
    )
    result = verdict(replace(calm, audit=report.verdict))
    assert result.verdict == "REFUTED"
    assert result.failures == ("the audit says REFUTED",)


def test_what_the_case_itself_found_wrong_fails(calm: Evidence) -> None:
    story = Story(figures={"knock": {"rounds_meanwhile": 0}}, failures=["knock: no round"])
    result = verdict(calm, story)
    assert result.failures == ("knock: no round",)
    assert result.figures == story.figures


# How long rounds take


@pytest.mark.parametrize("member", range(MEMBERS))
def test_a_round_that_collects_past_the_deadline_fails_whoever_was_in_it(
    calm: Evidence, member: int
) -> None:
    lines = whole_log(longer={7: (DEADLINE_S + 0.5, 0.0)})
    result = verdict(with_log(calm, member, lines))
    assert result.rounds_over_deadline == 1
    assert result.collect_s_max == DEADLINE_S + 1.5
    where = f"round 7 of {NAMES[member]}"
    how_long = "collected for 26.5 s of 25 s, in all 27.5 s of 47 s"
    assert result.failures == (f"rounds over the deadline: 1, as {where}: {how_long}",)


def test_waiting_for_the_whole_deadline_is_not_too_long(calm: Evidence) -> None:
    lines = whole_log(longer={7: (DEADLINE_S - 1.0, 0.0)})
    result = verdict(with_log(calm, 1, lines))
    assert result.failures == ()
    assert result.collect_s_max == DEADLINE_S


def test_a_round_that_takes_longer_than_all_its_parts_may_fails(calm: Evidence) -> None:
    result = verdict(with_log(calm, 0, whole_log(longer={3: (0.0, 45.5)})))
    assert result.rounds_over_deadline == 1
    assert "round 3 of hospital-a: collected for 1.0 s of 25 s, in all 47.5 s" in result.failures[0]


def test_the_last_round_may_wait_for_its_quorum_as_long_as_for_a_contribution(
    calm: Evidence,
) -> None:
    assert verdict(with_log(calm, 0, whole_log(longer={ROUNDS: (0.0, 60.0)}))).failures == ()
    late = verdict(with_log(calm, 0, whole_log(longer={ROUNDS: (0.0, 65.0)})))
    assert late.rounds_over_deadline == 1


def test_after_a_round_without_agreement_patience_is_doubled_and_no_more(calm: Evidence) -> None:
    def with_provisional_fifth(settle_s: float) -> Evidence:
        log = Log().play(range(1, 5)).play([5], agreed=False)
        log.play(range(6, ROUNDS + 1), longer={6: (0.0, settle_s)})
        return with_log(calm, 0, log.end())

    # Round 5 was agreed later, so that it is in the ledger now.
    assert verdict(with_provisional_fifth(56.0)).failures == ()  # 25 + 12 + 12 + 10 = 59
    assert verdict(with_provisional_fifth(58.0)).rounds_over_deadline == 1


def test_rounds_in_which_a_member_was_away_are_not_held_against_it(calm: Evidence) -> None:
    """Stopped for half a minute in round 4; the fifth counts again."""
    paused = with_log(calm, 3, whole_log(longer={4: (31.0, 0.0), 5: (31.0, 0.0)}))
    story = Story()
    story.was_away(3, 7.0, 37.0)
    result = verdict(paused, story)
    assert result.rounds_over_deadline == 1
    assert "round 5 of hospital-d" in result.failures[0]
    assert result.rounds_judged == MEMBERS * ROUNDS - 1
    other = Story()
    other.was_away(2, 7.0, 37.0)
    assert verdict(paused, other).rounds_over_deadline == 2


def test_a_killed_members_other_rounds_are_held_against_it(calm: Evidence) -> None:
    log = Log().play(range(1, 4))
    log.say("phase", round=4, phase="train")
    log.say("started", 60.0, round=4)
    log.play(range(4, ROUNDS + 1), longer={9: (40.0, 0.0)})
    killed = with_log(calm, 3, log.end())
    timed = [one for one in timed_rounds(killed, []) if one.member == 3]
    assert [one.time.round for one in timed if one.is_late] == [9]
    assert len(timed) == ROUNDS


def test_limits_are_those_of_the_protocol(calm: Evidence) -> None:
    policy, limits = calm.charter.rounds, Limits.of(calm.charter)
    patience = Patience(RoundBook(Hospitals().roster), policy)
    for unagreed in range(ROUNDS_REMEMBERED + 1):
        assert patience.vote_s(unagreed + 1) == limits.vote_s(unagreed)
        for is_last in (False, True):
            quorum_s = patience.quorum_s(unagreed + 1, is_last=is_last)
            whole_s = DEADLINE_S + limits.vote_s(unagreed) + quorum_s + 10.0
            assert limits.round_s(unagreed, is_last=is_last) == whole_s


def test_the_json_says_what_the_limit_is_made_of(calm: Evidence) -> None:
    assert verdict(calm).limits == {
        "deadline_max_s": 25.0,
        "log_s": 1.0,
        "collect_s": 26.0,
        "proposal_s": 6.0,
        "quorum_s": 6.0,
        "computing_s": 10.0,
        "round_s": 47.0,
        "last_round_s": 66.0,
        "unagreed_round_s": 85.0,
    }


# Who was hurt, and who takes part in every round


def test_a_hurt_member_that_was_merged_again_has_recovered(calm: Evidence) -> None:
    story = Story(hurt={3: 9.0}, recovered_s=[2.125, 4.5])
    result = verdict(calm, story)
    assert result.failures == ()
    assert result.recovered_s == 4.5


def test_a_hurt_member_whose_updates_nobody_merged_afterwards_fails(calm: Evidence) -> None:
    merged = {
        round_: authors - {3} if round_ > 5 else authors
        for round_, authors in calm.ledgers[3].merged.items()
    }
    result = verdict(with_ledger(calm, 3, merged=merged), Story(hurt={3: 9.0}, recovered_s=[1.0]))
    assert result.failures == ("hospital-d was not merged again",)


def test_a_hurt_member_that_never_trained_again_fails(calm: Evidence) -> None:
    lines = Log().play(range(1, 6)).lines
    result = verdict(with_log(calm, 3, lines), Story(hurt={3: 100.0}))
    assert "hospital-d was not merged again" in result.failures


def test_who_should_take_part_in_every_round_was_merged_in_nearly_all(tmp_path: Path) -> None:
    hospitals = Hospitals()
    for round_ in range(1, ROUNDS + 1):
        hospitals.play(round_, absent=3 if round_ in {4, 8} else None)
    charter = short(hospitals.charter)
    evidence = Evidence(
        charter=charter,
        names=NAMES,
        ledgers=[ledger_of(tmp_path, hospitals.records, charter, at) for at in range(MEMBERS)],
        logs=[whole_log() for _ in range(MEMBERS)],
        audit="VERIFIED",
    )
    assert verdict(evidence, Story(always={2})).failures == ()
    failures = verdict(evidence, Story(always={3})).failures
    assert failures == (f"hospital-d was merged in only {ROUNDS - 2} of {ROUNDS} rounds",)


def test_who_should_take_part_in_every_round_completed_all(calm: Evidence) -> None:
    lines = Log().play([1, 2, 3, 5, 6, 7, 8, 9, 10]).end()
    failures = verdict(with_log(calm, 3, lines), Story(always={3})).failures
    assert failures == ("hospital-d did not complete round 4",)


def test_who_never_contributed_took_part_in_no_round(calm: Evidence) -> None:
    silent = with_ledger(calm, 3, offered={})
    failures = verdict(silent, Story(always={3})).failures
    assert failures == ("hospital-d contributed to no round",)


# Among neighbours


def test_among_neighbours_no_round_is_agreed_and_every_model_is_its_own(gossip: Evidence) -> None:
    result = verdict(gossip, Story(hurt={3: 9.0}, always={2}))
    assert result.failures == ()
    assert (result.averaging, result.rounds_agreed) == ("gossip", 0)
    assert len(result.digests) == MEMBERS
    assert result.limits["round_s"] == DEADLINE_S + 10.0  # nobody waits for votes


def test_a_members_own_merge_that_another_ledger_lacks_is_lost(gossip: Evidence) -> None:
    published = dict(gossip.ledgers[0].published)
    del published[2, 6]
    result = verdict(with_ledger(gossip, 0, published=published))
    assert result.failures == ("1 completed rounds lost",)


def test_neighbours_who_end_with_one_model_did_not_average_as_neighbours(gossip: Evidence) -> None:
    result = verdict(with_ledger(gossip, 0, model=gossip.ledgers[1].model))
    assert result.failures == ("4 members ended with only 3 models of their own",)


def test_a_hurt_neighbour_may_skip_rounds_but_not_the_last(gossip: Evidence) -> None:
    skipped = with_log(gossip, 3, Log().play([1, 2, 3, 8, 9, 10], agreed=False).end())
    assert verdict(skipped, Story(hurt={3: 6.0})).failures == ()
    assert verdict(skipped).failures == ("hospital-d did not complete round 4 and 3 others",)
    stopped = with_log(gossip, 3, Log().play(range(1, 10), agreed=False).lines)
    assert verdict(stopped, Story(hurt={3: 6.0})).failures == (
        "hospital-d did not complete round 10",
    )


def test_a_neighbour_whose_updates_nobody_uses_is_not_back(gossip: Evidence) -> None:
    used = {**gossip.ledgers[3].used, 3: frozenset({1, 2, 3})}
    result = verdict(with_ledger(gossip, 3, used=used), Story(hurt={3: 9.0}))
    assert result.failures == ("hospital-d was not merged again",)


def test_an_unknown_averaging_is_wrong_usage_in_one_line() -> None:
    done = CliRunner().invoke(app, ["faults", "--case", "kill", "--averaging", "ring"])
    assert done.exit_code == 2
    assert 'averaging: "ring" is none of full, gossip' in done.output


# Attacks


def test_an_attack_under_which_no_round_is_completed_fails() -> None:
    lines = whole_log(
        longer={5: (9.0, 0.0)}
    )  # closed 2, 4, 6, 8, 19, 21, … seconds after the start
    assert closed_between(lines, 8.5, 18.5) == 0
    assert closed_between(lines, 8.5, 21.5) == 2
    assert attack_failures("knock", growth_mb=0.5, rounds=0) == [
        "knock: no round was completed while it lasted"
    ]
    assert attack_failures("knock", growth_mb=0.5, rounds=1) == []


def test_an_attacker_says_when_it_began_and_ended() -> None:
    with socket.create_server(("127.0.0.1", 0)) as port:
        order = Order(host="127.0.0.1", port=port.getsockname()[1], network_key="")

        def hang_up() -> None:
            with suppress(OSError):  # until the port is closed
                while True:
                    port.accept()[0].close()

        Thread(target=hang_up, daemon=True).start()
        from_s = now_s()
        outcome = attack_from((), "random_bytes", order, victim=os.getpid())
        port.shutdown(socket.SHUT_RDWR)
    assert outcome["connections"] == 50
    assert from_s < outcome["began_s"] < outcome["ended_s"] < now_s()


def test_an_attack_that_fills_a_nodes_memory_fails() -> None:
    assert attack_failures("half_open", growth_mb=64.5, rounds=3) == [
        "half_open: grew by 64.5 MB (limit 64)"
    ]


# The lines


def test_lines_are_read_as_a_node_writes_them(tmp_path: Path) -> None:
    log = get_log(member=2)
    with logging_to(tmp_path / "node.log"):
        log.info("phase", round=1, phase="train")
        for round_ in (1, 2, 3):
            log.info("round_closed", round=round_, agreed=round_ != 2, merged=4, auc=0.97)
    lines = list(LogTail(tmp_path / "node.log").new())
    assert closed_rounds(lines) == {1, 2, 3}
    assert closed_rounds(lines, agreed=True) == {1, 3}
    assert closed_rounds(lines, agreed=False) == {2}
    assert [line.field("merged") for line in lines] == [None, 4, 4, 4]
