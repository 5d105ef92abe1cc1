"""Roster updates as a store keeps them: all of them, in their order. Room: ledger.

They lie in the store's key-value part, so that an update and the cut that it orders are written in
one transaction. Spec: docs/ledger.md §12.
"""

from __future__ import annotations

from typing import Any, Final

from .canonical import decode, encode
from .charter import MEMBERS_MAX, Charter
from .errors import StoreError, VerificationError
from .fork import Cut
from .roster import Roster
from .roster_update import SIGNED_UPDATE_BYTES_MAX, SignedUpdate, advance, parse_update
from .store import Store

STATE_KEY: Final = "roster.updates"
UPDATES_MAX: Final = 2_048
"""Changes of one network's roster, ever: eight for each of the most members that it can have."""
_BYTES_MAX: Final = UPDATES_MAX * SIGNED_UPDATE_BYTES_MAX

assert UPDATES_MAX == 8 * MEMBERS_MAX  # noqa: S101 - the two numbers belong together


def stored_updates(store: Store) -> list[SignedUpdate]:
    """Return the updates that this store has accepted, oldest first. Raises StoreError."""
    blob = store.state_get(STATE_KEY)
    if blob is None:
        return []
    try:
        rows: Any = decode(blob, bytes_max=_BYTES_MAX)
        return [parse_update(row) for row in rows]
    except (VerificationError, TypeError) as error:
        raise StoreError(f"the stored roster updates have changed: {error}") from None


def load_roster(store: Store, charter: Charter) -> Roster:
    """Return the newest roster, every update checked again. Raises StoreError."""
    roster = Roster.from_charter(charter)
    try:
        for signed in stored_updates(store):
            roster = advance(roster, signed)
    except VerificationError as error:
        raise StoreError(f"the stored roster updates have changed: {error}") from None
    return roster


def store_update(store: Store, roster: Roster, signed: SignedUpdate) -> Roster:
    """Check an update, store it with what it cuts as one transaction, and return the new roster.

    Raises VerificationError (nothing is stored) and StoreError.
    """
    after = advance(roster, signed)
    updates = [one.envelope() for one in stored_updates(store)]
    if len(updates) >= UPDATES_MAX:
        raise VerificationError("E_SIZE", f"more than {UPDATES_MAX} roster updates")
    ended = set(after.cuts()) - set(roster.cuts())
    dropped = {(cut.author, cut.epoch): kept_of(store, cut) for cut in ended}
    store.cut(dropped, state={STATE_KEY: encode([*updates, signed.envelope()])})
    return after


def lacking(store: Store, roster: Roster) -> dict[Cut, int]:
    """Return the cuts that keep more than this store holds (yet), and how much it holds.

    A bundle of such a store, alone, is refused: a quorum vouches for what a cut keeps.
    """
    heads = store.heads()
    held = {cut: heads.get((cut.author, cut.epoch)) for cut in roster.cuts()}
    counts = {cut: head.next_seq if head else 0 for cut, head in held.items()}
    return {cut: count for cut, count in counts.items() if count < cut.kept}


def kept_of(store: Store, cut: Cut) -> int:
    """Return how many stored records of a log the cut leaves.

    A store that holds another branch than the cut's keeps none of them: peers have the right ones.
    """
    if cut.kept == 0:
        return 0
    at_head = store.records(author=cut.author, epoch=cut.epoch, from_seq=cut.kept - 1, limit=1)
    signed = next(iter(at_head), None)
    return cut.kept if signed is None or signed.id == cut.head_id else 0
