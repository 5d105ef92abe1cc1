"""CATCH_UP and EVALUATE: take over what others agreed, and go where they are. Spec: docs/wire.md §5.2."""

from swarm.protocol.book import Agreed
from swarm.protocol.candidates import MOMENTS_ROUND
from swarm.protocol.effects import Evaluate, Fetch
from swarm.protocol.phases import Event
from swarm.protocol.position import Position, Step


def catch_up(at: Position, now_s: float) -> Step:
    """Take over an agreed result: one download at a time, so that a slow line gets there.

    A newer one takes its place only if it is here already, or nobody serves the older any more.
    """
    target, latest = _target(at, now_s), at.book.latest_agreed()
    if target and latest and latest.round > at.round:
        gone = target.proposal.result in at.stalled
        if gone or latest.proposal.result in at.held:
            at.round = latest.round
            return Event.OVERTAKEN, ()
    needed = [target] if target else []
    if at.place.has_moments:
        moments = at.book.agreed(MOMENTS_ROUND)
        if moments is None:
            return None, ()  # the votes that agreed it are still to come
        needed.append(moments)
    missing = [one for one in needed if one.proposal.result not in at.held]
    if missing:
        return None, tuple(Fetch(one.proposal.result, at.others(one)) for one in missing)
    if target and at.round != MOMENTS_ROUND:
        at.model = target.proposal.result
    at.is_outpaced = target is not None and latest is not None and latest.round > at.round
    return Event.HELD, ()


def _target(at: Position, now_s: float) -> Agreed | None:
    """What to take over; None: the node does without, and goes on from the model that it has.

    So it does with a model that others withhold from it (`access.py`; newcomers), or that nobody has
    served for the longest wait: a late vote may agree what nobody keeps any more.
    """
    target = at.book.agreed(at.round)
    if target is None or at.round == MOMENTS_ROUND or target.proposal.result in at.held:
        return target
    stalled = target.proposal.result in at.stalled
    is_lost = stalled and at.passed(at.entered_s + at.policy.deadline_max_s, now_s)
    return None if is_lost or at.is_new() else target


def evaluate(at: Position, _now_s: float) -> Step:
    """Evaluate the round's model, unless the own log is past it, and say which round comes next."""
    is_past = at.book.reached(at.own) > at.round
    if at.round != MOMENTS_ROUND and at.own not in at.book.models(at.round) and not is_past:
        return None, (Evaluate(at.round, at.model, at.moments()),)
    if at.round >= at.stopping.last_round():
        return Event.FINISHED, ()
    latest = at.book.latest_agreed()
    if at.is_outpaced and latest and latest.proposal.result not in at.held:
        behind = latest.round - at.round
        if behind > at.policy.staleness_max and not at.has_chased:
            at.has_chased = True
            at.round = latest.round
            return Event.OVERTAKEN, ()
        # The line is too slow for every round's model. Train from the one that is here, and say
        # how old it is: contribute to a round as far back as still counts.
        back = max(at.policy.staleness_max - 1, 0)
        at.round = max(at.round + 1, at.next_after(at.round) - back, at.book.reached(at.own))
        at.base_is_own = True
        return Event.EVALUATED, ()
    at.round = max(at.next_after(at.round), _begun(at), at.book.reached(at.own))
    return Event.EVALUATED, ()


def _begun(at: Position) -> int:
    """The round that others have come to, who would wait in vain for a vote in one that they have ended.

    Who comes a whole round late would stay so, and split every vote: its own last contribution is
    late for the others, and merged already by itself.
    """
    if at.near is not None:
        return at.round
    return min(at.book.round_begun(at.own), at.stopping.last_round())
