"""Where a chunk stands that is fetched, as docs/wire.md §4.2 has it, on the code that decides."""

from collections.abc import Callable, Mapping
from random import Random

import pytest

from swarm.protocol.fetch import STEAL_AFTER_S, Download
from swarm.protocol.payload import CHUNK_BYTES, Manifest
from tests.tables import StateTable, Way

TABLE = StateTable("chunk", start="missing")
LATER_S = STEAL_AFTER_S + 1
NEVER_LATE_S = 1e9
COMES = "it comes and is right"
NOTHING = "it does not come"
LEFT = "the source is left"


class Life:
    """A download of one chunk from sources that become free one after another."""

    def __init__(self, way: Way) -> None:
        manifest = Manifest(codec=1, bytes_count=CHUNK_BYTES, chunks=(bytes(32),))
        self._download = Download(manifest, (), random=Random(1))
        self._now_s = 0.0
        self._sources = 0
        self._asked: list[int] = []
        for event in way:
            self.happens(event)

    def happens(self, event: str) -> None:
        effects: Mapping[str, Callable[[], object]] = {
            "a source is free": self._ask,
            "a source is free later": lambda: self._ask(LATER_S),
            COMES: lambda: self._download.received(0),
            NOTHING: lambda: self._download.put_back(self._asked.pop(), 0),
            LEFT: lambda: self._download.leave(self._asked.pop()),
        }
        effects[event]()

    def stands(self) -> str:
        """Ask whoever comes now and later what is wanted of it; this life is over then."""
        if self._download.holds(0):
            assert self._download.is_complete
            return "held"
        if self._ask(usual_s=NEVER_LATE_S):
            return "missing"
        return "asked" if self._ask(LATER_S) else "asked twice"

    def _ask(self, after_s: float = 0.0, *, usual_s: float = 0.0) -> bool:
        self._now_s += after_s
        self._sources += 1
        index = self._download.take(self._sources, now_s=self._now_s, usual_s=usual_s)
        is_asked = index is not None
        if is_asked:
            self._asked.append(self._sources)
        return is_asked


def is_possible(way: Way, event: str) -> bool:
    """Only who was asked brings something, or does not."""
    return event not in {COMES, NOTHING, LEFT} or TABLE.after(way) != "missing"


@pytest.mark.parametrize("way", TABLE.walks(is_possible), ids=", ".join)
def test_a_chunk_stands_where_the_table_says_after_every_event(way: Way) -> None:
    assert Life(way).stands() == TABLE.after(way)


def test_the_drawing_shows_rows_of_the_table_and_every_state() -> None:
    TABLE.check_drawing(
        {
            "source": "a source is free",
            "late": "a source is free later",
            "right": COMES,
            "nothing": NOTHING,
            "left": LEFT,
        }
    )
