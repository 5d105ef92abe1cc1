"""COLLECT, AGREE and SETTLE where members average with neighbours: nobody is asked. Spec: docs/wire.md §5.8."""

from swarm.protocol.choice import Inputs
from swarm.protocol.neighbours import Neighbours
from swarm.protocol.phases import Event
from swarm.protocol.position import Position, Step
from swarm.protocol.steps import voting
from swarm.protocol.steps.collecting import awaited


def collect(at: Position, now_s: float) -> Step:
    """Collect from neighbours: nobody is waited for long."""
    near = at.mixes()
    if near is None:
        raise AssertionError("neighbours in a round that a quorum agrees")
    if at.own in at.book.votes(at.round):
        return Event.CLOSED, ()
    if at.place.aggregation.is_buffered:
        return _collect_new(at, near, now_s)
    held = at.candidates.held(at.round)
    if at.own not in {offer.author for offer in at.candidates.usable(at.round)}:
        return _skip(at)
    awaited_now = awaited(at, now_s)
    enough = len(held) >= near.inputs_min(at.round) or _is_left_alone(at, near, held, now_s)
    over_s = at.attendance.started_s(at.began) + at.policy.deadline_max_s
    if not awaited_now and (enough or at.passed(over_s, now_s)):
        near.merged(at.round, [one.author for one in held if one.round == at.round])
        at.merging = held
        return Event.CLOSED, ()
    ahead = at.next_after(at.round)
    if not awaited_now and ahead > at.round + 1:
        at.round = ahead
        return Event.OUTRUN, ()
    return None, at.fetches(at.candidates.wanted(at.round))


def _skip(at: Position) -> Step:
    """The own contribution is of no use, as its base is not what anybody has merged any more."""
    if at.round >= at.stopping.last_round():
        return Event.FINISHED, ()
    at.round += 1
    return Event.OUTRUN, ()


def _is_left_alone(at: Position, near: Neighbours, held: Inputs, now_s: float) -> bool:
    """Whether no neighbour comes any more in its usual time, while others go on."""
    coming = near.coming(at.round, {offer.author for offer in held})
    waits = [one for one in coming if not at.passed(at.attendance.due_s(one, at.began), now_s)]
    return not waits and near.is_reached_by_others(at.round)


def _collect_new(at: Position, near: Neighbours, now_s: float) -> Step:
    """Collect as many new updates as the charter says, whose they are and however old. §5.8.7."""
    offered = at.book.last_offer_round(at.own)
    ahead = min(at.book.round_ahead(at.own), offered + at.policy.staleness_max, at.policy.rounds)
    at.round = max(at.round, ahead)
    held = at.candidates.held(at.round)
    others = (near.of(at.round) & at.active()) - {at.own}
    wanted = min(at.place.aggregation.buffer, len(others))
    over_s = at.attendance.started_s(at.began) + at.policy.deadline_max_s
    new = sum(one.author != at.own for one in held)
    if held and (new >= wanted or at.passed(over_s, now_s)):
        at.merging = held
        return Event.CLOSED, ()
    return None, at.fetches(at.candidates.wanted(at.round))


def merge(at: Position, _now_s: float) -> Step:
    """Merge what was collected."""
    if at.own in at.book.votes(at.round):
        return Event.VOTED, ()
    if not (at.merging and all(map(at.has, at.merging))):
        at.merging = at.candidates.held(at.round)
    return None, voting.merge(at, at.merging)


def settle(at: Position, _now_s: float) -> Step:
    """The own result stands."""
    at.model = at.book.votes(at.round)[at.own].result
    return Event.SETTLED, ()
