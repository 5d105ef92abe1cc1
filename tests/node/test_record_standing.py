"""Where a record of another member stands, as docs/wire.md §4.1 has it: on the real intake and a real store."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ledger.fork import fork_proof
from ledger.record import Kind, Record, Verified
from ledger.store import Store
from node.forks import Forks
from node.intake import Intake
from node.round_share import RoundShares
from tests.federation import Author, Federation, ack_of
from tests.tables import StateTable, Way

TABLE = StateTable("record", start="unheard")
COMES = "it comes"
BUILT = "what it builds on is stored"
FORK = "a fork is proven at its slot or below"
OWN, AUTHOR, CAUSE, WITNESS = range(4)


class Life:
    """One record that acknowledges another, at a node that may hear of either, or of a proof."""

    def __init__(self, store: Store, way: Way) -> None:
        self._store = store
        self._federation = Federation(4)
        opens = self._federation.open_all()
        self._cause = opens[CAUSE]
        twin = Author(self._federation.roster, AUTHOR, 1)
        twin.open()
        other = twin.contribute(1)
        self._record = self._federation[AUTHOR].contribute(1, acks=[ack_of(self._cause)])
        proof = fork_proof(self._record.signed, other.signed)
        self._proof = self._federation[WITNESS].write(Kind.FORK_PROOF, 0, proof)
        self._start()
        self._hear(*(one for one in opens if one is not self._cause))
        for event in way:
            self.happens(event)

    def happens(self, event: str) -> None:
        effects: Mapping[str, Callable[[], None]] = {
            COMES: lambda: self._hear(self._record),
            BUILT: lambda: self._hear(self._cause),
            FORK: lambda: self._hear(self._proof),
            "restart": self._start,
        }
        effects[event]()

    def stands(self) -> str:
        """Let it come, if it is not here, to see what becomes of it; this life is over then."""
        if self._is_stored():
            return "stored"
        if self._intake.waiting:
            return "waits"
        self._hear(self._record)
        if self._is_stored():
            return "next"
        return "unheard" if self._intake.waiting else "refused"

    def _start(self) -> None:
        roster = self._federation.roster
        self._forks = Forks(self._store, roster, (OWN, 0))
        shares = RoundShares(self._store, roster, rounds=None)
        self._intake = Intake(self._store, roster, (OWN, 0), self._forks, shares)

    def _hear(self, *records: Verified[Record]) -> None:
        if self._store.heads().get((OWN, 0)) is None:
            self._store.append(self._federation[OWN].records)
        heard = [one.signed.envelope() for one in records if one.value.author != OWN]
        self._intake.take(heard, self._store.heads())

    def _is_stored(self) -> bool:
        return self._record.id in {one.id for one in self._store.records(author=AUTHOR)}


@pytest.mark.parametrize("way", TABLE.walks(), ids=", ".join)
def test_a_record_stands_where_the_table_says_after_every_event(way: Way, tmp_path: Path) -> None:
    with Store.open(tmp_path / "ledger.db") as store:
        assert Life(store, way).stands() == TABLE.after(way)


def test_the_drawing_shows_rows_of_the_table_and_every_state() -> None:
    TABLE.check_drawing({"built": BUILT, "fork": FORK})
