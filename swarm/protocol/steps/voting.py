"""AGREE and SETTLE: vote for a set of contributions, and see whether a quorum did. Spec: docs/wire.md §5.5, §5.7."""

from swarm.protocol.ballots import attempt_of, vote_ballot
from swarm.protocol.book import Offer, Proposal
from swarm.protocol.candidates import MOMENTS_ROUND
from swarm.protocol.choice import Inputs
from swarm.protocol.effects import Adopt, Effect, Fetch, Merge
from swarm.protocol.phases import Event
from swarm.protocol.position import Position, Step


def agree(at: Position, now_s: float) -> Step:
    """Choose inputs, fetch what is missing of them, and merge."""
    if at.round == MOMENTS_ROUND:
        at.attempt = at.attempts.joined(at.attempt) or at.attempt
    if at.book.newest_ballots(at.round).get(at.own, -1) >= vote_ballot(at.attempt):
        return Event.VOTED, ()
    late = at.passed(at.entered_s + at.patience.vote_s(at.round), now_s)
    if at.is_over() or at.is_overtaken() or (at.book.agreed(at.round) and (late or at.attempt)):
        return Event.OVERTAKEN, ()
    again = _vote_again(at) if at.attempt else None
    if again is not None:
        return None, again
    chosen = _chosen(at, now_s, late=late)
    if not chosen:
        return None, at.fetches(at.candidates.wanted(at.round))
    if not all(map(at.has, chosen)):
        return None, at.fetches(chosen)
    return None, merge(at, chosen, vote_ballot(at.attempt))


def _vote_again(at: Position) -> tuple[Effect, ...] | None:
    """In a later attempt of round zero: confirm, or vote for what alone may be voted for; None if free."""
    confirmation = _confirmation(at)
    if confirmation:
        return confirmation
    bound = at.attempts.bound()
    return None if bound is None else _adopt(at, bound.proposal, vote_ballot(at.attempt))


def _chosen(at: Position, now_s: float, *, late: bool) -> Inputs:
    """The inputs to vote for: what others voted for, else all, else mine when it is my turn."""
    if at.attempt:
        return at.choice.again(at.attempt, lambda offer: _is_lost(at, offer))
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


def merge(at: Position, chosen: Inputs, ballot: int = 0) -> tuple[Effect, ...]:
    """Merge what was chosen, once the base that it starts from is here."""
    origin = at.candidates.origin(chosen, at.round)
    if origin is None and at.round != MOMENTS_ROUND and at.place.aggregation.needs_base:
        return ()  # nothing of the round itself: others will agree, or more will come
    if origin is not None and origin not in at.held:
        return (Fetch(origin, at.voters(origin)),)
    left_out = at.candidates.left_out(at.round, chosen, at.active())
    return (Merge(at.round, chosen, left_out, ballot, origin),)


def _adopt(at: Position, proposal: Proposal | None, ballot: int) -> tuple[Effect, ...]:
    """Vote for what others have merged, or confirm it, once the result is here."""
    if proposal is None:
        return ()
    if proposal.result not in at.held:
        return (Fetch(proposal.result, at.voters(proposal.result)),)
    merged = {one.author for one in proposal.inputs}
    reasons = at.candidates.left_out(at.round, (), at.active())
    left_out = tuple((author, reason) for author, reason in reasons if author not in merged)
    return (Adopt(at.round, proposal, left_out, ballot),)


def _confirmation(at: Position) -> tuple[Effect, ...]:
    """Confirm what a quorum voted for in this attempt of round zero or in a later one."""
    ready = at.attempts.to_confirm()
    if ready is None:
        return ()
    ballot, proposal = ready
    return _adopt(at, proposal, ballot)


def settle(at: Position, now_s: float) -> Step:
    """Wait for a quorum; without one go on with the own result, but not in round zero."""
    own_vote = at.book.votes(at.round)[at.own]
    agreed = at.book.agreed(at.round)
    if at.is_over() or at.is_overtaken() or (agreed and agreed.proposal != own_vote):
        return Event.OVERTAKEN, ()
    if at.round == MOMENTS_ROUND:
        return (Event.SETTLED, ()) if agreed else _settle_moments(at, now_s)
    if agreed:
        at.model = own_vote.result
        return Event.SETTLED, ()
    is_last = at.round == at.stopping.last_round()
    due = at.passed(at.entered_s + at.patience.quorum_s(at.round, is_last=is_last), now_s)
    if due or not at.choice.may_agree(at.round):
        at.model = own_vote.result
        return Event.SETTLED, ()
    return None, ()


def _settle_moments(at: Position, now_s: float) -> Step:
    """Confirm what a quorum voted for; vote again where others do, or where this attempt came to nothing."""
    confirmation = _confirmation(at)
    if confirmation and not isinstance(confirmation[0], Fetch):
        return None, confirmation
    attempt = attempt_of(at.attempts.newest)
    later = at.attempts.joined(attempt)
    if later is None and at.passed(at.entered_s + at.patience.attempt_s(attempt), now_s):
        later = at.attempts.next(attempt)
    if later is not None:
        at.attempt = later
        return Event.SPLIT, ()
    wanted = at.fetches(at.candidates.wanted(at.round))  # the next attempt may be about these
    return None, (*confirmation, *wanted)
