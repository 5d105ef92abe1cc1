"""Proven forks as a store keeps them. Room: ledger. Spec: docs/ledger.md §8, §9.

What froze a log lies in the store's key-value part, written in one transaction with the records that
were let in because of it; FORK_PROOF records may follow later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from .bodies import ForkProof, Kind
from .canonical import decode, encode, unpack
from .errors import ConfigError, StoreError, VerificationError
from .finality import raise_to, states_of_versions
from .fork import check_fork_proof
from .record import RecordId, split_envelope
from .roster import Roster, quorum
from .store import Store

Log: TypeAlias = tuple[int, int]  # (author, epoch)
_BYTES_MAX: Final = 1 << 18


def fork_key(log: Log) -> str:
    """Under which name a store remembers what froze a log."""
    return f"fork.{log[0]:04d}-{log[1]:04d}"


def fork_value(body: ForkProof) -> bytes:
    """Return what a store remembers of it."""
    return encode(body.to_value())


def stored_proofs(store: Store, roster: Roster) -> Iterator[ForkProof]:
    """Yield what this store remembers, not checked again. Raises StoreError."""
    for author in range(len(roster.members)):
        for epoch in range(roster.epoch(author) + 1):
            blob = store.state_get(fork_key((author, epoch)))
            if blob is not None:
                try:
                    value: Any = decode(blob, bytes_max=_BYTES_MAX)
                    yield ForkProof.from_value(value)
                except (VerificationError, TypeError, ValueError) as error:
                    raise StoreError(
                        f"{store.path}: a stored fork proof has changed: {error}"
                    ) from error


class _Branch:
    """Our branch of one forked log, and who has acked which record of the log."""

    def __init__(self, store: Store, log: Log) -> None:
        self.ids = [one.id for one in store.records(author=log[0], epoch=log[1])]
        self.elsewhere: dict[int, set[int]] = {}
        matrices: dict[int, dict[Log, dict[int, int]]] = {}
        for signed in store.records():
            value: Any = unpack(signed.record_bytes)
            if (value[2], value[3]) == log:
                raise_to(matrices.setdefault(value[6], {}), log, log[0], value[4])
            for author, epoch, seq, id_ in value[11]:
                if (author, epoch) == log and value[2] != log[0]:
                    if seq < len(self.ids) and self.ids[seq] == id_:
                        raise_to(matrices.setdefault(value[6], {}), log, value[2], seq)
                    else:
                        self.elsewhere.setdefault(value[6], set()).add(value[2])
        self.matrices = matrices


def kept_by_default(store: Store, roster: Roster, log: Log) -> int:
    """Return how many records of a log a cut should keep by what this store holds.

    All that it holds; of a log that forks, what is final on the branch that it holds, and if nothing
    is from the fork on, what lies before it. Raises ConfigError where another branch may be final.
    """
    held = store.heads()[log].next_seq
    slots = []
    for body in (*stored_proofs(store, roster), *_recorded(store)):
        try:
            fork = check_fork_proof(body, roster)
        except VerificationError:
            continue
        if (fork.author, fork.epoch) == log:
            slots.append(fork.seq)
    if not slots:
        return held
    branch = _Branch(store, log)
    final = states_of_versions(branch.matrices, roster).get(log, -1) + 1
    if final > min(slots):
        return final
    for version, members in branch.elsewhere.items():
        needed = quorum(len(roster.active_at(version)))
        if len(members & roster.active_at(version)) + 1 >= needed:  # its author signed it, too
            raise ConfigError(
                f"log {log[0]}/{log[1]} forks, and the branch that this site does not hold may be "
                "final: propose it on a site that holds that one, or say --kept"
            )
    return min(held, *slots)


def _recorded(store: Store) -> Iterator[ForkProof]:
    for signed in store.records(kind=Kind.FORK_PROOF):
        value: Any = unpack(signed.record_bytes)
        yield ForkProof.from_value(value[12])


class References:
    """Which references of stored records an auditor can follow, as far as records are exported."""

    def __init__(self, store: Store) -> None:
        # A node lets a reference to another branch in only where it knows of the fork.
        self._proofs: dict[Log, list[tuple[Log, int]]] = {}
        for signed in store.records(kind=Kind.FORK_PROOF):
            value: Any = unpack(signed.record_bytes)
            half: Any = unpack(split_envelope(value[12][0])[0])
            place = (value[2], value[3]), value[4]
            self._proofs.setdefault((half[2], half[3]), []).append(place)
        forked = [log for log in store.heads() if store.state_get(fork_key(log)) is not None]
        self._ids: dict[Log, list[RecordId]] = {
            log: [signed.id for signed in store.records(author=log[0], epoch=log[1])]
            for log in {*self._proofs, *forked}
        }

    def is_shown(self, log: Log, seq: int, id_: RecordId, counts: Mapping[Log, int]) -> bool:
        """Tell whether this very record is exported."""
        if seq >= counts.get(log, 0):
            return False
        return log not in self._ids or self._ids[log][seq] == id_

    def is_contested(self, log: Log, counts: Mapping[Log, int]) -> bool:
        """Tell whether a proof is exported that the log forks: then nothing that names it is missed."""
        return any(seq < counts.get(where, 0) for where, seq in self._proofs.get(log, ()))

    def any_contested(self, counts: Mapping[Log, int]) -> bool:
        """Tell whether that is so of any log."""
        return any(self.is_contested(log, counts) for log in self._proofs)
