"""Anti-entropy: whom to compare heads with and when, and how long one comparison goes on.

Sans-IO: time, randomness and who is connected are arguments. A swarm that gets no gossip at all still
converges by comparing heads alone. Spec: docs/wire.md §4.1.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from itertools import islice
from random import Random
from typing import Final, final

from ledger.canonical import ITEMS_MAX
from ledger.roster import Roster
from swarm.protocol.messages import RECORDS_BYTES_MAX, Counts, Heads, Log

SYNC_FANOUT: Final = 3
"""Peers compared with per sync interval: every record reaches everybody in O(log n) intervals."""
LOOK_S: Final = 0.1
"""So often a node looks for new connections until it has heard of every member."""


@final
class Schedule:
    """Whom to compare heads with, and when."""

    def __init__(self, random: Random, *, soon_min_s: Callable[[], float]) -> None:
        """soon_min_s: the shortest pause before a comparison that somebody asks for."""
        self.is_hurried = False
        """Whether something seems to be missing, here or there."""
        self._random = random
        self._soon_min_s = soon_min_s
        self._soon_s = soon_min_s()
        self._due_s = -math.inf
        self._known: frozenset[int] = frozenset()
        self._asked: set[int] = set()
        self._first: set[int] = set()

    def hurry(self, peers: Collection[int] = ()) -> None:
        """Compare before the interval is over, with ``peers`` in any case."""
        self._first.update(peers)
        self.is_hurried = True

    def choose(
        self, now_s: float, connected: frozenset[int], *, heard: Collection[int], interval_s: float
    ) -> list[int]:
        """Return whom to ask now; each counts as asked until it has ``ended``. heard: who ever answered.

        Whoever has just connected, at any time; when it is due also a sample, those who never
        answered, and those named to ``hurry``. The pause before the next hurried comparison doubles,
        up to the interval: anybody can say that something is missing.
        """
        chosen, self._known = connected - self._known, connected
        if now_s >= self._due_s:
            longer_s = min(2 * self._soon_s, interval_s)
            self._soon_s = longer_s if self.is_hurried else self._soon_min_s()
            self.is_hurried = False
            self._due_s = now_s + interval_s * self._random.uniform(0.75, 1.25)
            sample = self._random.sample(sorted(connected), min(SYNC_FANOUT, len(connected)))
            chosen = chosen.union(sample, connected.difference(heard), self._first & connected)
            self._first.clear()
        asked = sorted(chosen - self._asked)
        self._asked.update(asked)
        return asked

    def look_s(self, now_s: float, *, is_everyone_heard: bool) -> float:
        """Return when to choose again if nobody hurries."""
        return self._due_s if is_everyone_heard else min(self._due_s, now_s + LOOK_S)

    def pause_until_s(self, now_s: float) -> float:
        """Return when to choose again, since somebody hurries: what seems to be missing may be on its way."""
        self._due_s = min(self._due_s, now_s + self._soon_s * self._random.uniform(0.5, 1.0))
        return self._due_s

    def brought_news(self) -> None:
        """A comparison brought records that were missing: the next may be soon."""
        self._soon_s = self._soon_min_s()

    def ended(self, peer: int) -> None:
        """A comparison is over, however it went."""
        self._asked.discard(peer)


class Standing(Enum):
    """Where a comparison with one peer stands."""

    ASKING = auto()
    LEVEL = auto()
    """Nothing that it holds is missing here."""
    BEHIND = auto()
    """Something is, and it does not bring it."""


class Reply(Enum):
    """What a reply comes to."""

    ALL = auto()
    """Nothing is missing any more."""
    SOME = auto()
    """It brings a record, or shows another branch of a log, and something is missing still."""
    NOTHING = auto()
    """It does neither, and something is missing still."""


TRANSITIONS: Final[dict[tuple[Standing, Reply], Standing]] = {
    (Standing.ASKING, Reply.ALL): Standing.LEVEL,
    (Standing.ASKING, Reply.SOME): Standing.ASKING,
    (Standing.ASKING, Reply.NOTHING): Standing.BEHIND,
}
"""Every move of a comparison; who does not answer ends it."""


@final
class Comparison:
    """One comparison with one peer, request after request as long as each reply brings something."""

    def __init__(self) -> None:
        self.standing = Standing.ASKING
        self._shown: set[Log] = set()

    def replied(self, *, new: int, lacks: bool, differing: Collection[Log]) -> None:
        """Take a reply into account.

        new: how many of its records were not here. lacks: whether more of what it holds is missing.
        differing: logs of which its last record is another than the one here. To see its branch this
        node says that its own log ends there, once for each log, or a liar's head would keep it here.
        """
        fresh = set(differing) - self._shown
        self._shown |= fresh
        if not (differing or lacks):
            reply = Reply.ALL
        else:
            reply = Reply.SOME if new or fresh else Reply.NOTHING
        self.standing = TRANSITIONS[self.standing, reply]


def wanted(theirs: Heads, roster: Roster, frozen: Collection[Log]) -> Counts:
    """Return how much of each of somebody's logs is wanted: nothing behind a cut, of a frozen log nothing."""
    return {
        log: _kept(log, head.count, roster) for log, head in theirs.items() if log not in frozen
    }


def _kept(log: Log, count: int, roster: Roster) -> int:
    author, epoch = log
    known = author < len(roster.terms) and epoch < len(roster.terms[author])
    cut = roster.cut(author, epoch) if known else None
    return count if cut is None else min(count, cut.kept)


@dataclass(frozen=True, slots=True)
class Gap:
    """Records of one log that somebody lacks: from ``from_seq`` on, up to (not including) ``to_seq``."""

    author: int
    epoch: int
    from_seq: int
    to_seq: int


def gaps(*, have: Mapping[Log, int], lacks: Mapping[Log, int]) -> list[Gap]:
    """Return what the owner of ``lacks`` could receive from the owner of ``have``, in a fixed order."""
    return [
        Gap(author, epoch, lacks.get((author, epoch), 0), count)
        for (author, epoch), count in sorted(have.items())
        if count > lacks.get((author, epoch), 0)
    ]


def fit(envelopes: Iterable[bytes], *, bytes_max: int = RECORDS_BYTES_MAX) -> Iterator[bytes]:
    """Pass on what one message carries, in bytes and in number; the rest follows in the next sync."""
    total = 0
    for envelope in islice(envelopes, ITEMS_MAX):
        total += len(envelope)
        if total > bytes_max:
            return
        yield envelope
