"""The golden vectors of sketches and doubts are what the code makes, and what their files say is found again."""

import json
import sys
from pathlib import Path
from typing import Any

from ledger.signals import Claim, signals
from ledger.sketch import Projected, ProjectedRound

VECTORS = Path(__file__).parent.parent / "vectors" / "signals"
sys.path.insert(0, str(VECTORS))

import make_signal_vectors as make  # noqa: E402


def read(name: str) -> Any:
    document = json.loads((VECTORS / name).read_text())
    assert document["format"] == make.FORMAT
    return document["vectors"]


def test_the_committed_vectors_are_what_the_script_makes() -> None:
    made = make.vectors()
    assert sorted(made) == sorted(path.name for path in VECTORS.glob("*.json"))
    for name, text in made.items():
        assert (VECTORS / name).read_text() == text, f"run make_signal_vectors.py ({name})"


def test_signals_follow_from_what_the_file_says() -> None:
    given = read("signals.json")
    rounds = [
        ProjectedRound(
            one["round"], bytes(32),
            tuple(
                Projected(member, at, bytes.fromhex(id_), exponent, tuple(values))
                for member, at, id_, exponent, values in one["rows"]
            ),
        )
        for one in given["rounds"]
    ]  # fmt: skip
    claims = {
        row.id: Claim(row.member, row.round, given["samples"][row.member], 1_000_000, 10)
        for one in rounds
        for row in one.sketches
    }
    found = {one.member: one for one in signals(rounds, (), claims)}
    assert sorted(found) == list(range(make.MEMBERS))
    for said in given["members"]:
        one = found[said["member"]]
        assert [[number, dict(what)] for number, what in one.timeline] == said["timeline"]
        assert (one.doubt_milli, one.peak_milli) == (said["doubt_milli"], said["peak_milli"])
    doubted = {said["member"] for said in given["members"] if said["alerts"]}
    assert doubted == {make.NOISY, make.REPLAYER}, "and nobody who works"
