"""Roster updates as a federation's people make them: a site is stopped, a quorum of admins signs.

Room: scenarios. An admin signs one update for each roster (docs/ledger.md §12.6), so a site whose disk has
not heard of the newest one yet is not rotated.
"""

from collections.abc import Sequence

from ledger.chain import LogHead
from ledger.charter import Charter
from ledger.fork import Cut
from ledger.record import NO_ID
from ledger.roster import Roster
from ledger.roster_store import load_roster, store_update
from ledger.roster_update import (
    Operation,
    Remove,
    Rotate,
    SignedUpdate,
    Update,
    sign_update,
)
from ledger.store import Store
from node.identity import admin_signer
from scenarios.simulation.swarm import SimulatedSite


def rotate(
    store: Store, charter: Charter, sites: Sequence[SimulatedSite], member: int, signed: list[bytes]
) -> int:
    """Rotate the member whose store this is, and which does not run; return the roster's version.

    signed: digests of the rosters that the admins have signed so far; the new one is added. Nothing of
    the log is lost: the cut is where it ends on its own disk.
    """
    before = load_roster(store, charter)
    if before.digest != (signed[-1] if signed else charter.net):
        return before.version
    head = store.heads().get((member, before.epoch(member)))
    after = store_update(store, before, rotation(before, sites, member, head))
    signed.append(after.digest)
    return after.version


def rotation(
    before: Roster, sites: Sequence[SimulatedSite], member: int, head: LogHead | None
) -> SignedUpdate:
    """Return the signed update that gives a member its next key and ends its log at ``head``."""
    identity, epoch = sites[member].identity, before.epoch(member)
    return _sign(
        before,
        sites,
        Rotate(
            author=member,
            epoch=epoch + 1,
            ledger_key=identity.ledger(epoch + 1).public_key,
            witness_key=identity.witness().public_key,
            network_key=identity.network_key,
            addresses=(),
        ),
        _cut(member, epoch, head),
    )


def removal(
    before: Roster, sites: Sequence[SimulatedSite], member: int, head: LogHead | None
) -> SignedUpdate:
    """Return the signed update that removes a member and ends its log at ``head``."""
    return _sign(before, sites, Remove(author=member), _cut(member, before.epoch(member), head))


def _cut(member: int, epoch: int, head: LogHead | None) -> Cut:
    return Cut(
        author=member,
        epoch=epoch,
        kept=head.next_seq if head else 0,
        head_id=head.prev_id if head else NO_ID,
    )


def _sign(
    before: Roster, sites: Sequence[SimulatedSite], operation: Operation, *cuts: Cut
) -> SignedUpdate:
    """Return the update of a roster that the first q of its members have signed."""
    update = Update(
        net=before.net,
        version=before.version + 1,
        previous=before.digest,
        operation=operation,
        cuts=cuts,
    ).to_bytes()
    return SignedUpdate(
        update,
        tuple(
            (one.index, sign_update(update, admin_signer(sites[one.index].identity.seed)))
            for one in before.active[: before.q]
        ),
    )
