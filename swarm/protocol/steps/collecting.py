"""COLLECT: who is waited for, and when a round closes. Spec: docs/wire.md §5.2, §5.4."""

from swarm.protocol.candidates import MOMENTS_ROUND
from swarm.protocol.choice import Inputs
from swarm.protocol.effects import GiveUp
from swarm.protocol.phases import Event
from swarm.protocol.position import Position, Step


def collect(at: Position, now_s: float) -> Step:
    """Fetch what is offered, until nobody is waited for any more and there is enough."""
    if at.is_over() or at.is_overtaken():
        return Event.OVERTAKEN, ()
    if at.own in at.book.votes(at.round) or at.book.agreed(at.round):
        return Event.CLOSED, ()
    awaited_now = awaited(at, now_s)
    wanted = at.candidates.wanted(at.round)
    if not awaited_now and at.choice.closes(at.candidates.held(at.round), at.round):
        for offer in wanted:  # not waited for again until it comes
            at.attendance.give_up(offer.author)
        return Event.CLOSED, ()
    missing = _lost_for_good(at, wanted, now_s)
    if missing:
        return None, (GiveUp(at.round, missing),)
    event = _leave(at, now_s) if not awaited_now else None
    return (None, at.fetches(wanted)) if event is None else (event, ())


def _lost_for_good(at: Position, wanted: Inputs, now_s: float) -> tuple[str, ...]:
    """Required members of whom nothing has come in the longest wait; what they offer is fetched as long."""
    longest_s = at.policy.deadline_max_s
    if not at.missing_required() or not at.passed(
        at.attendance.started_s(at.round) + longest_s, now_s
    ):
        return ()
    fetched_long = at.passed(at.entered_s + longest_s, now_s)
    return at.missing_required(besides=() if fetched_long else wanted)


def _leave(at: Position, now_s: float) -> Event | None:
    """Go on where this round comes to nothing: others are ahead, or nobody can merge what was offered."""
    if at.round == MOMENTS_ROUND:
        return None
    last = at.stopping.last_round()
    ahead = min(at.book.round_ahead(at.own), last)
    if ahead > at.round:
        at.round = ahead
        return Event.OUTRUN
    longest_s = at.attendance.started_s(at.round) + at.policy.deadline_max_s
    if not (_is_barren(at) and at.passed(longest_s, now_s)):
        return None
    if at.round >= last:
        return Event.FINISHED
    at.round += 1
    return Event.OUTRUN


def _is_barren(at: Position) -> bool:
    """Whether enough have offered, and too few can still come from a model that others may merge on.

    So it is when a cut takes the votes away that had agreed their base: nobody offers twice in a round,
    so the next one begins, from what is agreed now.
    """
    if at.mixes() is not None:
        return False
    offers = at.book.offers(at.round)
    of_use = len(offers) - len(at.candidates.stray(at.round))
    may_come = sum(
        not at.book.has_passed(author, at.round) for author in at.book.here() - offers.keys()
    )
    return of_use + may_come < at.choice.members_min(at.round) <= len(offers)


def awaited(at: Position, now_s: float) -> frozenset[int]:
    """Whose contribution to this round is still waited for.

    An offer that can be no input is an answer too: nothing else will come from its author.
    """
    usable = {offer.id for offer in at.candidates.usable(at.round)}
    settled = frozenset(
        author
        for author, offer in at.book.offers(at.round).items()
        if at.has(offer) or offer.id not in usable or offer.digest in at.stalled
    )
    near = at.mixes()
    if near is not None:
        return near.awaited(
            at.round,
            settled,
            since_s=at.entered_s,
            passed=lambda due_s: at.passed(due_s, now_s),
            due_s=lambda author: at.attendance.due_s(author, at.began),
        )
    return at.attendance.awaited(
        at.round,
        settled,
        lambda due_s: at.passed(due_s, now_s),
        download_stretch=at.patience.download_stretch(at.round),
    )
