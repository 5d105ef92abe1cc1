"""Merge the chosen contributions and publish what came out: AGGREGATION."""

from ledger.record import Aggregation, Codec, Input, Kind, LeftOut, Rule
from ledger.weights import weights_micro
from node.effects.desk import Desk
from swarm.protocol.effects import Merge
from swarm.protocol.round import MOMENTS_ROUND

__all__ = ["aggregate", "weights_micro"]


async def aggregate(desk: Desk, effect: Merge) -> None:
    """Merge the chosen contributions in their fixed order and publish what came out."""
    offers = sorted(effect.offers, key=lambda offer: (offer.author, offer.epoch, offer.seq))
    payloads = [(offer.digest, await desk.payload(offer.digest)) for offer in offers]
    if effect.round == MOMENTS_ROUND:
        rule, codec, weights = Rule.MOMENTS, Codec.MOMENTS, [0] * len(offers)
        merged = await desk.world.compute.run(desk.hospital.learner.merge_moments, payloads)
    else:
        rule, codec = Rule.MEAN, Codec.FLOAT32
        near = desk.machine.mixing_micro(effect.round)
        weights = weights_micro(
            [offer.samples for offer in offers],
            desk.hospital.charter.aggregation,
            staleness_rounds=[effect.round - offer.round for offer in offers],
            mixing_micro=[near[offer.author] for offer in offers] if near else (),
        )
        inputs = [(*pair, weight) for pair, weight in zip(payloads, weights, strict=True)]
        merged = await desk.world.compute.run(desk.hospital.learner.merge, inputs)
    result = await desk.keep(codec, merged)
    body = Aggregation(
        rule=rule,
        parameters=(effect.attempt,) if effect.attempt else (),
        inputs=tuple(
            Input(author=o.author, epoch=o.epoch, seq=o.seq, id=o.id, weight_micro=weight)
            for o, weight in zip(offers, weights, strict=True)
        ),
        left_out=tuple(LeftOut(author=a, reason=reason) for a, reason in effect.left_out),
        result_digest=result,
    )
    await desk.record(Kind.AGGREGATION, effect.round, body)
