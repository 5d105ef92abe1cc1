"""Anti-entropy: what one node has and the other lacks. Pure functions. Spec: docs/wire.md §4.

A swarm that gets no gossip at all still converges by comparing heads alone.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from ledger.canonical import ITEMS_MAX
from swarm.protocol.messages import RECORDS_BYTES_MAX, Log


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
