"""The golden vectors are what the code makes, and the code says of them what they say."""

import sys
from pathlib import Path
from typing import Any

import pytest

from ledger.bodies import ForkProof, Score
from ledger.charter import load_charter
from ledger.errors import VerificationError
from ledger.evaluation import commitment_of
from ledger.fork import check_fork_proof
from ledger.record import open_record, parse_envelope
from ledger.reputation import replay
from ledger.roster import Roster
from tests.golden import assert_committed, read_vectors

ROOT = Path(__file__).parent.parent.parent
VECTORS = ROOT / "tests" / "vectors" / "reputation"
sys.path.insert(0, str(VECTORS))

import make_reputation_vectors as make  # noqa: E402


def read(name: str) -> Any:
    return read_vectors(VECTORS, name, number=make.FORMAT)


def test_the_committed_vectors_are_what_the_script_makes() -> None:
    assert_committed(VECTORS, make.vectors(), "make_reputation_vectors.py")


@pytest.mark.parametrize("row", read("commitments.json"), ids=lambda row: f"round {row['round']}")
def test_commitments(row: dict[str, Any]) -> None:
    commitment = commitment_of(
        net=bytes.fromhex(row["net"]),
        author=row["author"],
        epoch=row["epoch"],
        round=row["round"],
        salt=bytes.fromhex(row["salt"]),
        scores=[
            Score(
                target_id=bytes.fromhex(id_),
                loss_with_micro=with_,
                loss_without_micro=without,
                count=count,
            )
            for id_, with_, without, count in row["scores"]
        ],
        evaluation_commitment=bytes.fromhex(row["evaluation_commitment"]),
    )
    assert commitment.hex() == row["commitment"]


def test_fork_proofs() -> None:
    vectors = read("fork_proofs.json")
    roster = Roster.from_charter(load_charter(bytes.fromhex(vectors["charter"])))
    for row in vectors["proofs"]:
        body = ForkProof(
            envelope_a=bytes.fromhex(row["envelope_a"]), envelope_b=bytes.fromhex(row["envelope_b"])
        )
        if "code" in row:
            with pytest.raises(VerificationError) as caught:
                check_fork_proof(body, roster)
            assert caught.value.code == row["code"], row["name"]
        else:
            fork = check_fork_proof(body, roster)
            assert [fork.author, fork.epoch, fork.seq, *(i.hex() for i in fork.ids)] == row["fork"]


def test_a_replay_from_bytes_alone() -> None:
    vectors = read("replay.json")
    roster = Roster.from_charter(load_charter(bytes.fromhex(vectors["charter"])))
    records = [
        open_record(parse_envelope(bytes.fromhex(one)), roster=roster)
        for one in reversed(vectors["envelopes"])
    ]
    reputation = replay(records, roster)
    assert [make.shown(outcome) for outcome in reputation.rounds] == vectors["rounds"]
    assert list(reputation.state.values_micro().values()) == vectors["reputation_micro"]
    assert reputation.state.digest().hex() == vectors["state_digest"]


def test_the_document_shows_the_worked_examples_numbers() -> None:
    text = (ROOT / "docs" / "reputation.md").read_text()
    for round_ in read("example.json")["rounds"]:
        outcome = round_["outcome"]
        rows = [
            [
                line["member"], line["before_micro"],
                ", ".join(f"{rank:,}" for _, rank, _ in line["votes"]),
                line["score_micro"], line["step_micro"], line["after_micro"],
            ]
            for line in outcome["members"]
        ]  # fmt: skip
        rows += [[e[0], *e[2:]] for e in outcome["evaluators"]]
        for row in rows:
            shown = " | ".join(f"{one:,}" if isinstance(one, int) else str(one) for one in row)
            assert f"| {shown} |" in text
        assert outcome["state_digest"] in text
