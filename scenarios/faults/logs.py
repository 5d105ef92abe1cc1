"""What nodes write into their logs, followed while they run and read again afterwards.

Room: scenarios. A log says when a node entered each phase, so a fault can be timed to a phase and a round's
length is known exactly, without asking a node that has other things to do.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, final

PHASE: Final = "phase"
TRAIN: Final = "train"
COLLECT: Final = "collect"
LINGER: Final = "linger"


def now_s() -> float:
    """Seconds since the epoch, the clock of the lines."""
    return time.time_ns() / 1e9


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One event of one node. at_s: seconds since the epoch."""

    at_s: float
    event: str
    round: int | None
    phase: str
    text: str

    def field(self, name: str) -> object:
        """One more field of the line; None when it has none of this name."""
        return json.loads(self.text).get(name)


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


def closed_rounds(lines: Sequence[Line], *, agreed: bool | None = None) -> set[int]:
    """Rounds that a node has closed; agreed: only those that it then knew to be agreed, or only the others."""
    return {
        line.round
        for line in lines
        if line.event == "round_closed"
        and line.round is not None
        and (agreed is None or line.field("agreed") is agreed)
    }


def closed_between(lines: Sequence[Line], from_s: float, to_s: float) -> int:
    """How many rounds a node closed in a stretch of time."""
    return sum(line.event == "round_closed" and from_s <= line.at_s <= to_s for line in lines)


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundTime:
    """How long a node was in one round, from training to the next one's training.

    collect_s: from training until it stopped collecting.
    """

    round: int
    began_s: float
    took_s: float
    collect_s: float


def round_times(lines: Sequence[Line]) -> list[RoundTime]:
    """Every round that a node went through without a restart in between."""
    times: list[RoundTime] = []
    entered: Line | None = None
    collected_s: float | None = None
    for line in lines:
        if line.event == "started":
            entered = None
        if line.event != PHASE:
            continue
        if collected_s is None and line.phase not in (TRAIN, COLLECT):
            collected_s = line.at_s
        if line.phase not in (TRAIN, LINGER):
            continue
        if entered is not None and entered.round is not None:
            until_s = line.at_s if collected_s is None else collected_s
            times.append(
                RoundTime(
                    round=entered.round,
                    began_s=entered.at_s,
                    took_s=line.at_s - entered.at_s,
                    collect_s=until_s - entered.at_s,
                )
            )
        entered = line if line.phase == TRAIN else None
        collected_s = None
    return times
