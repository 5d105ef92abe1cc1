"""JOIN: hear where the own log ends, sign the charter, and start where the ledger says. Spec: docs/wire.md §5.2."""

from swarm.protocol.candidates import MOMENTS_ROUND
from swarm.protocol.effects import SignOpen
from swarm.protocol.phases import Event
from swarm.protocol.position import Position, Step


def join(at: Position, now_s: float) -> Step:
    """Wait for everybody, but not for ever."""
    book, policy = at.book, at.policy
    if at.own in book.closed:  # nothing is left to sign: it only lingers
        return _resume(at)
    patient = not at.passed(at.entered_s + policy.start_wait_s, now_s)
    others = book.roster.q - 1
    # Whoever restored a backup learns only from others where his log ends: he signs nothing
    # before at least one has told him.
    if len(at.synced) < (others if patient else min(others, 1)):
        return None, ()
    if at.own not in book.opened:
        return None, (SignOpen(),)
    if at.place.leaves:
        return _resume(at)
    everyone = len(book.opened) == book.roster.n
    under_way = bool(book.latest_model(at.own) or book.latest_agreed())
    if not (everyone or under_way) and (patient or len(book.opened) < policy.members_min):
        return None, ()
    return _resume(at)


def _resume(at: Position) -> Step:
    """Start where the ledger says that this node stands: a crash is a restart."""
    mine = at.book.latest_model(at.own)
    latest = at.book.latest_agreed()
    if mine:
        at.round, at.model = mine
    is_over = at.place.leaves or at.own in at.book.closed
    if is_over or (mine and at.round >= at.stopping.last_round()):
        return Event.FINISHED, ()
    if mine:
        at.round += 1
    # The own log goes back no more: a round that was skipped to before a crash is where it stands.
    at.round = max(at.round, at.book.reached(at.own))
    if latest and latest.round >= at.round:
        if at.is_new() and latest.round != MOMENTS_ROUND:
            if latest.round >= at.stopping.last_round():
                return Event.FINISHED, ()
            at.round = at.next_after(latest.round)
            return Event.STARTED, ()
        at.round = latest.round
        return Event.OVERTAKEN, ()
    if at.mixes() is not None:
        at.round = at.next_after(at.round - 1)
    return Event.STARTED, ()
