"""Tables of states in docs/wire.md, walked by tests on the code that decides."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "wire.md"

Way: TypeAlias = tuple[str, ...]
"""What happens, in order."""


class StateTable:
    """(stands, what happens) → stands then; what a row does not say changes nothing."""

    def __init__(self, name: str, *, start: str) -> None:
        """name: of the marks around it in the document."""
        self._text = DOCUMENT.read_text().split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0]
        self._start = start
        written = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", self._text, flags=re.MULTILINE)
        assert written[0] == ("stands", "what happens", "stands then")
        self._rows = {
            (state, event): then
            for before, event, then in written[1:]
            for state in before.split(", ")
        }

    def after(self, way: Sequence[str]) -> str:
        """Return the state after all that."""
        state = self._start
        for event in way:
            state = self._rows.get((state, event), state)
        return state

    def walks(
        self, is_possible: Callable[[Way, str], bool] = lambda _way, _event: True
    ) -> list[Way]:
        """The shortest way to each state, and from there each event that is possible."""
        return list(self._walks(is_possible))

    def _walks(self, is_possible: Callable[[Way, str], bool]) -> Iterator[Way]:
        ways: dict[str, Way] = {self._start: ()}
        events = sorted({event for _, event in self._rows})
        frontier = [self._start]
        while frontier:
            state = frontier.pop(0)
            for event in events:
                if not is_possible(ways[state], event):
                    continue
                way = (*ways[state], event)
                yield way
                if (then := self.after(way)) not in ways:
                    ways[then] = way
                    frontier.append(then)

    def check_drawing(self, short: Mapping[str, str]) -> None:
        """Every arrow of the drawing is a row, and every state is drawn. short: word → event."""
        arrows = re.findall(r"^    (\w+) --> (\w+): (.+)$", self._text, flags=re.MULTILINE)
        drawn = {
            (before.replace("_", " "), short.get(word, word), then.replace("_", " "))
            for before, then, word in arrows
        }
        assert drawn <= {(state, event, then) for (state, event), then in self._rows.items()}
        states = {state for before, _, then in drawn for state in (before, then)}
        assert states == {state for state, _ in self._rows} | set(self._rows.values())
