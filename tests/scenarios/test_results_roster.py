"""A run in which hospitals join, leave and change keys is read by the roster in force."""

import sys
from dataclasses import replace
from pathlib import Path

from ledger.record import Kind, Record
from scenarios.audit import audit
from scenarios.outcome import Level
from scenarios.results import Header, build_outcome, read_merges, read_own_logs, read_roster
from scenarios.view import NodeView

sys.path.insert(0, str(Path(__file__).parent.parent / "ledger"))

from roster_factory import Living, newcomer, write_files


def play(federation: Living, round_: int, *, votes: int | None = None) -> None:
    """One round of those who are members now; ``votes``: how many of them say what came of it."""
    authors = [member.index for member in federation.roster.active]
    offered = [
        federation.write(
            author,
            Kind.CONTRIBUTION,
            round_,
            federation.contribution_body(author, round_),
            with_acks=True,
        )
        for author in authors
    ]
    body = federation.aggregation_body(offered, round_)
    epochs = {one.value.author: one.value.epoch for one in offered}
    inputs = tuple(replace(one, epoch=epochs[one.author]) for one in body.inputs)
    for author in authors[:votes]:
        federation.write(author, Kind.AGGREGATION, round_, replace(body, inputs=inputs))
    for author in authors:
        federation.write(author, Kind.METRICS, round_, federation.metrics_body(round_))


def changing() -> Living:
    """Four; a fifth joins before round 2, 1 gets another key before round 3, 0 leaves before 4."""
    federation = Living(4)
    federation.open_all()
    play(federation, 1)
    federation.change(newcomer(4))
    federation.open_current()
    play(federation, 2)
    federation.rotate(1)
    federation.open_current()
    play(federation, 3)
    federation.remove(0)
    play(federation, 4)
    play(federation, 5, votes=2)
    return federation


def bundles_of(federation: Living, directory: Path) -> list[Path]:
    return [write_files(directory / str(own), federation.files()) for own in range(5)]


def test_every_members_own_log_is_read_across_epochs(tmp_path: Path) -> None:
    federation = changing()
    bundles = bundles_of(federation, tmp_path)
    roster = read_roster(bundles, federation.charter)
    assert (roster.version, roster.n) == (3, 4)
    logs = read_own_logs(bundles, roster)
    assert [{record.epoch for record in logs[own]} for own in range(5)] == [
        {0}, {0, 1}, {0}, {0}, {0},
    ]  # fmt: skip
    assert [record.round for record in logs[4] if record.kind == Kind.METRICS] == [2, 3, 4, 5]


def test_each_round_is_agreed_by_the_quorum_of_its_own_roster(tmp_path: Path) -> None:
    federation = changing()
    bundles = bundles_of(federation, tmp_path)
    roster = read_roster(bundles, federation.charter)
    merges = read_merges(read_own_logs(bundles, roster), rounds=5, roster=roster)
    assert [merge.agreed for merge in merges] == [True, True, True, True, False]
    assert [sorted(merge.merged) for merge in merges] == [
        [0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4],
    ]  # fmt: skip


def test_three_votes_of_five_members_are_no_quorum_though_they_are_of_four(tmp_path: Path) -> None:
    """With the charter's four members q is 3, with five it is 4."""
    federation = Living(4)
    federation.open_all()
    federation.change(newcomer(4))
    federation.open_current()
    play(federation, 1, votes=3)
    bundles = bundles_of(federation, tmp_path)
    roster = read_roster(bundles, federation.charter)
    logs = read_own_logs(bundles, roster)
    assert not read_merges(logs, rounds=1, roster=roster)[0].agreed


def test_the_outcome_has_who_joined_and_the_audit_agrees(tmp_path: Path) -> None:
    federation = changing()
    bundles = bundles_of(federation, tmp_path)
    charter_path = tmp_path / "charter.toml"
    charter_path.write_bytes(federation.charter_bytes)
    roster = read_roster(bundles, federation.charter)
    logs: dict[int, tuple[Record, ...]] = read_own_logs(bundles, roster)
    ledger = audit(bundles, charter=charter_path, charter_digest=federation.charter.digest_hex)
    assert (ledger.verdict, ledger.exit_status) == ("VERIFIED", 0)
    outcome = build_outcome(
        Header(scenario="s", title="t", seed=1, wall_s=0.0),
        federation.charter,
        logs,
        ledger,
        {own: (Level(), Level()) for own in range(5)},
        [NodeView(name=f"Hospital {own}") for own in range(5)],
        roster,
    )
    assert [one.name for one in outcome.hospitals] == [f"Hospital {own}" for own in range(5)]
    assert outcome.members_quorum == 3
    assert outcome.hospitals[4].samples == 300
    assert outcome.hospitals[0].weight_micro == 0, "who left has no share of the last merge"
