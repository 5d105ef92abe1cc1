"""Judge the others' contributions, show what the own ones look like, check what others show.

Room: node. All of it runs beside the rounds; whatever fails here costs a vote, never a round.
"""

import math

from ledger.canonical import UINT_MAX
from ledger.errors import PeerError, StoreError
from ledger.record import Kind, Reason, Rejection, Sketch, SketchRow
from ledger.record import Score as ScoreRow
from ledger.sketch import EXPONENT_BIAS
from node.compute import Compute
from node.effects.desk import Desk
from node.hospital import Judge
from node.privacy import published_count
from swarm.protocol.book import Offer
from swarm.protocol.effects import Beside, CheckSketch, OpenScores, Score, ShowSketch

MICRO = 1_000_000


def _judge(desk: Desk) -> tuple[Judge, Compute]:
    """Who measures, and where."""
    judge = desk.hospital.judge
    if judge is None:
        raise ValueError("this node cannot measure contributions")
    beside = desk.world.beside if judge.is_apart else None
    return judge, beside or desk.world.compute


def _micro(loss: float) -> int:
    """Millionths of a loss, bounded to what a record holds; a model that diverged is as bad as can be."""
    return UINT_MAX if not math.isfinite(loss) else round(min(max(loss, 0.0), 1e9) * MICRO)


async def judge_others(desk: Desk, effect: Beside) -> None:
    """Do one piece of this work."""
    match effect:
        case Score():
            await score(desk, effect)
        case OpenScores():
            await desk.judging.open()
        case ShowSketch():
            await show_sketch(desk, effect)
        case CheckSketch():
            await check_sketch(desk, effect)


async def score(desk: Desk, effect: Score) -> None:
    """Measure the merge with and without each contribution on the own validation patients, and commit."""
    log = desk.world.log
    try:
        judge, compute = _judge(desk)
        inputs = [(o.digest, await desk.payload(o.digest), weight) for o, weight in effect.inputs]
        origin = await desk.payload(effect.origin)
        losses = await compute.run(judge.score, inputs, origin)
    except (StoreError, PeerError, ValueError) as error:
        log.info("not_scored", round=effect.round - 1, why=str(error))
        return
    privacy = desk.hospital.charter.privacy
    if losses.count < privacy.group_count_min:
        log.info("not_scored", round=effect.round - 1, why="too few validation patients")
        return
    without = {
        offer.id: loss for (offer, _), loss in zip(effect.inputs, losses.without, strict=True)
    }
    scores = tuple(
        ScoreRow(
            target_id=target,
            loss_with_micro=_micro(losses.together),
            loss_without_micro=_micro(without[target]),
            count=published_count(losses.count, privacy),
        )
        for target in effect.targets
    )
    if not await desk.judging.commit(effect.round, scores, desk.hospital.data_commitment):
        log.info("not_scored", round=effect.round - 1, why="the next round has begun")


async def show_sketch(desk: Desk, effect: ShowSketch) -> None:
    """Record what the own updates look like under an agreed round's seed."""
    try:
        rows = await _rows(desk, effect.rows, effect.seed)
    except (StoreError, PeerError, ValueError) as error:
        desk.world.log.info("not_sketched", round=effect.round, why=str(error))
        return
    body = Sketch(round=effect.round, seed=effect.seed, rows=rows)
    await desk.record(Kind.SKETCH, desk.book.reached(desk.own), body)


async def check_sketch(desk: Desk, effect: CheckSketch) -> None:
    """Project again what somebody shows, as far as the payloads are here; refuse what is false."""
    shown = {row.target_id: row for row in effect.sketch.rows}
    offers = [desk.book.offer(target) for target in shown]
    here = [
        offer
        for offer in offers
        if offer is not None
        and offer.author == effect.author
        and desk.machine.has(offer)
        and offer.base in desk.blobs.stored()
    ]
    try:
        rows = await _rows(desk, here, effect.sketch.seed)
    except (StoreError, PeerError, ValueError) as error:
        desk.world.log.info("sketch_not_checked", round=effect.sketch.round, why=str(error))
        return
    false = [row.target_id.hex()[:16] for row in rows if shown[row.target_id] != row]
    if false:
        desk.world.log.warning(
            "sketch_refused",
            round=effect.sketch.round,
            member=desk.book.roster.member(effect.author).name,
            contributions=false,
        )
        body = Rejection(target_id=effect.id, reason=Reason.FALSE_SKETCH)
        await desk.reject(body, desk.book.reached(desk.own))


async def _rows(
    desk: Desk, offers: list[Offer] | tuple[Offer, ...], seed: bytes
) -> tuple[SketchRow, ...]:
    """Project updates, in the order of their ids. Raises StoreError, PeerError, ValueError."""
    ordered = sorted(offers, key=lambda offer: offer.id)
    pairs = [(await desk.payload(one.digest), await desk.payload(one.base)) for one in ordered]
    judge, compute = _judge(desk)
    projections = await compute.run(judge.sketch, pairs, seed)
    return tuple(
        SketchRow(
            target_id=offer.id,
            exponent=one.exponent + EXPONENT_BIAS,
            values=one.to_bytes(),
        )
        for offer, one in zip(ordered, projections, strict=True)
    )
