"""Who averages with whom in `gossip` mode: graphs over members. Room: ledger. Spec: docs/ledger.md §7.

Pure functions of public facts (network, round, number of members), so that every member knows whose
payloads it may pull, and an auditor knows whose it may have merged. Positions are places in the list
of active members, ascending; the caller maps them to author numbers.
Ying et al. 2021, https://arxiv.org/abs/2110.13363 (exponential graphs);
de Vos et al. 2023, https://arxiv.org/abs/2310.01972 (epidemic learning).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isqrt
from typing import Final, TypeAlias

MICRO: Final = 1_000_000
SHUFFLE_DOMAIN: Final = b"swarm/topology/v1\n"
TOPOLOGIES: Final = (
    "full", "static_exponential", "one_peer_exponential", "random_regular", "epidemic", "ring",
    "torus", "edges",
)  # fmt: skip
"""`random_regular` draws its edges once, `epidemic` anew each round, `edges` takes the charter's."""
DEGREE_MIN: Final = 2

Edges: TypeAlias = tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Topology:
    """A graph that may change from round to round. ``net`` seeds what is drawn."""

    name: str
    net: bytes
    degree: int = 4
    """Neighbours in `random_regular` and `epidemic`; even, at least 2."""
    edges: Edges = ()
    """Undirected edges of `edges`, by author number."""

    def senders(self, members: Sequence[int], author: int, round_: int) -> tuple[int, ...]:
        """Return the authors whose payloads ``author`` averages in ``round_``, ascending, without itself.

        members: author numbers of the active members, ascending, ``author`` among them.
        """
        count, at = len(members), members.index(author)
        match self.name:
            case "full":
                near = set(range(count))
            case "static_exponential":
                near = {(at - hop) % count for hop in _powers(count)}
            case "one_peer_exponential":
                hops = _powers(count)
                near = {(at - hops[round_ % len(hops)]) % count} if hops else set()
            case "random_regular":
                near = _drawn(self.net, 0, count, self.degree)[at]
            case "epidemic":
                near = _drawn(self.net, round_ + 1, count, self.degree)[at]
            case "ring":
                near = {(at - 1) % count, (at + 1) % count}
            case "torus":
                near = _torus(count, at)
            case _:
                places = {member: place for place, member in enumerate(members)}
                near = {
                    places[other]
                    for edge in self.edges
                    if author in edge
                    for other in edge
                    if other in places
                }
        return tuple(members[place] for place in sorted(near - {at}))

    def mixing_micro(
        self, members: Sequence[int], author: int, round_: int
    ) -> tuple[tuple[int, int], ...]:
        """Return ``(author, Metropolis weight)`` of ``author`` itself and of each sender, ascending.

        1 / (1 + larger of both degrees) in millionths, rounded down; itself gets the rest.
        On graphs where all have one degree everybody weighs about the same. Xiao and Boyd 2004.
        """
        near = self.senders(members, author, round_)
        own = len(near)
        weights = {
            other: MICRO // (1 + max(own, len(self.senders(members, other, round_))))
            for other in near
        }
        weights[author] = MICRO - sum(weights.values())
        return tuple(sorted(weights.items()))


def _powers(count: int) -> tuple[int, ...]:
    """Hops 1, 2, 4 … below ``count``."""
    return tuple(1 << bit for bit in range(max(count - 1, 0).bit_length()) if 1 << bit < count)


def _torus(count: int, at: int) -> set[int]:
    """Four neighbours on the squarest grid of rows that divides ``count``; a ring if it is prime."""
    rows = next(one for one in range(isqrt(count), 0, -1) if count % one == 0)
    columns = count // rows
    row, column = divmod(at, columns)
    return {
        (row + 1) % rows * columns + column,
        (row - 1) % rows * columns + column,
        row * columns + (column + 1) % columns,
        row * columns + (column - 1) % columns,
    }


@lru_cache(maxsize=64)
def _drawn(net: bytes, draw: int, count: int, degree: int) -> tuple[set[int], ...]:
    """Neighbours in a union of ``degree`` / 2 random cycles through all: undirected, nearly regular."""
    near: tuple[set[int], ...] = tuple(set() for _ in range(count))
    for cycle in range(max(degree, DEGREE_MIN) // 2):
        order = sorted(range(count), key=lambda at: _rank(net, draw, cycle, at))
        for one, other in zip(order, (*order[1:], *order[:1]), strict=True):
            near[one].add(other)
            near[other].add(one)
    return near


def _rank(net: bytes, draw: int, cycle: int, at: int) -> bytes:
    text = b"".join(number.to_bytes(4, "big") for number in (draw, cycle, at))
    return hashlib.sha256(SHUFFLE_DOMAIN + net + text).digest()
