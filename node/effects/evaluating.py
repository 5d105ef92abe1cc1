"""Measure a round's model on this hospital's own validation patients: METRICS."""

from ledger.record import Kind, MetricId, Metrics, MetricValue
from node.effects.desk import Desk
from node.privacy import published_count
from swarm.protocol.effects import Evaluate


async def evaluate(desk: Desk, effect: Evaluate) -> None:
    """Measure the round's model on this hospital's own validation patients."""
    await desk.standardise(effect.moments)
    values = await desk.world.compute.run(
        desk.hospital.learner.evaluate, await desk.payload(effect.model)
    )
    privacy = desk.hospital.charter.privacy
    body = Metrics(
        round=effect.round,
        model_digest=effect.model,
        values=tuple(
            MetricValue(
                metric=value.metric,
                micro=value.micro,
                low_micro=value.low_micro,
                high_micro=value.high_micro,
                count=published_count(value.count, privacy),
            )
            for value in values
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
