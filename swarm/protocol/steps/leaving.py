"""LINGER: say goodbye, and serve the others until nobody needs this node. Spec: docs/wire.md §5.2."""

from swarm.protocol.effects import Effect, Fetch, SignClose
from swarm.protocol.phases import Event
from swarm.protocol.position import Position, Step


def linger(at: Position, now_s: float) -> Step:
    """Take over a last result that is agreed late, close, and stay for whoever is behind."""
    if at.own in at.book.left or (at.place.leaves and at.own not in at.book.closed):
        return _leave(at, now_s)
    over = at.passed(at.entered_s + at.place.linger_s, now_s)
    latest = at.book.latest_agreed()
    wanted: tuple[Effect, ...] = ()
    if latest and latest.round >= at.round and latest.proposal.result != at.model:
        if latest.proposal.result in at.held:
            at.model = latest.proposal.result
        elif not over:
            wanted = (Fetch(latest.proposal.result, at.others(latest)),)
    best = at.stopping.released()
    if best and best.proposal.result not in at.held and not over:
        wanted = (*wanted, Fetch(best.proposal.result, at.others(best)))
    models = at.book.models(at.round)
    if at.own not in at.book.closed:
        patient = not at.passed(at.entered_s + at.patience.goodbye_s, now_s)
        if patient and not at.active() <= set(models):
            return None, wanted
        return None, (*wanted, SignClose(at.policy.rounds + 1))
    served = all(
        m.index in at.book.closed and _is_served(at, m.index)
        for m in at.book.roster.active
        if not (at.book.is_frozen(m.index) or m.index in at.book.left)
    )
    if over or (served and not wanted):
        return Event.LEFT, ()
    return None, wanted


def _is_served(at: Position, closed: int) -> bool:
    """Whether one that has closed needs nothing of this node.

    Who evaluated another model went on without a quorum, and may still come for this one; who
    evaluated none was past this round already, and has come for it before it closed.
    """
    model = at.book.models(at.round).get(closed)
    was_past = model is None and at.book.last_offer_round(closed) > at.round
    return model == at.model or was_past or at.near is not None


def _leave(at: Position, now_s: float) -> Step:
    """Close before the end: nobody waits for this node, and it waits only for somebody to tell."""
    if at.own not in at.book.left:
        return None, (SignClose(max(at.round, at.book.reached(at.own)), left=True),)
    if at.synced or at.passed(at.entered_s + at.place.linger_s, now_s):
        return Event.LEFT, ()
    return None, ()


def done(_at: Position, _now_s: float) -> Step:
    """Nothing is left to do."""
    return None, ()
