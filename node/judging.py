"""The pen for evaluations: committed and kept as one, opened in time, never after the log has gone on.

Room: node. What a COMMIT hides is stored with it, in one transaction: a node that is killed can still open
it. A record of a later round closes a round's evaluations, so what is not open yet is opened before.
Spec: docs/reputation.md §2, docs/wire.md §5.10.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, final

import trio

from ledger.canonical import Value, decode, encode
from ledger.evaluation import commitment_of
from ledger.record import EvaluationCommit, EvaluationReveal, Kind, Record, Verified
from ledger.record import Score as ScoreRow
from ledger.roster import Roster
from ledger.store import Store

SALT_BYTES: Final = 32
STATE_KEY: Final = "evaluation"


class Write(Protocol):
    """Sign, store with ``state`` in one transaction, learn and publish a record."""

    def __call__(  # noqa: D102
        self, kind: Kind, round_: int, body: Any, *, state: Mapping[str, bytes] | None = None
    ) -> Awaitable[Verified[Record]]: ...


@dataclass(frozen=True, slots=True)
class Hidden:
    """What one own COMMIT hides."""

    epoch: int
    round: int
    salt: bytes
    scores: tuple[ScoreRow, ...]
    evaluation_commitment: bytes

    def to_bytes(self) -> bytes:
        """Return it as it is stored."""
        rows: list[Value] = [row.to_value() for row in self.scores]
        return encode([self.epoch, self.round, self.salt, rows, self.evaluation_commitment])

    @classmethod
    def from_bytes(cls, data: bytes) -> "Hidden":
        """Undo :meth:`to_bytes`."""
        value: Any = decode(data)
        epoch, round_, salt, rows, evaluation = value
        return cls(epoch, round_, salt, tuple(map(ScoreRow.read_row, rows)), evaluation)


@final
class JudgingPen:
    """Writes one node's evaluations."""

    def __init__(
        self,
        store: Store,
        roster: Roster,
        own: int,
        *,
        closed: int,
        secret: Callable[[int], bytes],
        write: Write,
    ) -> None:
        """Take up where the store stands.

        closed: round of the own newest record: nothing of an earlier one can be written any more.
        secret: gives so many fresh bytes that nobody can guess.
        """
        self._roster = roster
        self._own = own
        self._closed = closed
        self._secret = secret
        self._write = write
        self._lock = trio.Lock()
        stored = store.state_get(STATE_KEY)
        hidden = Hidden.from_bytes(stored) if stored else None
        if hidden is not None and (hidden.epoch != roster.epoch(own) or hidden.round < closed):
            hidden = None  # opened long ago, or by a key that writes no more
        self._hidden = hidden
        self._seq: int | None = None

    def learn(self, record: Verified[Record]) -> None:
        """An own record is on the ledger (also one that is replayed)."""
        value, hidden = record.value, self._hidden
        if value.author != self._own or hidden is None:
            return
        if value.epoch == hidden.epoch and value.round == hidden.round:
            if value.kind == Kind.EVALUATION_COMMIT and self._seq is None:
                self._seq = value.seq
            elif value.kind == Kind.EVALUATION_REVEAL:
                self._hidden = self._seq = None

    async def commit(
        self, round_: int, scores: tuple[ScoreRow, ...], evaluation_commitment: bytes
    ) -> bool:
        """Record an EVALUATION_COMMIT; False where the log has gone on meanwhile."""
        epoch, net = self._roster.epoch(self._own), self._roster.net
        async with self._lock:
            if round_ < self._closed or self._hidden is not None:
                return False
            salt = self._secret(SALT_BYTES)
            commitment = commitment_of(
                net=net,
                author=self._own,
                epoch=epoch,
                round=round_,
                salt=salt,
                scores=scores,
                evaluation_commitment=evaluation_commitment,
            )
            hidden = Hidden(epoch, round_, salt, scores, evaluation_commitment)
            self._hidden = hidden
            try:
                await self._write(
                    Kind.EVALUATION_COMMIT,
                    round_,
                    EvaluationCommit(commitment=commitment),
                    state={STATE_KEY: hidden.to_bytes()},
                )
            except BaseException:
                self._hidden = None
                raise
            return True

    async def open(self) -> None:
        """Record the EVALUATION_REVEAL of what is hidden, if anything is."""
        async with self._lock:
            await self._open()

    async def before(self, round_: int) -> None:
        """A record of ``round_`` comes next: nothing of an earlier round can be written after it."""
        if round_ <= self._closed:
            return
        async with self._lock:
            self._closed = max(self._closed, round_)
            if self._hidden is not None and self._hidden.round < round_:
                await self._open()

    async def _open(self) -> None:
        hidden, seq = self._hidden, self._seq
        if hidden is None or seq is None:
            return
        body = EvaluationReveal(
            commit_seq=seq,
            salt=hidden.salt,
            scores=hidden.scores,
            evaluation_commitment=hidden.evaluation_commitment,
        )
        await self._write(Kind.EVALUATION_REVEAL, hidden.round, body)
