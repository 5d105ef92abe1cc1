"""Where a member stands, as docs/wire.md §5.4 has it: every event in every state, on the code that decides it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from ledger.record import Record, Verified, sign_record
from swarm.protocol.attendance import Attendance
from swarm.protocol.book import RoundBook
from tests.federation import Federation
from tests.tables import StateTable

MEMBER = 3
INACTIVE_AFTER = 2
CONTRIBUTION = "CONTRIBUTION"
SILENCE = "`inactive_after_rounds` rounds without a CONTRIBUTION"
FORK = "two records for one slot"


TABLE = StateTable("standing", start="registered")


class Life:
    """One member among four, as another one sees it."""

    def __init__(self) -> None:
        self._federation = Federation(4, inactive_after_rounds=INACTIVE_AFTER)
        self._roster = self._federation.roster
        self._records: list[Verified[Record]] = []
        self._forked: list[int] = []
        self._round = 1

    def happens(self, event: str) -> None:
        """Let the member, or the admins, do something."""
        effects: Mapping[str, Callable[[], None]] = {
            "OPEN": lambda: self._write(self._federation[MEMBER].open()),
            CONTRIBUTION: lambda: self._write(self._federation[MEMBER].contribute(self._round)),
            "CLOSE": lambda: self._write(self._federation[MEMBER].close(self._round)),
            SILENCE: self._waits,
            FORK: lambda: self._forked.append(self._roster.epoch(MEMBER)),
            "rotation": lambda: self._change(rotates=True),
            "removal": lambda: self._change(rotates=False),
        }
        effects[event]()

    def stands(self) -> str:
        """Return where the member stands, from a book of everything that has happened."""
        book = RoundBook(self._roster)
        attendance = Attendance(book, self._federation.charter.rounds, first_round=1)
        for record in self._records:
            book.learn(record)
        for epoch in self._forked:
            book.freeze(MEMBER, epoch, 0)
        is_waited_for = MEMBER in attendance.active(self._round)
        if not self._roster.is_active(MEMBER):
            stands = "removed"
        elif book.is_frozen(MEMBER):
            stands = "frozen"
        elif MEMBER in book.closed:
            stands = "left"
        elif MEMBER not in book.opened:
            stands = "registered"
        else:
            stands = "active" if is_waited_for else "inactive"
        assert is_waited_for is (stands == "active")
        counts = any(one.index == MEMBER for one in self._roster.active)
        assert counts is (stands != "removed")
        return stands

    def _waits(self) -> None:
        self._round += INACTIVE_AFTER + 1

    def _write(self, record: Verified[Record]) -> None:
        epoch, version = self._roster.epoch(MEMBER), self._roster.version
        now = replace(record.value, epoch=epoch, roster=version)
        self._records.append(sign_record(now, self._federation[MEMBER].signer))

    def _change(self, *, rotates: bool) -> None:
        before = self._roster
        *ended, newest = before.terms[MEMBER]
        version = before.version + 1
        terms = [*ended, replace(newest, until=version)]
        if rotates:
            terms.append(replace(newest, ledger_key=bytes([version] * 32), since=version))
        self._roster = replace(
            before,
            version=version,
            versions=(*before.versions, version),
            terms=(*before.terms[:MEMBER], tuple(terms)),
        )


def is_possible(way: Sequence[str], event: str) -> bool:
    """A log begins with OPEN, has only one, and nobody who is gone is rotated."""
    if event == "rotation":
        return "removal" not in way
    since = [*way][::-1].index("rotation") if "rotation" in way else len(way)
    is_open = "OPEN" in way[len(way) - since :]
    return {"OPEN": not is_open, CONTRIBUTION: is_open, "CLOSE": is_open}.get(event, True)


@pytest.mark.parametrize("way", TABLE.walks(is_possible), ids=", ".join)
def test_a_member_stands_where_the_table_says_after_every_event(way: tuple[str, ...]) -> None:
    life = Life()
    assert life.stands() == TABLE.after(())
    for count, event in enumerate(way, start=1):
        life.happens(event)
        assert life.stands() == TABLE.after(way[:count]), event


def test_the_drawing_shows_rows_of_the_table_and_every_state() -> None:
    TABLE.check_drawing({"silent": SILENCE, "fork": FORK})
