"""What nodes write into their logs, followed while they run and read again afterwards.

Room: scenarios. A log says when a node entered each phase, so a fault can be timed to a phase and a round's
length is known exactly, without asking a node that has other things to do.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, final

PHASE: Final = "phase"
TRAIN: Final = "train"
COLLECT: Final = "collect"


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One event of one node. at_s: seconds since the epoch."""

    at_s: float
    event: str
    round: int | None
    phase: str
    text: str


@final
class LogTail:
    """Follows one node's log from where it stands."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._rest = b""

    def new(self) -> Iterator[Line]:
        """Yield what was written since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        self._at += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if (parsed := parse(line)) is not None:
                yield parsed


def parse(line: bytes) -> Line | None:
    """Read one line; None when it is torn, as the last one of a killed node may be."""
    try:
        value: dict[str, Any] = json.loads(line)
        at_s = datetime.fromisoformat(value["time"]).timestamp()
    except (ValueError, KeyError, TypeError):
        return None
    round_ = value.get("round")
    return Line(
        at_s=at_s,
        event=str(value.get("event", "")),
        round=round_ if isinstance(round_, int) else None,
        phase=str(value.get("phase", "")),
        text=line.decode(errors="replace"),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundTime:
    """How long a node was in one round, from training to the next one's training."""

    round: int
    began_s: float
    took_s: float


def round_times(lines: list[Line]) -> list[RoundTime]:
    """Every round that a node went through without a restart in between."""
    times: list[RoundTime] = []
    entered: Line | None = None
    for line in lines:
        if line.event == "started":
            entered = None
        if line.event != PHASE or line.phase not in (TRAIN, "linger"):
            continue
        if entered is not None and entered.round is not None:
            took_s = line.at_s - entered.at_s
            times.append(RoundTime(round=entered.round, began_s=entered.at_s, took_s=took_s))
        entered = line if line.phase == TRAIN else None
    return times
