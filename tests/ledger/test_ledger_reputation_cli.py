"""Reputation on the command line: replayed, explained, and an edited claim refused (step 19)."""

import json
from pathlib import Path

import pytest
from reputation_records import opened

from ledger import cli


@pytest.fixture
def played(tmp_path: Path) -> list[str]:
    federation = opened(5)
    for round_ in (1, 2):
        federation.play_evaluated(round_)
    bundle = federation.bundle(tmp_path / "bundle")
    return [str(bundle), "--charter-digest", federation.charter.digest_hex]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        status = cli.main(arguments)
    except SystemExit as stop:
        status = int(stop.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_every_number_is_shown_with_what_stands_behind_it(
    played: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, "reputation", *played)
    assert status == 0
    assert "VERIFIED" in err
    assert out.splitlines()[0] == "reputation after round 2, in millionths"
    assert "Hospital 4" in out
    status, out, _ = run(capsys, "reputation", *played, "--member", "4")
    assert status == 0
    assert "evaluator 0: rank 1,000,000" in out
    status, out, err = run(capsys, "reputation", *played, "--member", "9")
    assert (status, out) == (2, "")
    assert "members are 0 to 4" in err


def test_an_edited_claim_is_refused_and_the_true_one_is_not(
    played: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    claim = tmp_path / "claim.json"
    _, out, _ = run(capsys, "reputation", *played, "--json")
    claim.write_text(out)
    status, out, _ = run(capsys, "verify", *played, "--reputation", str(claim))
    assert status == 0
    assert "supplied: 1 bundle, charter digest, reputation" in out
    document = json.loads(claim.read_text())
    document["members"][3]["reputation_micro"] += 1
    claim.write_text(json.dumps(document))
    status, out, _ = run(capsys, "verify", *played, "--reputation", str(claim))
    assert status == 1
    assert "step 19: E_REPUTATION: member 3 is claimed" in out
    del document["members"][3]
    claim.write_text(json.dumps(document))
    assert run(capsys, "verify", *played, "--reputation", str(claim))[0] == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"members": 3}',
        '{"members": [{"member": 0}]}',
        '{"members": [{"member": 0, "reputation_micro": true}]}',
        '{"members": [{"member": 0, "reputation_micro": 1}, {"member": 0, "reputation_micro": 1}]}',
        "[" * 100_000,
    ],
)
def test_a_claim_that_is_none_is_no_verdict(
    text: str, played: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    claim = tmp_path / "claim.json"
    claim.write_text(text)
    status, out, err = run(capsys, "verify", *played, "--reputation", str(claim))
    assert (status, out) == (2, "")
    assert "not a list of reputations" in err
