"""Roster updates as a federation's people make them: a site is stopped, a quorum of admins signs.

Room: scenarios. An admin signs one update for each roster (docs/ledger.md §12.6), so a site whose disk has
not heard of the newest one yet is not rotated.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import final

from ledger.chain import LogHead
from ledger.errors import SwarmError
from ledger.fork import Cut
from ledger.record import NO_ID
from ledger.roster import Roster
from ledger.roster_store import load_roster, store_update
from ledger.roster_update import (
    Add,
    Operation,
    Remove,
    Rotate,
    SignedUpdate,
    Update,
    sign_update,
)
from node.identity import admin_signer
from node.service import Service
from scenarios.simulation.disk import CrashedError
from scenarios.simulation.swarm import SimulatedSite, Swarm
from scenarios.simulation.world import Rough


@final
class Admins:
    """The people with the offline keys: they sign one change after the other, each on top of the last."""

    def __init__(self, swarm: Swarm, world: Rough, honest: Sequence[int]) -> None:
        self._swarm = swarm
        self._world = world
        self._honest = honest
        self._newest = swarm.charter.net

    def rotate(self, member: int) -> None:
        """Give a site that does not run its next key, in its store; its log ends where it does there."""
        with self._world.members[member].disk.by_operator() as store:
            before = load_roster(store, self._swarm.charter)
            if before.digest == self._newest:
                head = store.heads().get((member, before.epoch(member)))
                update = rotation(before, self._swarm.sites, member, head)
                before = store_update(store, before, update)
                self._newest = before.digest
        self._world.say(f"member {member} is rotated: roster {before.version}")

    async def vote_out(
        self, member: int, update_of: Callable[..., SignedUpdate], running: Sequence[Service]
    ) -> None:
        """Rotate or remove a member, and cut its log where those who run hold most of it."""
        knowing = [one for one in self._knowing(running) if one.own != member]
        if not knowing:
            return
        log = (member, knowing[0].journal.roster.epoch(member))
        best = max(knowing, key=lambda one: one.journal.counts().get(log, 0))
        head = best.journal.heads().get(log)
        update = update_of(best.journal.roster, self._swarm.sites, member, head)
        self._newest = update.digest
        self._world.say(
            f"member {member} gets a {update_of.__name__} from the others, who keep {head}"
        )
        with suppress(SwarmError, CrashedError):  # what it costs that site is seen elsewhere
            await best.rosters._take(update, source="the plan")  # noqa: SLF001 - as from its inbox

    def add(self, member: int, running: Sequence[Service]) -> bool:
        """Add a hospital: its store gets all updates, everybody honest finds the new one in the inbox.

        Return whether they could: numbers are given in order.
        """
        knowing = self._knowing(running)
        if not knowing or member != len(knowing[0].journal.roster.members):
            return False
        update = addition(knowing[0].journal.roster, self._swarm.sites, member)
        roster = Roster.from_charter(self._swarm.charter)
        with self._world.members[member].disk.by_operator() as store:
            for signed in (*knowing[0].journal.updates, update):
                roster = store_update(store, roster, signed)
        for index in self._honest:
            inbox = self._world.inbox(index)
            inbox.mkdir(parents=True, exist_ok=True)
            (inbox / f"{update.digest.hex()}.update").write_bytes(update.envelope())
        self._newest = update.digest
        self._world.say(f"member {member} is added: roster {roster.version}")
        return True

    def _knowing(self, running: Sequence[Service]) -> list[Service]:
        """Return those who have heard of all that was signed so far."""
        return [one for one in running if one.journal.roster.digest == self._newest]


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


def addition(before: Roster, sites: Sequence[SimulatedSite], member: int) -> SignedUpdate:
    """Return the signed update that adds a hospital."""
    identity = sites[member].identity
    return _sign(
        before,
        sites,
        Add(
            name=f"member-{member}",
            role="hospital",
            ledger_key=identity.ledger().public_key,
            witness_key=identity.witness().public_key,
            admin_key=admin_signer(identity.seed).public_key,
            network_key=identity.network_key,
            addresses=(),
        ),
    )


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
