"""The golden vectors of sketches and doubts are what the code makes, and what their files say is found again."""

import sys
from pathlib import Path

from ledger.signals import Claim, signals
from ledger.sketch import Projected, ProjectedRound
from tests.golden import assert_committed, read_vectors

VECTORS = Path(__file__).parent.parent / "vectors" / "signals"
sys.path.insert(0, str(VECTORS))

import make_signal_vectors as make  # noqa: E402


def test_the_committed_vectors_are_what_the_script_makes() -> None:
    assert_committed(VECTORS, make.vectors(), "make_signal_vectors.py")


def test_signals_follow_from_what_the_file_says() -> None:
    given = read_vectors(VECTORS, "signals.json", number=make.FORMAT)
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
