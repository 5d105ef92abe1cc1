"""Who the members are and which key is theirs. Room: ledger. Spec: docs/ledger.md §3 and §6.

Version 1 of the ledger knows roster version 0, the charter's, and key epoch 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from .charter import Charter, Member
from .errors import VerificationError


@dataclass(frozen=True, kw_only=True, slots=True)
class Roster:
    """The members of one network at one version; ``members[i].index == i``."""

    version: int
    net: bytes
    members: tuple[Member, ...]

    @classmethod
    def from_charter(cls, charter: Charter) -> Self:
        """Return version 0."""
        return cls(version=0, net=charter.net, members=charter.members)

    @property
    def n(self) -> int:
        """How many members there are."""
        return len(self.members)

    @property
    def f(self) -> int:
        """How many liars are tolerated."""
        return max(self.n - 1, 0) // 3

    @property
    def q(self) -> int:
        """How many make a quorum: two of them share an honest member."""
        return (self.n + self.f) // 2 + 1

    def member(self, index: int) -> Member:
        """Return one member. Raises E_UNKNOWN_AUTHOR."""
        if not 0 <= index < len(self.members):
            raise VerificationError(
                "E_UNKNOWN_AUTHOR", f"author {index} is no member", expected=f"0 to {self.n - 1}"
            )
        return self.members[index]

    def key(self, author: int, epoch: int) -> bytes:
        """Return the ledger key of one epoch. Raises E_UNKNOWN_AUTHOR."""
        member = self.member(author)
        if epoch != 0:
            raise VerificationError(
                "E_UNKNOWN_AUTHOR", f"author {author} has no epoch {epoch}", expected="epoch 0"
            )
        return member.ledger_key
