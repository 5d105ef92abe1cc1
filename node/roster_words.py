"""A roster's history in words and as plain values. Room: node."""

from collections.abc import Iterator, Sequence
from typing import Any

from ledger.charter import Charter
from ledger.roster import Roster
from ledger.roster_update import (
    Add,
    Remove,
    SignedUpdate,
    Update,
    advance,
    decode_update,
)


def describe(before: Roster, update: Update) -> str:
    """Say in one line what an update does to the roster before it."""
    operation = update.operation
    if isinstance(operation, Add):
        return f'"{operation.name}" joins as author {len(before.members)}'
    name = before.member(operation.author).name
    (cut,) = update.cuts
    kept = f"{cut.kept} records of epoch {cut.epoch} stay"
    if isinstance(operation, Remove):
        return f'"{name}" (author {operation.author}) leaves; {kept}'
    return f'"{name}" (author {operation.author}) goes on in epoch {operation.epoch}; {kept}'


def signers(before: Roster, signed: SignedUpdate) -> list[str]:
    """Return the names of those who signed."""
    return [before.member(author).name for author, _ in signed.signatures]


def history(charter: Charter, updates: Sequence[SignedUpdate]) -> Iterator[dict[str, Any]]:
    """Yield every version as plain values, the charter's first."""
    roster = Roster.from_charter(charter)
    names = ", ".join(f'"{member.name}"' for member in roster.members)
    yield _version(roster, f"the charter: {names}", [])
    for signed in updates:
        what = describe(roster, decode_update(signed.update_bytes))
        who = signers(roster, signed)
        roster = advance(roster, signed)
        yield _version(roster, what, who)


def _version(roster: Roster, what: str, who: list[str]) -> dict[str, Any]:
    return {
        "version": roster.version,
        "change": what,
        "signed_by": who,
        "members": [member.name for member in roster.active],
        "n": roster.n,
        "f": roster.f,
        "q": roster.q,
        "digest": roster.digest.hex(),
    }


def proposal(before: Roster, signed: SignedUpdate, update: Update) -> dict[str, Any]:
    """Return an update that is not in force yet as plain values."""
    return {
        "version": update.version,
        "change": describe(before, update),
        "signed_by": signers(before, signed),
        "needed": before.q,
        "missing": max(before.q - len(signed.signatures), 0),
        "digest": signed.digest.hex(),
    }
