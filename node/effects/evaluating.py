"""Measure a round's model on this hospital's own validation patients: METRICS."""

from dataclasses import replace

from ledger.record import GroupValue, Kind, MetricId, Metrics
from node.effects.desk import Desk
from node.privacy import published_count
from swarm.learning.fits import KEEPING_MODES
from swarm.learning.training_state import NO_MEMORY
from swarm.protocol.effects import Evaluate


async def evaluate(desk: Desk, effect: Evaluate) -> None:
    """Measure the round's model on this hospital's own validation patients."""
    await desk.standardise(effect.moments)
    learner, charter = desk.hospital.learner, desk.hospital.charter
    model = await desk.payload(effect.model)
    memory = NO_MEMORY
    if charter.personalisation.mode in KEEPING_MODES:
        memory = await desk.remembered()
    values = await desk.world.compute.run(learner.evaluate, model, memory)
    groups: tuple[GroupValue, ...] = ()
    if charter.schema.subgroups:
        groups = await desk.world.compute.run(learner.evaluate_groups, model, memory)
    body = Metrics(
        round=effect.round,
        model_digest=effect.model,
        values=tuple(
            replace(one, count=published_count(one.count, charter.privacy)) for one in values
        ),
        groups=tuple(
            replace(one, count=published_count(one.count, charter.privacy)) for one in groups
        ),
    )
    await desk.record(Kind.METRICS, effect.round, body)
    agreed = desk.book.agreed(effect.round)
    own = desk.book.votes(effect.round).get(desk.own) if desk.book.is_gossip else None
    merged = agreed.proposal if agreed else own
    desk.world.log.info(
        "round_closed",
        round=effect.round,
        agreed=agreed is not None,
        merged=len(merged.inputs) if merged else 0,
        **{MetricId(v.metric).name.lower(): v.micro / 1e6 for v in values},
    )
