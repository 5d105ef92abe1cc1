"""TRAIN: from which model, and in which round the result is offered. Spec: docs/wire.md §5.2."""

from swarm.protocol.book import Agreed
from swarm.protocol.candidates import MOMENTS_ROUND
from swarm.protocol.effects import Fetch, Train
from swarm.protocol.neighbours import Neighbours
from swarm.protocol.phases import Event, Phase
from swarm.protocol.position import Position, Step


def begin(at: Position, now_s: float) -> None:
    """A round begins: the base of its training is fixed."""
    at.attendance.begin(at.round, now_s=now_s)
    at.passed_over.clear()
    at.base = base_of(at, at.round)
    at.base_is_own = at.is_outpaced = at.has_chased = False
    at.began, at.merging = at.round, ()


def train(at: Position, now_s: float) -> Step:
    """Fetch the base, and train from it; one that nobody serves is not waited for without end."""
    if at.is_over():
        return Event.OVERTAKEN, ()
    voted = at.place.aggregation.is_buffered and at.own in at.book.votes(at.round)
    if voted or at.own in at.book.offers(at.round):
        return Event.CONTRIBUTED, ()
    if at.place.has_moments and at.round != MOMENTS_ROUND and at.moments() is None:
        return None, ()  # a roster update has opened round zero again: its votes are still to come
    if at.base and at.base in at.stalled and at.base not in at.held:
        if at.near is None and _is_left_behind(at):
            return Event.OVERTAKEN, ()
        if at.near is not None or at.passed(at.entered_s + at.policy.deadline_max_s, now_s):
            at.passed_over.add(at.base)
        at.base = base_of(at, at.round)
    missing = [digest for digest in (at.base, at.moments()) if digest and digest not in at.held]
    if missing:
        return None, tuple(Fetch(digest, at.voters(digest)) for digest in missing)
    return None, (Train(at.began, at.base, at.moments()),)


def _is_left_behind(at: Position) -> bool:
    """Whether others have agreed this round or a later one: what it begins from they may keep no more."""
    latest = at.book.latest_agreed()
    if latest is None or latest.round < at.round:
        return False
    at.round = latest.round
    return True


def base_of(at: Position, round_: int) -> bytes | None:
    """The model that training in ``round_`` starts from: the newest agreed, else my own newest."""
    if round_ == MOMENTS_ROUND or at.is_new():
        return None
    if at.near is not None:
        return _base_near(at, at.near)
    agreed = _newest_agreed(at, round_)
    if at.place.aggregation.needs_base:  # nothing else would be of use: others merge on it
        return agreed.proposal.result if agreed else None
    own = at.book.latest_model(at.own, before=round_)
    if own and own[1] in at.passed_over:
        own = None
    if own and (at.base_is_own or agreed is None or agreed.round < own[0]):
        return own[1]
    return agreed.proposal.result if agreed else None


def _newest_agreed(at: Position, round_: int) -> Agreed | None:
    """The newest agreed model that is not passed over; on a line too slow for that one, that is here."""
    for before in reversed([r for r in at.book.agreed_rounds() if MOMENTS_ROUND < r < round_]):
        agreed = at.book.agreed(before)
        if agreed is None or agreed.proposal.result in at.passed_over:
            continue
        if not at.base_is_own or agreed.proposal.result in at.held:
            return agreed
    return None


def _base_near(at: Position, near: Neighbours) -> bytes | None:
    """The own newest model; for a newcomer the newest that somebody has merged and that can be had."""
    own = at.book.latest_model(at.own)
    if own and own[1] not in at.passed_over:
        return own[1]
    merged = [digest for _, digest in near.sources() if at.book.is_result(digest)]
    return next((digest for digest in merged if _can_be_had(at, digest)), None)


def _can_be_had(at: Position, digest: bytes) -> bool:
    is_tried = digest in at.stalled or digest in at.passed_over
    return digest in at.held or (not is_tried and at.book.may_fetch(at.own, digest))


def offer_round(at: Position, round_: int) -> int:
    """Say in which round to offer what was trained in ``round_``: where the others are by now.

    Only who averages with neighbours and was left further behind than late updates count skips
    rounds like that; otherwise nothing that a slow site trains would ever be used.
    """
    if at.mixes() is not None and at.phase is Phase.TRAIN and round_ == at.began:
        at.round = at.next_after(at.round - 1)
        return at.round
    return round_
