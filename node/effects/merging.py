"""Merge the chosen contributions and publish what came out: AGGREGATION."""

from collections.abc import Sequence

from ledger.record import Aggregation, Input, Kind, LeftOut
from ledger.rules import result_codec, rule_of_round, rule_parameters
from ledger.weights import weights_micro
from node.effects.desk import Desk
from swarm.protocol.book import Offer
from swarm.protocol.effects import Adopt, Merge
from swarm.protocol.round import MOMENTS_ROUND

__all__ = ["aggregate", "weights_micro"]


async def aggregate(desk: Desk, effect: Merge) -> None:
    """Merge the chosen contributions in their fixed order and publish what came out."""
    policy, learner = desk.hospital.charter.aggregation, desk.hospital.learner
    offers = sorted(effect.offers, key=lambda offer: (offer.author, offer.epoch, offer.seq))
    payloads = [(offer.digest, await desk.payload(offer.digest)) for offer in offers]
    rule = rule_of_round(policy, effect.round)
    parameters: tuple[int, ...]
    if effect.round == MOMENTS_ROUND:
        weights = [0] * len(offers)
        parameters = (effect.ballot,) if effect.ballot else ()
        merged = await desk.world.compute.run(learner.merge_moments, payloads)
    else:
        near = desk.machine.mixing_micro(effect.round)
        factors = await _factors_micro(desk, effect.round, offers)
        weights = weights_micro(
            [offer.samples for offer in offers],
            policy,
            staleness_rounds=[effect.round - offer.round for offer in offers],
            mixing_micro=[near[offer.author] for offer in offers] if near else (),
            factors_micro=factors,
        )
        parameters = rule_parameters(policy, len(offers))
        inputs = [(*pair, weight) for pair, weight in zip(payloads, weights, strict=True)]
        origin = await desk.payload(effect.origin) if effect.origin else None
        merged = await desk.world.compute.run(learner.merge, inputs, origin)
    result = await desk.keep(result_codec(rule), merged)
    body = Aggregation(
        rule=rule,
        parameters=parameters,
        inputs=tuple(
            Input(author=o.author, epoch=o.epoch, seq=o.seq, id=o.id, weight_micro=weight)
            for o, weight in zip(offers, weights, strict=True)
        ),
        left_out=tuple(LeftOut(author=a, reason=reason) for a, reason in effect.left_out),
        result_digest=result,
    )
    await desk.record(Kind.AGGREGATION, effect.round, body)


async def adopt(desk: Desk, effect: Adopt) -> None:
    """Publish what others have merged as the own vote or confirmation."""
    body = Aggregation(
        rule=effect.proposal.rule,
        parameters=(effect.ballot,),
        inputs=effect.proposal.inputs,
        left_out=tuple(LeftOut(author=a, reason=reason) for a, reason in effect.left_out),
        result_digest=effect.proposal.result,
    )
    await desk.record(Kind.AGGREGATION, effect.round, body)


async def _factors_micro(desk: Desk, round_: int, offers: Sequence[Offer]) -> list[int]:
    """What reputation makes of each weight, where the charter wants that."""
    if not desk.weighing.is_on:
        return []
    slots = [(offer.author, offer.epoch, offer.seq) for offer in offers]
    forks = desk.journal.forks  # with the proof on record, so that an auditor sees why
    told = frozenset(log for log in forks.slots if forks.is_told(log))
    factors = await desk.world.compute.run(desk.weighing.factors_micro, round_, slots, told)
    return factors or []  # where nobody can say, nobody is weighed
