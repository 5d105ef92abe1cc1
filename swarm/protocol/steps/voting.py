"""AGREE and SETTLE: vote for a set of contributions, and see whether a quorum did. Spec: docs/wire.md §5.5, §5.7."""

from swarm.protocol.book import Offer, Proposal
from swarm.protocol.candidates import MOMENTS_ROUND
from swarm.protocol.choice import Inputs
from swarm.protocol.effects import Adopt, Effect, Fetch, Merge
from swarm.protocol.phases import Event
from swarm.protocol.position import Position, Step


def agree(at: Position, now_s: float) -> Step:
    """Choose inputs, fetch what is missing of them, and merge."""
    if at.book.attempts(at.round).get(at.own, -1) >= at.attempt:
        return Event.VOTED, ()
    late = at.passed(at.entered_s + at.patience.vote_s(at.round), now_s)
    if at.is_over() or at.is_overtaken() or (at.book.agreed(at.round) and (late or at.attempt)):
        return Event.OVERTAKEN, ()
    if at.attempt:
        adopted = at.choice.adopted(at.attempt)
        if adopted is not None:
            return None, _adopt(at, adopted)
        chosen = at.choice.again(at.attempt, lambda offer: _is_lost(at, offer))
    else:
        chosen = _choose(at, now_s, late=late)
    if not chosen:
        return None, at.fetches(at.candidates.wanted(at.round))
    if not all(map(at.has, chosen)):
        return None, at.fetches(chosen)
    return None, merge(at, chosen, at.attempt)


def _choose(at: Position, now_s: float, *, late: bool) -> Inputs:
    """The inputs to vote for: what others voted for, else all, else mine when it is my turn."""
    proposal = at.choice.proposal(at.round, lambda offer: _is_lost(at, offer))
    if proposal and not late:
        return proposal
    held = at.candidates.held(at.round)
    if late or at.choice.is_complete(held, at.round):
        return held
    turn = at.choice.turn(at.round, at.attendance.reliable(at.round))
    if at.passed(at.entered_s + turn * at.patience.grace_s(at.round), now_s):
        return held
    return ()


def _is_lost(at: Position, offer: Offer) -> bool:
    """Nobody serves it to this node, or did not in time."""
    given_up = offer.digest in at.stalled or at.attendance.has_given_up(offer.author)
    return given_up and not at.has(offer)


def merge(at: Position, chosen: Inputs, attempt: int = 0) -> tuple[Effect, ...]:
    """Merge what was chosen, once the base that it starts from is here."""
    origin = at.candidates.origin(chosen, at.round)
    if origin is None and at.round != MOMENTS_ROUND and at.place.aggregation.needs_base:
        return ()  # nothing of the round itself: others will agree, or more will come
    if origin is not None and origin not in at.held:
        return (Fetch(origin, at.voters(origin)),)
    left_out = at.candidates.left_out(at.round, chosen, at.active())
    return (Merge(at.round, chosen, left_out, attempt, origin),)


def _adopt(at: Position, proposal: Proposal) -> tuple[Effect, ...]:
    """Vote for what others have merged, once the result is here."""
    if proposal.result not in at.held:
        return (Fetch(proposal.result, at.voters(proposal.result)),)
    merged = {one.author for one in proposal.inputs}
    reasons = at.candidates.left_out(at.round, (), at.active())
    left_out = tuple((author, reason) for author, reason in reasons if author not in merged)
    return (Adopt(at.round, proposal, left_out, at.attempt),)


def settle(at: Position, now_s: float) -> Step:
    """Wait for a quorum; without one go on with the own result, but not in round zero."""
    own_vote = at.book.votes(at.round)[at.own]
    agreed = at.book.agreed(at.round)
    if at.is_over() or at.is_overtaken() or (agreed and agreed.proposal != own_vote):
        return Event.OVERTAKEN, ()
    if agreed:
        at.model = own_vote.result
        return Event.SETTLED, ()
    is_last = at.round == at.stopping.last_round()
    due = at.passed(at.entered_s + at.patience.quorum_s(at.round, is_last=is_last), now_s)
    if at.round != MOMENTS_ROUND and (due or not at.choice.may_agree(at.round)):
        at.model = own_vote.result
        return Event.SETTLED, ()
    if due:
        attempt = at.choice.newer_attempt(at.book.attempts(at.round)[at.own])
        if attempt is not None:
            at.attempt = attempt
            return Event.SPLIT, ()
    wanted = at.candidates.wanted(at.round) if at.round == MOMENTS_ROUND else ()
    return None, at.fetches(wanted)  # the next attempt may be about these
