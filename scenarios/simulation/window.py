"""The line between two processes that each run half of one calm swarm, under one virtual time.

Room: scenarios. A message takes at least WINDOW_S, so what is sent within such a window matters to the
other half only in the next: both run a window, hand over what they sent, and go on (conservative
parallel simulation: Chandy and Misra 1979, https://doi.org/10.1109/TSE.1979.230182). One seed gives one history.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final, TypeAlias, final

import trio

from node.framing import Status
from node.network_memory import Answer, Gossip, MemoryHub, Message, Reply, Request

WINDOW_S: Final = 0.01
"""Virtual seconds that the two halves run apart."""
HALVES: Final = 2
Halved: TypeAlias = tuple[int, Connection]
"""Which half this process runs (0 or 1), and its line to the other."""


@dataclass(slots=True)
class _Ticket(Answer):
    """What a requester in the other process waits for."""

    number: int = 0


@dataclass(frozen=True, slots=True)
class _Question:
    """A request as it travels. number: of the answer that somebody waits for."""

    author: int
    protocol: str
    body: bytes
    number: int


@dataclass(frozen=True, slots=True)
class _Answered:
    """A reply as it travels."""

    author: int
    status: Status
    body: bytes
    number: int


@dataclass(frozen=True, slots=True)
class _Posted:
    """A message on its way to a member of the other half."""

    target: int
    due_s: float
    bytes_count: int
    message: Gossip | _Question | _Answered


@dataclass(frozen=True, slots=True)
class _Window:
    """What one half tells the other at the end of a window. standing: "" until it has converged."""

    running: frozenset[int]
    posted: tuple[_Posted, ...]
    standing: str
    is_over: bool


@final
class Half:
    """One process's part, and its line to the other."""

    def __init__(self, number: int, line: Connection, hub: MemoryHub, members: int) -> None:
        """Put something in the place of every member of the other half."""
        self.here: Sequence[int] = range(number, members, HALVES)
        """Members that run in this process."""
        self._number = number
        self._line = line
        self._elsewhere = {
            index: _Elsewhere(index, self) for index in range(members) if index not in self.here
        }
        self._posted: list[_Posted] = []
        self._answers: dict[int, Answer] = {}
        self._asked = 0
        self._standing = self._theirs = ""
        self._is_over = False
        self._hub = hub
        for index, one in self._elsewhere.items():
            hub.place(index, one)

    async def run(self) -> None:
        """Hand over at the end of each window, until cancelled."""
        begun_s, windows = trio.current_time(), 0
        while True:
            self._hand_over()
            windows += 1
            await trio.sleep_until(begun_s + windows * WINDOW_S)

    def agrees(self, standing: str) -> bool:
        """Say where this half stands when it is done; tell whether the other stands there too."""
        self._standing = standing
        return self._theirs == standing

    def end(self) -> None:
        """This half has ended; wait until the other has."""
        self._is_over = True
        while not self._hand_over():
            pass

    def post(self, target: int, due_s: float, message: Message, bytes_count: int) -> None:
        """Put a message with what is handed over next."""
        travels: Gossip | _Question | _Answered
        match message:
            case Gossip():
                travels = message
            case Request(author, protocol, body, answer):
                self._asked += 1
                self._answers[self._asked] = answer
                travels = _Question(author, protocol, body, self._asked)
            case Reply(author, status, body, _Ticket(number=number)):
                travels = _Answered(author, status, body, number)
            case Reply():
                return  # nobody asked from there
        self._posted.append(_Posted(target, due_s, bytes_count, travels))

    def _hand_over(self) -> bool:
        """Tell the other half of this window and take what it says; return whether it is over there."""
        hub = self._hub
        running = frozenset(index for index in self.here if hub.runs(index))
        mine = _Window(running, tuple(self._posted), self._standing, self._is_over)
        self._posted.clear()
        if self._number == 0:  # one after the other, or both would wait with full pipes
            self._line.send(mine)
            theirs: _Window = self._line.recv()
        else:
            theirs = self._line.recv()
            self._line.send(mine)
        self._theirs = theirs.standing
        for index, one in self._elsewhere.items():
            if one.running and index not in theirs.running:
                hub.crash(index)
            elif one.running != (index in theirs.running):
                one.running = True
                hub.place(index, one)
        for posted in theirs.posted:
            message = self._arrived(posted.message)
            if message is not None and hub.runs(posted.target):
                hub.post(posted.target, posted.due_s, message, posted.bytes_count)
        return theirs.is_over

    def _arrived(self, travels: Gossip | _Question | _Answered) -> Message | None:
        """A message of the other half as one of this; None: nobody waits for it any more."""
        match travels:
            case Gossip():
                return travels
            case _Question(author, protocol, body, number):
                return Request(author, protocol, body, _Ticket(author, number=number))
            case _Answered(author, status, body, number):
                answer = self._answers.pop(number, None)
                return None if answer is None else Reply(author, status, body, answer)


@final
class _Elsewhere:
    """A member that the other process runs, as the hub here sees it."""

    def __init__(self, index: int, half: Half) -> None:
        self.running = False
        self._index = index
        self._half = half

    def post(self, due_s: float, message: Message, bytes_count: int) -> None:
        """Put a message with what is handed over next."""
        self._half.post(self._index, due_s, message, bytes_count)

    def saw(self, peer: int) -> None:
        """It sees for itself."""

    def lost(self, index: int) -> None:
        """It hears of that itself."""

    def die(self) -> None:
        """It has ended there."""
        self.running = False
