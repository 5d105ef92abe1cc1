"""The ledger of docs/ledger.md as a plain model, written apart from the code: lists and integers.

It knows no bytes, keys or files. Ids are opaque. What it says is compared with what stores,
bundles and the audit do (test_ledger_machine.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

Log = tuple[int, int]
Reference = tuple[int, int, int, bytes]
DAY_MS = 86_400_000
LAMPORT_STEP = 2**32 - 1


@dataclass(frozen=True)
class R:
    """What the rules need to know of a record; ``key``: whose key, of which epoch, signed it."""

    id: bytes
    net: bool
    author: int
    epoch: int
    seq: int
    prev: bytes
    roster: int
    is_open: bool
    round: int
    lamport: int
    time_ms: int
    acks: tuple[Reference, ...]
    inputs: tuple[Reference, ...] = ()
    key: Log = (0, 0)

    @property
    def log(self) -> Log:
        return self.author, self.epoch

    @property
    def references(self) -> tuple[Reference, ...]:
        return (*self.acks, *self.inputs)


@dataclass
class Epoch:
    """One key of one member: since when, until when, and what stays of its log."""

    since: int
    until: int | None = None
    kept: int = 0
    head: bytes = bytes(32)


@dataclass
class World:
    """Rosters: version → who is a member; epochs of each author."""

    members: list[set[int]]
    epochs: list[list[Epoch]]

    @property
    def version(self) -> int:
        return len(self.members) - 1

    def quorum(self, version: int) -> int:
        n = len(self.members[version])
        return (n + (n - 1) // 3) // 2 + 1

    def add(self) -> int:
        self.members.append({*self.members[-1], len(self.epochs)})
        self.epochs.append([Epoch(since=self.version)])
        return len(self.epochs) - 1

    def end(self, author: int, kept: int, head: bytes, *, goes_on: bool) -> None:
        self.members.append(self.members[-1] if goes_on else self.members[-1] - {author})
        newest = self.epochs[author][-1]
        newest.until, newest.kept, newest.head = self.version, kept, head
        if goes_on:
            self.epochs[author].append(Epoch(since=self.version))

    def cut(self, log: Log) -> Epoch | None:
        epoch = self.epochs[log[0]][log[1]]
        return None if epoch.until is None else epoch

    def is_void(self, by: R, reference: Reference) -> bool:
        """Whether it points behind a cut that its writer could not know."""
        author, epoch, seq, _ = reference
        cut = self.cut((author, epoch))
        return cut is not None and seq >= cut.kept and by.roster < (cut.until or 0)


@dataclass
class Copy:
    """What one site holds: log → records in order."""

    logs: dict[Log, list[R]] = field(default_factory=dict)

    def at(self, log: Log, seq: int) -> R | None:
        held = self.logs.get(log, [])
        return held[seq] if seq < len(held) else None

    def judge(self, world: World, r: R) -> str:
        """Return "stored", "known", "waits", or the code that refuses it: the first that applies."""
        return next(self._verdicts(world, r), "stored")

    def _verdicts(self, world: World, r: R) -> Iterator[str]:
        if not r.net:
            yield "E_NETWORK"
        if r.roster > world.version:
            yield "E_ROSTER_UNKNOWN"
        term = world.epochs[r.author][r.epoch]
        if r.roster < term.since or (term.until is not None and r.roster >= term.until):
            yield "E_EPOCH"
        if r.key != r.log:
            yield "E_SIGNATURE"
        cut = world.cut(r.log)
        if cut and (r.seq >= cut.kept or (r.seq == cut.kept - 1 and r.id != cut.head)):
            yield "E_AFTER_CUT"
        known = self.at(r.log, r.seq)
        if known is not None:
            yield "known" if known.id == r.id else "E_FORK"
        held = self.logs.get(r.log, [])
        if r.seq > len(held):
            yield "waits"
        for reference in r.references:
            if not world.is_void(r, reference) and self.at(reference[:2], reference[2]) is None:
                yield "waits"
        yield from self._breaks(held[-1] if held else None, r)

    @staticmethod
    def _breaks(head: R | None, r: R) -> Iterator[str]:
        if r.prev != (head.id if head else bytes(32)):
            yield "E_PREV"
        if r.is_open != (r.seq == 0):
            yield "E_OPEN"
        if not 0 < r.lamport - (head.lamport if head else 0) <= LAMPORT_STEP:
            yield "E_LAMPORT"
        if head and r.time_ms < head.time_ms:
            yield "E_TIME_BACKWARD"
        if head and r.round < head.round:
            yield "E_ROUND_BACKWARD"
        if head and r.roster < head.roster:
            yield "E_ROSTER_BACKWARD"

    def take(self, r: R) -> None:
        self.logs.setdefault(r.log, []).append(r)

    def cut(self, world: World) -> None:
        """Forget what lies behind the cuts; all of a log that was another branch."""
        for log in list(self.logs):
            cut = world.cut(log)
            if cut is None:
                continue
            held = self.logs[log]
            other = 0 < cut.kept <= len(held) and held[cut.kept - 1].id != cut.head
            del held[0 if other else cut.kept :]
            if not held:
                del self.logs[log]


def final(world: World, logs: dict[Log, list[R]]) -> dict[Log, int]:
    """Return each log's highest final seq (docs/ledger.md §8), -1 for none."""
    result = dict.fromkeys(logs, -1)
    for version, members in enumerate(world.members):
        for log, held in logs.items():
            own = max((r.seq for r in held if r.roster == version), default=-1)
            reached = []
            for member in members:
                acked = [
                    seq
                    for (author, _), records in logs.items()
                    if author == member
                    for r in records
                    if r.roster == version
                    for *of, seq, id_ in r.acks
                    if tuple(of) == log and not world.is_void(r, (*log, seq, id_))
                ]
                reached.append(own if member == log[0] else min(max(acked, default=-1), own))
            reached.sort(reverse=True)
            at = world.quorum(version)
            if len(reached) >= at:
                result[log] = max(result[log], reached[at - 1])
    return result


def is_missed(world: World, logs: dict[Log, list[R]], log: Log, kept: int) -> bool:
    """Whether somebody in these files shows that ``log`` had more than ``kept`` records."""
    cut = world.cut(log)
    if cut is not None and cut.kept > kept:
        return True
    return any(
        reference[:2] == log and reference[2] >= kept and not world.is_void(r, reference)
        for other, records in logs.items()
        if other != log
        for r in records
        for reference in r.references
    )


def lacks_kept(world: World, logs: dict[Log, list[R]]) -> bool:
    """Whether there is less in these files than the cuts keep."""
    return any(
        epoch.until is not None and epoch.kept > len(logs.get((author, number), ()))
        for author, epochs in enumerate(world.epochs)
        for number, epoch in enumerate(epochs)
    )
