"""What a liar's sketches make others do: a bounded number of checks, whatever they claim."""

from dataclasses import replace

from ledger.record import Kind, Record, Sketch, SketchRow, Verified
from swarm.protocol.book import RoundBook
from swarm.protocol.effects import CheckSketch
from swarm.protocol.scoring import Scoring
from tests.federation import Author, Federation

LIAR = 3


def sketch_of(pen: Author, contribution: Verified[Record], *, shown: int) -> Verified[Record]:
    row = SketchRow(target_id=contribution.id, exponent=0, values=b"")
    return pen.write(
        Kind.SKETCH, contribution.value.round, Sketch(round=shown, seed=bytes(32), rows=(row,))
    )


def checks_of(scoring: Scoring) -> list[CheckSketch]:
    """Everything that is checked, one after the other."""
    found: list[CheckSketch] = []
    while checks := [one for one in scoring.advance(now_s=0.0)[0] if isinstance(one, CheckSketch)]:
        scoring.done(checks[0])
        found.append(checks[0])
    return found


def test_one_contribution_is_checked_in_few_sketches_however_many_rounds_they_claim() -> None:
    federation = Federation(4)
    federation.open_all()
    book = RoundBook(federation.roster)
    scoring = Scoring(
        book,
        replace(federation.charter.reputation, mode="watch"),
        own=0,
        grace_s=1.0,
        has=lambda _offer: True,
        holds=lambda _digest: True,
    )
    pen = federation[LIAR]
    contribution = pen.contribute(5)
    book.learn(contribution)
    for shown in range(1, 200):
        scoring.learn(sketch_of(pen, contribution, shown=shown))
    later = pen.contribute(9)
    book.learn(later)
    for shown in range(1, 200):
        scoring.learn(sketch_of(pen, later, shown=shown))
    checks = checks_of(scoring)
    assert {one.sketch.round for one in checks} == {5, 9}, (
        "a sketch shows no later round than its own"
    )
