"""Who the members are, now and before, and which key was whose when. Room: ledger. docs/ledger.md §3.

Version 0 is the charter's. Every later one comes from the one before by one signed update
(:mod:`ledger.roster_update`). A roster remembers all earlier versions, so the newest is enough to
judge any record.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from .charter import Charter, Member
from .errors import VerificationError
from .fork import Cut
from .record import NO_ID, RecordId


def tolerated(members: int) -> int:
    """Return f: how many liars among so many members are tolerated."""
    return max(members - 1, 0) // 3


def quorum(members: int) -> int:
    """Return q: how many make a quorum; two of them share an honest member."""
    return (members + tolerated(members)) // 2 + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Term:
    """One key epoch of one author.

    It began with roster version ``since``. If it is over, ``until`` is the version that ended it
    and ``cut`` what stays of its log.
    """

    ledger_key: bytes
    since: int
    until: int | None = None
    cut: Cut | None = None

    def covers(self, version: int) -> bool:
        """Tell whether this is the author's epoch under a roster version."""
        return self.since <= version and (self.until is None or version < self.until)


@dataclass(frozen=True, kw_only=True, slots=True)
class Roster:
    """The members of one network at one version; ``members[i].index == i``, removed ones too.

    digest: names this version and, by a hash chain, all before it; version 0 has the network's.
    terms[author][epoch]; ``spent``: every key that was ever on it, so that none comes twice.
    """

    version: int
    net: bytes
    digest: bytes
    members: tuple[Member, ...]
    terms: tuple[tuple[Term, ...], ...]
    versions: tuple[int, ...]
    spent: frozenset[bytes]
    active: tuple[Member, ...] = field(init=False, repr=False, compare=False)
    """The members that have not been removed."""
    n: int = field(init=False, repr=False, compare=False)
    """How many these are."""
    f: int = field(init=False, repr=False, compare=False)
    """How many liars are tolerated."""
    q: int = field(init=False, repr=False, compare=False)
    """How many make a quorum."""

    def __post_init__(self) -> None:
        """Count once: every record that comes asks for these."""
        active = tuple(one for one in self.members if self.is_active(one.index))
        counts = {"n": len(active), "f": tolerated(len(active)), "q": quorum(len(active))}
        for name, value in {"active": active, **counts}.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_charter(cls, charter: Charter) -> Self:
        """Return version 0."""
        return cls(
            version=0,
            net=charter.net,
            digest=charter.net,
            members=charter.members,
            terms=tuple((Term(ledger_key=one.ledger_key, since=0),) for one in charter.members),
            versions=(0,),
            spent=frozenset(key for one in charter.members for key in one.public_keys),
        )

    def active_at(self, version: int) -> frozenset[int]:
        """Return who was a member under an earlier version."""
        return frozenset(
            author
            for author, terms in enumerate(self.terms)
            if terms[0].since <= version and (terms[-1].until is None or version < terms[-1].until)
        )

    def is_active(self, author: int) -> bool:
        """Tell whether ``author`` is a member now."""
        return 0 <= author < len(self.members) and self.terms[author][-1].until is None

    def member(self, index: int) -> Member:
        """Return one member, also a removed one. Raises E_UNKNOWN_AUTHOR."""
        if not 0 <= index < len(self.members):
            raise VerificationError(
                "E_UNKNOWN_AUTHOR",
                f"author {index} is no member",
                expected=f"0 to {len(self.members) - 1}",
            )
        return self.members[index]

    def epoch(self, author: int) -> int:
        """Return an author's newest key epoch. Raises E_UNKNOWN_AUTHOR."""
        self.member(author)
        return len(self.terms[author]) - 1

    def term(self, author: int, epoch: int) -> Term:
        """Return one key epoch of one author. Raises E_UNKNOWN_AUTHOR."""
        newest = self.epoch(author)
        if not 0 <= epoch <= newest:
            known = "epoch 0" if newest == 0 else f"epoch 0 to {newest}"
            raise VerificationError(
                "E_UNKNOWN_AUTHOR", f"author {author} has no epoch {epoch}", expected=known
            )
        return self.terms[author][epoch]

    def key(self, author: int, epoch: int) -> bytes:
        """Return the ledger key of one epoch. Raises E_UNKNOWN_AUTHOR."""
        return self.term(author, epoch).ledger_key

    def admit(self, author: int, epoch: int, version: int) -> None:
        """Step 7: who wrote under this version wrote in the epoch that he had then.

        Raises E_ROSTER_UNKNOWN, E_UNKNOWN_AUTHOR, E_EPOCH.
        """
        at = bisect_right(self.versions, version)
        if self.versions[at - 1] != version:
            raise VerificationError(
                "E_ROSTER_UNKNOWN", f"roster version {version}", expected=f"<= {self.version}"
            )
        term = self.term(author, epoch)
        if not term.covers(version):
            begun = f"roster {term.since} or later"
            span = begun if term.until is None else f"{begun}, before roster {term.until}"
            raise VerificationError(
                "E_EPOCH",
                f"epoch {epoch} of author {author} under roster {version}",
                expected=span,
            )

    def cut(self, author: int, epoch: int) -> Cut | None:
        """Return what stays of a log whose epoch is over; None for one that goes on."""
        return self.term(author, epoch).cut

    def cuts(self) -> Iterator[Cut]:
        """Yield every cut."""
        for terms in self.terms:
            for term in terms:
                if term.cut is not None:
                    yield term.cut

    def previous_head(self, author: int, epoch: int) -> RecordId:
        """Return what an OPEN in this epoch names: the head that the cut left, zeros in epoch 0."""
        cut = self.cut(author, epoch - 1) if epoch else None
        return NO_ID if cut is None else cut.head_id

    def is_void(self, author: int, epoch: int, seq: int, *, by_version: int) -> bool:
        """Tell whether a reference points behind a cut that its writer could not know.

        ``by_version``: the roster that the referring record names.
        """
        if author >= len(self.terms) or epoch >= len(self.terms[author]):
            return False
        term = self.terms[author][epoch]
        if term.cut is None or term.until is None:
            return False
        return seq >= term.cut.kept and by_version < term.until

    def is_before_cut(self, author: int, epoch: int, *, by_version: int) -> bool:
        """Tell whether a log was cut later than ``by_version``, the roster that a record names.

        If that record names another than the kept one, its writer saw a branch that the cut left out.
        Nothing hides behind this: the cut's head vouches for all before it, and it must be there.
        """
        term = self.terms[author][epoch]
        return term.cut is not None and term.until is not None and by_version < term.until
